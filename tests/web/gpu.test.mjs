// web/gpu.js and web/device.js over a pretended WebGPU, which says what it was asked and fails when
// it is told to: the order of commands while kernels compile, errors that come late, a lost device.
// Real devices are tested in tests/browser/.

import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Device, FAILED, PENDING, READY } from "../../web/device.js";
import { Engine } from "../../web/engine.js";
import { Gpu } from "../../web/gpu.js";
import { Files } from "../../web/wasi.js";

const at = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const wasm = at("build/web/carat/carat.wasm");
const skip = !fs.existsSync(wasm) && "NO build/web/carat/carat.wasm (make wasm)";

class GPUOutOfMemoryError extends Error {}
const usages = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128 };
Object.assign(globalThis, { GPUOutOfMemoryError, GPUBufferUsage: usages,
    GPUShaderStage: { COMPUTE: 4 }, GPUMapMode: { READ: 1 } });

const turn = () => new Promise((done) => setTimeout(done, 0)); // lets promises be heard
const MEMORY = 6, DEVICE = 7, LOST = 8; // carat_code

/** A GPUDevice. said: what it was asked, in order. fail: what the next calls fail with. */
class FakeDevice extends EventTarget {
    said = [];
    fail = { buffer: null, kernel: null };
    hold = false; // kernels compile when compile() is called
    #scopes = [];
    #held = [];
    #lose;
    lost = new Promise((done) => { this.#lose = done; });
    limits = {};
    isLost = false;

    queue = {
        writeBuffer: (buffer, offset, data, from = 0, n = data.byteLength) =>
            this.said.push(`write ${buffer.label} ${new Uint8Array(data, from, n)[0]}`),
        submit: (list) => this.said.push(`submit ${list.map((c) => c.said).join(", ")}`),
        onSubmittedWorkDone: async () => {},
    };

    pushErrorScope() {
        this.#scopes.push(null);
    }

    async popErrorScope() {
        return this.#scopes.pop();
    }

    #error(error) {
        if (error && this.#scopes.length) this.#scopes[this.#scopes.length - 1] = error;
    }

    createBuffer({ label, size, usage }) {
        this.#error(this.fail.buffer);
        return {
            label, size, usage,
            destroy: () => this.said.push(`destroy ${label}`),
            mapAsync: async () => {
                if (this.isLost) throw new Error("lost");
            },
            getMappedRange: (offset, n) => new Uint8Array(n).fill(9).buffer,
            unmap() {},
        };
    }

    createBindGroupLayout = (d) => d;
    createPipelineLayout = (d) => d;
    createShaderModule = (d) => d;
    createBindGroup = ({ entries }) => entries.map((e) => e.resource.buffer.label).join("+");

    createComputePipelineAsync({ label }) {
        return new Promise((done, failed) => {
            const { kernel } = this.fail;
            const end = () => (kernel ? failed(new Error(kernel)) : done(label));
            if (this.hold) this.#held.push(end);
            else end();
        });
    }

    compile() {
        for (const end of this.#held.splice(0)) end();
    }

    createCommandEncoder() {
        const said = [];
        let now = "";
        return {
            beginComputePass: () => ({
                setPipeline: (p) => { now = p; },
                setBindGroup: (_, b) => { now += `(${b})`; },
                dispatchWorkgroups: (x) => said.push(`${now}*${x}`),
                end() {},
            }),
            copyBufferToBuffer: (from, _f, to) => said.push(`copy ${from.label} to ${to.label}`),
            finish: () => ({ said: said.join(", ") }),
        };
    }

    destroy(message = "") {
        this.isLost = true;
        this.#lose({ reason: "destroyed", message });
    }
}

/** Pretends that the browser has an adapter; gives the list of devices that it gave out. */
function pretend(t, { info = {}, onDevice = () => {}, features = [], language = [] } = {}) {
    const devices = [];
    const limits = { maxBufferSize: 2 ** 33, maxStorageBufferBindingSize: 2 ** 32 - 4,
        maxUniformBufferBindingSize: 65536, maxStorageBuffersPerShaderStage: 10,
        maxComputeWorkgroupStorageSize: 32768, maxComputeInvocationsPerWorkgroup: 256,
        maxComputeWorkgroupsPerDimension: 65535 };
    const asked = {};
    const adapter = { info, features: new Set(features), limits, async requestDevice(d) {
        Object.assign(asked, d);
        devices.push(new FakeDevice());
        onDevice(devices[devices.length - 1], devices.length);
        return devices[devices.length - 1];
    } };
    const gpu = { wgslLanguageFeatures: new Set(language), requestAdapter: async () => adapter };
    const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
    Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before)
        : delete globalThis.navigator));
    return { devices, asked, gpu };
}

