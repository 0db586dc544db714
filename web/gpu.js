// gpu: the device side of src/gpu/gpu_web.c over WebGPU. Owns the adapter, the device and all that
// the core makes on it, in tables of integer ids; one command encoder a submit, with one compute
// pass for consecutive dispatches. What WebGPU tells later (a kernel that does not compile, memory
// that is not there, a lost device) is kept and told at the core's next submit or poll.
//
// Knows no model and no kernel. Flow: web/engine.js connects it with the core; the browser after.
// @ts-check

import {codes} from "./errors.js";

const MEMORY = codes.indexOf("memory");
const DEVICE = codes.indexOf("device");
const LOST = codes.indexOf("device-lost");
const PENDING = 0, READY = 1, FAILED = 2; // gpu_poll_result
const STORAGE = 1, UNIFORM = 2; // gpu_usage
const bindingTypes = ["uniform", "read-only-storage", "storage"]; // gpu_binding_kind

const KEEP_STAGING = 8 << 20; // a read buffer larger than this is not kept
const HANG_SECONDS = 120; // a device that is silent for so long is lost; kernels may be compiling
const HANG_SECONDS_SOFTWARE = 600;

const wantedFeatures = ["subgroups", "shader-f16", "timestamp-query"];
const wantedLimits = ["maxBufferSize", "maxStorageBufferBindingSize", "maxUniformBufferBindingSize",
    "maxStorageBuffersPerShaderStage", "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX", "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ", "maxComputeWorkgroupsPerDimension"];
const software = /swiftshader|llvmpipe|lavapipe|basic render|\bwarp\b/i;
const vendors = {amd: "AMD", apple: "Apple", arm: "ARM", intel: "Intel", nvidia: "NVIDIA",
    qualcomm: "Qualcomm", microsoft: "Microsoft", samsung: "Samsung"};

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const sleep = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));

/** Ids for objects: small integers, used again; 0 is none. */
class Table {
    #items = [null];
    #free = [];

    add(item) {
        const id = this.#free.pop() ?? this.#items.length;
        this.#items[id] = item;
        return id;
    }

    get(id) {
        return this.#items[id];
    }

    drop(id) {
        this.#items[id] = null;
        this.#free.push(id);
    }

    *[Symbol.iterator]() {
        for (const item of this.#items) if (item) yield item;
    }
}

/** The adapter's name as well as the browser tells it. */
function adapterName(info) {
    if (software.test(`${info.architecture} ${info.device} ${info.description}`))
        return /swiftshader/i.test(info.architecture) ? "SwiftShader"
            : info.description || info.device || info.architecture;
    if (info.description || info.device) return info.description || info.device;
    const vendor = vendors[info.vendor] ?? info.vendor;
    return [vendor, info.architecture].filter(Boolean).join(" ") || "GPU";
}

function describe(adapter) {
    const info = adapter.info ?? {};
    const name = adapterName(info);
    const isSoftware = Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) ||
        software.test(`${info.vendor} ${info.architecture} ${info.device} ${info.description}`);
    const limits = {};
    for (const limit of wantedLimits)
        if (adapter.limits[limit] !== undefined) limits[limit] = adapter.limits[limit];
    return {
        name: isSoftware ? `${name} (software)` : name,
        kind: isSoftware ? "software" : "gpu",
        backend: info.backend ?? "WebGPU",
        features: wantedFeatures.filter((f) => adapter.features.has(f)),
        limits,
        bareName: name,
        subgroups: adapter.features.has("subgroups")
            ? [info.subgroupMinSize ?? 4, info.subgroupMaxSize ?? 128] : [0, 0],
    };
}

/** A device with its adapter's features and limits; null and the reason when there is none. */
async function openDevice(powerPreference) {
    const {gpu} = navigator;
    if (!gpu) return {device: null, reason: "this browser has no WebGPU"};
    try {
        const adapter = await gpu.requestAdapter({powerPreference}) ??
            await gpu.requestAdapter({forceFallbackAdapter: true});
        if (!adapter) return {device: null, reason: "the browser finds no adapter"};
        const info = describe(adapter);
        const device = await adapter.requestDevice({
            label: "carat",
            requiredFeatures: /** @type {GPUFeatureName[]} */ (info.features),
            requiredLimits: info.limits,
        });
        return {device, info};
    } catch (e) {
        return {device: null, reason: `the browser gave no device: ${e.message}`};
    }
}

/** One device, and what the core has made on it. */
class Opened {
    buffers = new Table();
    pipelines = new Table(); // {pipeline, layout}
    binds = new Table();
    reads = new Table(); // {staging, size, state}
    lost = false;
    #staging = []; // read buffers at rest
    #dead = []; // freed while recorded commands may use them
    #error = {code: 0, message: ""}; // the first that was not told yet
    #encoder = null;
    #pass = null;
    #pipeline = 0; // set in the pass
    #underWay = 0; // submits and reads
    #news = false; // something ended since the core last looked
    #waiting = []; // of settled()
    #closing = false;