test("commands keep their order while a kernel compiles", async () => {
    const fake = new FakeDevice();
    const device = new Device(fake, false);
    const a = device.createBuffer(16, 1, "a"), b = device.createBuffer(16, 1, "b");
    const quick = device.createKernel("quick", "", [1], {});
    await turn();
    fake.hold = true;
    const slow = device.createKernel("slow", "", [1], {});
    const bind = device.createBind(slow, [{ buffer: a, offset: 0, size: 0 }]);
    const memory = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    device.write(a, 0, memory.buffer, 0, 4);
    device.dispatch(quick, bind, 1, 1, 1);
    device.dispatch(slow, bind, 2, 1, 1);
    device.submit();
    device.write(a, 0, memory.buffer, 4, 4);
    memory.fill(0); // a write has taken its bytes
    device.dispatch(quick, bind, 3, 1, 1);
    device.copy(b, 0, a, 0, 16);
    device.freeBuffer(b);
    const read = device.read(a, 0, 5);
    await turn();
    assert.deepEqual(fake.said, ["write a 1"]);
    assert.equal(device.pending(), 2);
    assert.equal(device.poll(read, assert.fail), PENDING);
    let settled = false;
    const waiting = device.settled().then(() => { settled = true; });
    await turn();
    assert.equal(settled, false);

    fake.compile();
    await waiting;
    await turn();
    assert.deepEqual(fake.said, ["write a 1", "submit quick(a)*1, slow(a)*2", "write a 5",
        "submit quick(a)*3, copy a to b, copy a to read", "destroy b"]);
    let got = null;
    assert.equal(device.poll(read, (bytes) => { got = [...bytes]; }), READY);
    assert.deepEqual(got, [9, 9, 9, 9, 9]);
    assert.equal(device.pending(), 0);
    assert.equal(device.takeError().code, 0);
    await device.settled(); // nothing is under way: it does not hang
});

test("a kernel that does not compile is named, every time it is used", async () => {
    const fake = new FakeDevice();
    const device = new Device(fake, false);
    const a = device.createBuffer(16, 1, "a");
    fake.fail.kernel = "unresolved value 'x'\n - While compiling";
    const bad = device.createKernel("matvec", "", [1], {});
    const bind = device.createBind(bad, [{ buffer: a, offset: 0, size: 16 }]);
    device.dispatch(bad, bind, 1, 1, 1);
    const read = device.read(a, 0, 4);
    await device.settled();
    assert.deepEqual(device.takeError(),
        { code: DEVICE, message: "gpu: kernel matvec: unresolved value 'x'" });
    assert.equal(device.poll(read, () => {}), READY);
    device.takeError();
    device.dispatch(bad, bind, 1, 1, 1);
    assert.deepEqual(device.takeError(),
        { code: DEVICE, message: "gpu: kernel matvec was not compiled" });
    assert.equal(device.takeError().code, 0);
});

test("memory that is not there, and an error that nothing caught", async () => {
    const fake = new FakeDevice();
    const device = new Device(fake, false);
    fake.fail.buffer = new GPUOutOfMemoryError("Not enough memory left.");
    device.createBuffer(1 << 20, 1, "kv");
    await turn();
    assert.deepEqual(device.takeError(), { code: MEMORY,
        message: "gpu: buffer kv, 1048576 bytes: out of memory: Not enough memory left." });
    // What follows from it is not told; what happens later is.
    const report = (message) => fake.dispatchEvent(
        Object.assign(new Event("uncapturederror"), { error: new Error(message) }));
    report("the buffer is invalid");
    await turn();
    assert.equal(device.takeError().code, 0);
    report("first line\nsecond line");
    report("later");
    assert.deepEqual(device.takeError(), { code: DEVICE, message: "gpu: first line" });
});

test("a lost device is told before what it caused, and for good", async () => {
    const fake = new FakeDevice();
    const device = new Device(fake, false);
    const a = device.createBuffer(16, 1, "a");
    fake.isLost = true; // the read fails first, the loss is told later
    const read = device.read(a, 0, 4);
    const waiting = device.settled();
    setTimeout(() => fake.destroy("the driver was updated"), 20);
    await waiting;
    assert.equal(device.lost, true);
    assert.equal(device.poll(read, assert.fail), FAILED);
    for (let i = 0; i < 2; i++)
        assert.deepEqual(device.takeError(),
            { code: LOST, message: "gpu: the device was lost: the driver was updated" });
    assert.equal(device.pending(), 0);
    await device.settled();
});

test("adapters are named and asked for what they have", async (t) => {
    const { asked, gpu } = pretend(t, {
        info: { vendor: "nvidia", architecture: "ampere", device: "", description: "" },
        features: ["subgroups", "texture-compression-bc"] });
    let opened = await Gpu.open();
    assert.deepEqual([opened.info.name, opened.info.kind], ["NVIDIA ampere", "gpu"]);
    assert.deepEqual(asked.requiredFeatures, ["subgroups"]);
    assert.equal(asked.requiredLimits.maxBufferSize, 2 ** 33);
    const names = {
        "SwiftShader (software)": { vendor: "google", architecture: "swiftshader" },
        "llvmpipe (LLVM 15) (software)": { description: "llvmpipe (LLVM 15)" },
        "Microsoft Basic Render Driver (software)":
            { vendor: "microsoft", description: "Microsoft Basic Render Driver" },
        "GPU (software)": { isFallbackAdapter: true },
        "Apple M4 Pro": { vendor: "apple", description: "Apple M4 Pro" },
    };
    for (const [name, info] of Object.entries(names)) {
        const all = { vendor: "", architecture: "", device: "", description: "", ...info };
        pretend(t, { info: all });
        opened = await Gpu.open();
        assert.deepEqual([opened.info.name, opened.info.kind],
            [name, name.endsWith("(software)") ? "software" : "gpu"]);
    }
    gpu.requestAdapter = async () => null;
    Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
    assert.equal(await Gpu.open(), null);
    assert.match(Gpu.reason, /no adapter/);
});

// ---- under the core ----

async function engineOn(t, options) {
    const world = pretend(t, { info: { vendor: "nvidia", architecture: "test" }, ...options });
    const nano = fs.readFileSync(at("models/nano.gguf"));
    const files = new Files();
    files.add("nano.gguf", { size: nano.length,
        read: (offset, to) => to.set(nano.subarray(offset, offset + to.length)) });
    const gpu = await Gpu.open();
    const engine = await Engine.create({ wasm: fs.readFileSync(wasm), gpu, files });
    engine.openDevice("gpu");
    engine.openModel({ path: "/nano.gguf" });
    return { ...world, engine, gpu };
}

async function run({ gpu }, job) {
    const got = { text: "", notices: [] };
    try {
        for (;;) {
            if (gpu.lost) await gpu.reopen();
            const event = job.advance();
            if (event.kind === "pending") await gpu.settled();
            if (event.kind === "text") got.text += event.text;
            if (event.kind === "notice") got.notices.push(event.text);
            if (event.kind === "done") return got;
        }
    } finally {
        job.free();
    }
}

test("too little device memory is an error that says how much was wanted", { skip }, async (t) => {
    const host = await engineOn(t, { onDevice(device) {
        device.fail.buffer = new GPUOutOfMemoryError("none left");
    } });
    await assert.rejects(run(host, host.engine.load()), (e) => e.code === "memory" &&
        /nano.* needs 0\.0\d GB for its weights on NVIDIA test \(WebGPU\)/.test(e.message));
    host.devices[0].fail.buffer = null;
    await run(host, host.engine.load());
    host.engine.createSession(256);
    assert.ok(host.engine.device().peakBytes > 1e6);
    assert.ok(host.engine.heapBytes() < 24 * 2 ** 20, "weights went through, and did not stay");
});

test("lost while loading, then again: another device, then the CPU", { skip }, async (t) => {
    const host = await engineOn(t);
    const load = host.engine.load();
    load.advance();
    host.devices[0].destroy("gone");
    await assert.rejects(run(host, load), { code: "device-lost", message: /gone$/ });
    await run(host, host.engine.load());
    assert.equal(host.devices.length, 2);
    assert.equal(host.engine.device().isGpu, true);
    host.engine.createSession(256);
    host.gpu.device.destroy("gone again");
    await turn();
    host.gpu.reopen = async () => false;
    const messages = [{ role: "user", content: "What is 23 + 45?" }];
    const answer = await run(host, host.engine.chat({ messages, temperature: 0 }));
    assert.equal(answer.text, "23 + 45 = 68.");
    assert.match(answer.notices[0], /the GPU was lost; carrying on with CPU reference/);
});

test("a kernel that a browser refuses ends the job with its name", { skip }, async (t) => {
    const host = await engineOn(t, { onDevice(device) {
        device.fail.kernel = "no such thing";
    } });
    await run(host, host.engine.load());
    host.engine.createSession(256);
    const messages = [{ role: "user", content: "Hello" }];
    for (let i = 0; i < 2; i++)
        await assert.rejects(run(host, host.engine.chat({ messages })),
            (e) => e.code === "device" && /^gpu: kernel \w+/.test(e.message));
});