    constructor(device, info) {
        this.device = device;
        this.info = info;
        device.lost.then((why) => this.#lose(`the device was lost: ${why.message || why.reason}`));
        device.addEventListener("uncapturederror", ({error}) => this.#note(error, ""));
    }

    // ---- what went wrong, and what ended ----

    #fail(code, message) {
        if (this.#error.code === 0 || (code === LOST && this.#error.code !== LOST))
            this.#error = {code, message: `gpu: ${message}`};
    }

    #note(error, what) {
        if (!error || this.lost) return;
        const memory = error.constructor.name === "GPUOutOfMemoryError";
        const [line] = error.message.split("\n");
        this.#fail(memory ? MEMORY : DEVICE, `${what}${memory ? "no memory: " : ""}${line}`);
    }

    #lose(message) {
        if (this.lost || this.#closing) return;
        this.lost = true;
        this.#fail(LOST, message);
        this.#tell();
    }

    #tell() {
        this.#news = true;
        for (const done of this.#waiting.splice(0)) done();
    }

    /** Runs make() within error scopes, whose answers come later. */
    #scoped(what, filters, make) {
        for (const filter of filters) this.device.pushErrorScope(filter);
        const made = make();
        for (let i = 0; i < filters.length; i++)
            this.device.popErrorScope().then((e) => this.#note(e, what), () => {});
        return made;
    }

    /** [code, message] of the first trouble that was not told; a lost device stays lost. */
    takeError() {
        const {code, message} = this.#error;
        if (code !== LOST) this.#error = {code: 0, message: ""};
        return [code, message];
    }

    // ---- buffers, pipelines, bind groups ----

    createBuffer(size, usage, label) {
        const {STORAGE: storage, UNIFORM: uniform, COPY_SRC, COPY_DST} = GPUBufferUsage;
        const flags = COPY_DST | (usage & STORAGE ? storage | COPY_SRC : 0) |
            (usage & UNIFORM ? uniform : 0);
        return this.buffers.add(this.#scoped(`buffer ${label}, ${size} bytes: `,
            ["validation", "out-of-memory"],
            () => this.device.createBuffer({label, size, usage: flags})));
    }

    freeBuffer(id) {
        const buffer = this.buffers.get(id);
        if (this.#encoder) this.#dead.push(buffer);
        else buffer.destroy();
        this.buffers.drop(id);
        return buffer.size;
    }

    createPipeline(label, code, kinds, constants) {
        return this.pipelines.add(this.#scoped(`kernel ${label}: `, ["validation", "internal"],
            () => {
                const layout = this.device.createBindGroupLayout({
                    label,
                    entries: Array.from(kinds, (kind, binding) => ({
                        binding,
                        visibility: GPUShaderStage.COMPUTE,
                        buffer: {type: bindingTypes[kind]},
                    })),
                });
                const pipeline = this.device.createComputePipeline({
                    label,
                    layout: this.device.createPipelineLayout({bindGroupLayouts: [layout]}),
                    compute: {
                        module: this.device.createShaderModule({label, code}),
                        entryPoint: "main",
                        constants,
                    },
                });
                return {pipeline, layout};
            }));
    }

    createBind(pipeline, views) {
        const {layout} = this.pipelines.get(pipeline);
        const entries = views.map(({buffer, offset, size}, binding) => ({
            binding,
            resource: {buffer: this.buffers.get(buffer), offset, size: size || undefined},
        }));
        return this.binds.add(this.device.createBindGroup({layout, entries}));
    }

    // ---- recording ----

    #open() {
        this.#encoder ??= this.device.createCommandEncoder();
        return this.#encoder;
    }

    #endPass() {
        this.#pass?.end();
        this.#pass = null;
        this.#pipeline = 0;
    }

    dispatch(pipeline, bind, x, y, z) {
        this.#pass ??= this.#open().beginComputePass();
        if (this.#pipeline !== pipeline)
            this.#pass.setPipeline(this.pipelines.get(pipeline).pipeline);
        this.#pipeline = pipeline;
        this.#pass.setBindGroup(0, this.binds.get(bind));
        this.#pass.dispatchWorkgroups(x, y, z);
    }

    copy(to, toOffset, from, fromOffset, n) {
        this.#endPass();
        this.#open().copyBufferToBuffer(this.buffers.get(from), fromOffset, this.buffers.get(to),
            toOffset, n);
    }

    #flush() {
        this.#endPass();
        if (!this.#encoder) return;
        this.device.queue.submit([this.#encoder.finish()]);
        this.#encoder = null;
        for (const buffer of this.#dead.splice(0)) buffer.destroy();
    }

    submit() {
        this.#flush();
        this.#underWay++;
        const ended = () => {
            this.#underWay--;
            this.#tell();
        };
        this.device.queue.onSubmittedWorkDone().then(ended, ended);
    }

    // ---- reading back ----

    #takeStaging(size) {
        const at = this.#staging.findIndex((b) => b.size >= size);
        if (at >= 0) return this.#staging.splice(at, 1)[0];
        return this.#scoped(`read buffer, ${size} bytes: `, ["validation", "out-of-memory"],
            () => this.device.createBuffer({
                label: "read",
                size: Math.ceil(size / 4096) * 4096,
                usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
            }));
    }

    read(buffer, offset, n) {
        const size = Math.ceil(n / 4) * 4;
        const staging = this.#takeStaging(size);
        this.#endPass();
        this.#open().copyBufferToBuffer(this.buffers.get(buffer), offset, staging, 0, size);
        this.#flush();
        const read = {staging, n, size, state: PENDING};
        const ended = (state) => {
            read.state = state;
            this.#underWay--;
            this.#tell();
        };
        this.#underWay++;
        staging.mapAsync(GPUMapMode.READ, 0, size).then(() => ended(READY), async () => {
            await Promise.race([this.device.lost, sleep(1000)]); // most likely the reason
            ended(FAILED);
        });
        return this.reads.add(read);
    }

    /** @param {(from: ArrayBuffer) => void} take gets the bytes */
    poll(id, take) {
        this.#news = false;
        const read = this.reads.get(id);
        if (read.state === PENDING && !this.lost) return PENDING;
        this.reads.drop(id);
        let got = FAILED;
        if (read.state === READY) {
            take(read.staging.getMappedRange(0, read.size), read.n);
            read.staging.unmap();
            got = READY;
        }
        if (got === READY && read.staging.size <= KEEP_STAGING) this.#staging.push(read.staging);
        else read.staging.destroy();
        return got;
    }

    pending() {
        this.#news = false;
        return this.lost ? 0 : this.#underWay;
    }

    /** Resolves when something ended since the core last looked, or the device was lost. */
    async settled() {
        if (this.#news || this.lost || !this.#underWay) return sleep(0);
        const {kind} = this.info;
        const seconds = kind === "software" ? HANG_SECONDS_SOFTWARE : HANG_SECONDS;
        const timer = setTimeout(() => {
            this.#lose(`the device has not answered for ${seconds} seconds`);
            this.device.destroy();
        }, seconds * 1000);
        await new Promise((done) => this.#waiting.push(done));
        clearTimeout(timer);
    }

    /** Frees all that the core has made; the device stays. */
    close() {
        this.#closing = true;
        this.#endPass();
        this.#encoder = null;
        for (const read of this.reads) read.staging.destroy();
        for (const buffer of this.#staging.concat(this.#dead, ...this.buffers)) buffer.destroy();
        this.#tell();
    }
}

export class Gpu {
    /** Why the last open() gave null: half a sentence. */
    static reason = "it was not asked for";
    #powerPreference;
    #device = null; // open, and not in use by the core
    /** @type {Opened | null} */
    #now = null; // in use

    /** @param {GPUPowerPreference} [powerPreference] */
    constructor(powerPreference = "high-performance") {
        this.#powerPreference = powerPreference;
        /** What the browser tells of the adapter.
         * @type {{name: string, kind: "gpu" | "software", backend: string, features: string[],
         *     limits: Record<string, number>, bareName: string, subgroups: number[]} | null} */
        this.info = null;
    }

    /** The best adapter; null when there is none (see Gpu.reason).
     * @param {{powerPreference?: GPUPowerPreference}} [options]
     * @returns {Promise<Gpu | null>} */
    static async open({powerPreference} = {}) {
        const gpu = new Gpu(powerPreference);
        return await gpu.reopen() ? gpu : null;
    }

    /** Gets a new device, for the core to take when it sees that its own is lost. */
    async reopen() {
        const {device, info, reason} = await openDevice(this.#powerPreference);
        Gpu.reason = reason ?? "";
        this.#device = device;
        if (info) this.info = info;
        return device !== null;
    }

    /** The core's device is lost and there is no other one yet. */
    get lost() {
        return Boolean(this.#now?.lost && !this.#device);
    }

    /** The GPUDevice in use, for tests and measurements. */
    get device() {
        return this.#now?.device ?? this.#device;
    }

    /** Resolves when the device has got on with something, so that a job may be advanced again. */
    async settled() {
        await (this.#now ? this.#now.settled() : sleep(0));
    }

    /** Gives the device back. */
    close() {
        this.#now?.close();
        this.device?.destroy();
        this.#now = null;
        this.#device = null;
    }

    /** The device for the core; it has one at a time. */
    #open() {
        if (!this.#device) return false;
        this.#now = new Opened(this.#device, this.info);
        this.#device = null;
        return true;
    }

    #close() {
        const {device, lost} = /** @type {Opened} */ (this.#now);
        this.#now?.close();
        this.#now = null;
        if (lost) device.destroy();
        else this.#device ??= device;
    }

    /** gpu_info as numbers, in the order of gpu_web.c. */
    #numbers() {
        const {limits, kind, features, subgroups} = /** @type {NonNullable<Gpu["info"]>} */ (this.info);
        const packed = navigator.gpu.wgslLanguageFeatures;
        return [kind === "software", features.includes("subgroups"), ...subgroups,
            packed?.has("packed_4x8_integer_dot_product") ?? false, limits.maxBufferSize,
            limits.maxStorageBufferBindingSize, limits.maxStorageBuffersPerShaderStage,
            limits.maxComputeWorkgroupStorageSize, limits.maxComputeInvocationsPerWorkgroup,
            limits.maxComputeWorkgroupsPerDimension].map(Number);
    }

    /**
     * The functions of module "gpu" for the core whose memory it is.
     * @param {() => WebAssembly.Memory} memory
     */
    imports(memory) {
        let view = new DataView(new ArrayBuffer(0));
        let bytes = new Uint8Array(0);
        const refresh = () => { // the buffer is another one after the memory has grown
            const {buffer} = memory();
            if (view.buffer === buffer) return;
            view = new DataView(buffer);
            bytes = new Uint8Array(buffer);
        };
        const u32 = (at) => view.getUint32(at, true);
        const f64 = (at) => view.getFloat64(at, true);
        const u64 = (at) => u32(at) + 2 ** 32 * u32(at + 4);
        const text = (at) => decoder.decode(bytes.subarray(at, bytes.indexOf(0, at)));
        const putText = (value, at, cap) => {
            const {written} = encoder.encodeInto(value, bytes.subarray(at, at + cap - 1));
            bytes[at + written] = 0;
        };
        const now = () => /** @type {Opened} */ (this.#now);

        return {
            open: (numbers, name, nameCap, backend, backendCap) => {
                if (!this.#open()) return 0;
                refresh();
                const info = /** @type {NonNullable<Gpu["info"]>} */ (this.info);
                this.#numbers().forEach((x, i) => view.setFloat64(numbers + 8 * i, x, true));
                putText(info.bareName, name, nameCap);
                putText(info.backend, backend, backendCap);
                return 1;
            },
            close: () => this.#close(),
            error: (message, cap) => {
                const none = [DEVICE, `gpu: ${Gpu.reason}`];
                const [code, words] = this.#now ? this.#now.takeError() : none;
                if (!code) return 0;
                refresh();
                putText(words, message, cap);
                return code;
            },
            buffer: (size, usage, label) => {
                refresh();
                return now().createBuffer(size, usage, text(label));
            },
            free_buffer: (id) => now().freeBuffer(id),
            write: (id, offset, from, n) => {
                const {device, buffers} = now();
                device.queue.writeBuffer(buffers.get(id), offset, memory().buffer, from, n);
            },
            pipeline: (desc) => {
                refresh();
                const constants = {};
                for (let i = 0, at = u32(desc + 20); i < u32(desc + 16); i++)
                    constants[text(u32(at + 16 * i))] = f64(at + 16 * i + 8);
                const kinds = bytes.slice(u32(desc + 12), u32(desc + 12) + u32(desc + 8));
                return now().createPipeline(text(u32(desc)), text(u32(desc + 4)), kinds, constants);
            },
            free_pipeline: (id) => now().pipelines.drop(id),
            bind: (pipeline, at, n) => {
                refresh();
                return now().createBind(pipeline, Array.from({length: n}, (_, i) => ({
                    buffer: u32(at + 24 * i),
                    offset: u64(at + 24 * i + 8),
                    size: u64(at + 24 * i + 16),
                })));
            },
            free_bind: (id) => now().binds.drop(id),
            dispatch: (pipeline, bind, x, y, z) => now().dispatch(pipeline, bind, x, y, z),
            copy: (to, toOffset, from, fromOffset, n) =>
                now().copy(to, toOffset, from, fromOffset, n),
            submit: () => now().submit(),
            read: (buffer, offset, n) => now().read(buffer, offset, n),
            poll: (id, to) => now().poll(id, (from, n) => {
                refresh();
                bytes.set(new Uint8Array(from, 0, n), to);
            }),
            pending: () => now().pending(),
        };
    }
}
