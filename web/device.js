// device: one WebGPU device and all that the core makes on it, in tables of integer ids. One
// command encoder a submit, with one compute pass for consecutive dispatches.
//
// Kernels are compiled by the browser in the background, several at a time. Commands that need one
// which is not ready wait in a list, and all that come after them, so that their order stays.
// What WebGPU tells later (a kernel that does not compile, memory that is not there, a lost device)
// is kept until the core asks, at its next submit or poll.
//
// Knows no kernel and no wasm memory. Flow: web/gpu.js before, the browser after.
// @ts-check

import {codes} from "./errors.js";

const MEMORY = codes.indexOf("memory");
const DEVICE = codes.indexOf("device");
const LOST = codes.indexOf("device-lost");
const STORAGE = 1, UNIFORM = 2; // gpu_usage
/** @type {GPUBufferBindingType[]} gpu_binding_kind */
const bindingTypes = ["uniform", "read-only-storage", "storage"];

const KEEP_STAGING = 8 << 20; // a read buffer larger than this is not kept
const HANG_SECONDS = 120; // a device that is silent for so long is lost; kernels may be compiling
const HANG_SECONDS_SOFTWARE = 600;

export const PENDING = 0, READY = 1, FAILED = 2; // gpu_poll_result
export const sleep = (/** @type {number} */ ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Ids for objects: small integers, used again; 0 is none.
 * @template T
 */
class Table {
    /** @type {(T | null)[]} */
    #items = [null];
    /** @type {number[]} */
    #free = [];

    /** @param {T} item */
    add(item) {
        const id = this.#free.pop() ?? this.#items.length;
        this.#items[id] = item;
        return id;
    }

    /** @param {number} id @returns {T} */
    get(id) {
        return /** @type {T} */ (this.#items[id]);
    }

    /** @param {number} id */
    drop(id) {
        const item = this.get(id);
        this.#items[id] = null;
        this.#free.push(id);
        return item;
    }

    /** @returns {T[]} */
    all() {
        return /** @type {T[]} */ (this.#items.filter(Boolean));
    }
}

/** @typedef {{pipeline: GPUComputePipeline | null, layout: GPUBindGroupLayout, why: string}} Kernel
 *     pipeline is null until it is compiled, and when it could not be; `why` says so then */
/** @typedef {{staging: GPUBuffer, n: number, size: number, state: number}} Read */

export class Device {
    /** @type {Table<GPUBuffer>} */
    buffers = new Table();
    /** @type {Table<Kernel>} */
    kernels = new Table();
    /** @type {Table<GPUBindGroup>} */
    binds = new Table();
    /** @type {Table<Read>} */
    reads = new Table();
    lost = false;

    /** The first trouble that was not told yet. */
    #error = {code: 0, message: ""};
    #deaf = 0; // above 0: trouble that follows from what was told
    /** @type {GPUCommandEncoder | null} */
    #encoder = null;
    /** @type {GPUComputePassEncoder | null} */
    #pass = null;
    /** @type {Kernel | null} set in the pass */
    #kernel = null;
    #compiling = 0;
    /** @type {(() => void)[] | null} commands that wait for kernels; null: none has to */
    #later = null;
    /** @type {GPUBuffer[]} read buffers at rest */
    #staging = [];
    /** @type {GPUBuffer[]} freed while recorded commands may use them */
    #dead = [];
    #underWay = 0; // submits and reads
    #news = false; // something ended since the core last looked
    /** @type {(() => void)[]} of settled() */
    #waiting = [];
    #closed = false;

    /** @param {GPUDevice} device @param {boolean} software */
    constructor(device, software) {
        this.device = device;
        this.software = software;
        device.lost.then((why) => this.#lose(`the device was lost: ${why.message || why.reason}`));
        device.addEventListener("uncapturederror", (event) =>
            this.#note(/** @type {GPUUncapturedErrorEvent} */ (event).error, ""));
    }

    // ---- what went wrong, and what ended ----

    /** @param {number} code @param {string} message */
    #fail(code, message) {
        if (this.#error.code === 0 || (code === LOST && this.#error.code !== LOST))
            this.#error = {code, message: `gpu: ${message}`};
    }

    /** @param {{message: string} | null} error @param {string} what it happened to */
    #note(error, what) {
        if (!error || this.lost || this.#closed || this.#deaf) return;
        const memory = error instanceof GPUOutOfMemoryError;
        const [line] = error.message.split("\n");
        this.#fail(memory ? MEMORY : DEVICE, `${what}${memory ? "out of memory: " : ""}${line}`);
    }

    /** @param {string} message */
    #lose(message) {
        if (this.lost || this.#closed) return;
        this.lost = true;
        this.#fail(LOST, message);
        this.#tell();
    }

    #tell() {
        this.#news = true;
        for (const done of this.#waiting.splice(0)) done();
    }

    /** Something failed; most likely because the device is lost, which is told a little later. */
    async #mayBeLost() {
        await Promise.race([this.device.lost, sleep(500)]);
    }

    /** A buffer, which may turn out not to be there. @param {GPUBufferDescriptor} desc */
    #makeBuffer(desc) {
        this.device.pushErrorScope("validation");
        this.device.pushErrorScope("out-of-memory");
        const buffer = this.device.createBuffer(desc);
        const what = `buffer ${desc.label}, ${desc.size} bytes: `;
        for (let i = 0; i < 2; i++)
            this.device.popErrorScope().then((error) => this.#note(error, what), () => {});
        return buffer;
    }

    /** The first trouble that was not told; code 0: none. A lost device stays lost. What is still
     * on its way of commands until now follows from it, and is not told. */
    takeError() {
        const error = this.#error;
        if (error.code === 0 || error.code === LOST) return error;
        this.#error = {code: 0, message: ""};
        this.#deaf++;
        const hear = () => void this.#deaf--;
        this.device.pushErrorScope("validation"); // it is answered after all that came before
        this.device.popErrorScope().then(hear, hear);
        return error;
    }

    // ---- buffers, kernels, bind groups ----

    /** @param {number} size @param {number} usage @param {string} label */
    createBuffer(size, usage, label) {
        const {STORAGE: storage, UNIFORM: uniform, COPY_SRC, COPY_DST} = GPUBufferUsage;
        const flags = COPY_DST | (usage & STORAGE ? storage | COPY_SRC : 0) |
            (usage & UNIFORM ? uniform : 0);
        return this.buffers.add(this.#makeBuffer({label, size, usage: flags}));
    }

    /** Gives its size. @param {number} id */
    freeBuffer(id) {
        const buffer = this.buffers.drop(id);
        this.#run(() => {
            if (this.#encoder) this.#dead.push(buffer);
            else buffer.destroy();
        });
        return buffer.size;
    }

    /** Starts compiling. @param {string} label @param {string} code @param {Uint8Array} kinds
     * @param {Record<string, number>} constants */
    createKernel(label, code, kinds, constants) {
        const {device} = this;
        const layout = device.createBindGroupLayout({
            label,
            entries: Array.from(kinds, (kind, binding) => ({
                binding,
                visibility: GPUShaderStage.COMPUTE,
                buffer: {type: bindingTypes[kind]},
            })),
        });
        device.pushErrorScope("validation");
        const module = device.createShaderModule({label, code});
        device.popErrorScope().then((error) => this.#note(error, `kernel ${label}: `), () => {});
        /** @type {Kernel} */
        const kernel = {pipeline: null, layout, why: ""};
        this.#compiling++;
        device.createComputePipelineAsync({
            label,
            layout: device.createPipelineLayout({bindGroupLayouts: [layout]}),
            compute: {module, entryPoint: "main", constants},
        }).then((pipeline) => {
            kernel.pipeline = pipeline;
        }, async (e) => {
            await this.#mayBeLost();
            this.#note(e, `kernel ${label}: `);
            kernel.why = `kernel ${label} was not compiled`;
        }).finally(() => {
            if (--this.#compiling === 0) this.#catchUp();
        });
        return this.kernels.add(kernel);
    }

    /** @param {number} kernel @param {{buffer: number, offset: number, size: number}[]} views */
    createBind(kernel, views) {
        const {layout} = this.kernels.get(kernel);
        const entries = views.map(({buffer, offset, size}, binding) => ({
            binding,
            resource: {buffer: this.buffers.get(buffer), offset, size: size || undefined},
        }));
        return this.binds.add(this.device.createBindGroup({layout, entries}));
    }

    // ---- commands ----

    /** Runs the commands that waited for kernels. */
    #catchUp() {
        const commands = this.#later ?? [];
        this.#later = null;
        if (!this.#closed) for (const command of commands) command();
    }

    /** Runs a command, or puts it behind those that wait. @param {() => void} command */
    #run(command) {
        if (this.#later) this.#later.push(command);
        else command();
    }

    /** @param {number} id @param {number} offset @param {ArrayBuffer} memory @param {number} at
     * @param {number} n */
    write(id, offset, memory, at, n) {
        const buffer = this.buffers.get(id), {queue} = this.device;
        if (!this.#later) {
            queue.writeBuffer(buffer, offset, memory, at, n);
            return;
        }
        const copy = memory.slice(at, at + n);
        this.#later.push(() => queue.writeBuffer(buffer, offset, copy));
    }

    #open() {
        this.#encoder ??= this.device.createCommandEncoder();
        return this.#encoder;
    }

    #endPass() {
        this.#pass?.end();
        this.#pass = null;
        this.#kernel = null;
    }

    /** @param {number} kernel @param {number} bind
     * @param {number} x @param {number} y @param {number} z */
    dispatch(kernel, bind, x, y, z) {
        const k = this.kernels.get(kernel), b = this.binds.get(bind);
        if (!k.pipeline && this.#compiling) this.#later ??= [];
        if (this.#later) this.#later.push(() => this.#dispatch(k, b, x, y, z));
        else this.#dispatch(k, b, x, y, z);
    }

    /** @param {Kernel} kernel @param {GPUBindGroup} bind
     * @param {number} x @param {number} y @param {number} z */
    #dispatch(kernel, bind, x, y, z) {
        if (!kernel.pipeline) {
            this.#fail(DEVICE, kernel.why);
            return;
        }
        this.#pass ??= this.#open().beginComputePass();
        if (this.#kernel !== kernel) this.#pass.setPipeline(kernel.pipeline);
        this.#kernel = kernel;
        this.#pass.setBindGroup(0, bind);
        this.#pass.dispatchWorkgroups(x, y, z);
    }

    /** @param {GPUBuffer} to @param {number} toOffset @param {GPUBuffer} from
     * @param {number} fromOffset @param {number} n */
    #copy(to, toOffset, from, fromOffset, n) {
        this.#endPass();
        this.#open().copyBufferToBuffer(from, fromOffset, to, toOffset, n);
    }

    /** @param {number} to @param {number} toOffset @param {number} from @param {number} fromOffset
     * @param {number} n */
    copy(to, toOffset, from, fromOffset, n) {
        const target = this.buffers.get(to), source = this.buffers.get(from);
        this.#run(() => this.#copy(target, toOffset, source, fromOffset, n));
    }

    #flush() {
        this.#endPass();
        if (this.#encoder) this.device.queue.submit([this.#encoder.finish()]);
        this.#encoder = null;
        for (const buffer of this.#dead.splice(0)) buffer.destroy();
    }

    submit() {
        const ended = () => {
            this.#underWay--;
            this.#tell();
        };
        this.#underWay++;
        this.#run(() => {
            this.#flush();
            this.device.queue.onSubmittedWorkDone().then(ended, ended);
        });
    }

    // ---- reading back ----

    /** @param {number} size */
    #takeStaging(size) {
        const at = this.#staging.findIndex((b) => b.size >= size);
        if (at >= 0) return this.#staging.splice(at, 1)[0];
        return this.#makeBuffer({
            label: "read",
            size: Math.ceil(size / 4096) * 4096,
            usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        });
    }

    /** Gives the id of a read. @param {number} id @param {number} offset @param {number} n */
    read(id, offset, n) {
        const size = Math.ceil(n / 4) * 4, buffer = this.buffers.get(id);
        const read = {staging: this.#takeStaging(size), n, size, state: PENDING};
        const ended = (/** @type {number} */ state) => {
            read.state = state;
            this.#underWay--;
            this.#tell();
        };
        this.#underWay++;
        this.#run(() => {
            this.#copy(read.staging, 0, buffer, offset, size);
            this.#flush();
            read.staging.mapAsync(GPUMapMode.READ, 0, size).then(() => ended(READY), async () => {
                await this.#mayBeLost();
                ended(FAILED);
            });
        });
        return this.reads.add(read);
    }

    /** Gives PENDING, READY or FAILED; the last two end the read.
     * @param {number} id @param {(from: Uint8Array) => void} take gets the bytes */
    poll(id, take) {
        this.#news = false;
        const {staging, n, size, state} = this.reads.get(id);
        if (state === PENDING && !this.lost) return PENDING;
        this.reads.drop(id);
        if (state === READY) {
            take(new Uint8Array(staging.getMappedRange(0, size), 0, n));
            staging.unmap();
        }
        if (state === READY && staging.size <= KEEP_STAGING) this.#staging.push(staging);
        else staging.destroy();
        return state === READY ? READY : FAILED;
    }

    // ---- waiting, closing ----

    /** Submits and reads that have not ended. */
    pending() {
        this.#news = false;
        return this.lost ? 0 : this.#underWay;
    }

    /** Resolves when something ended since the core last looked, or the device was lost. */
    async settled() {
        if (this.#news) return;
        if (this.lost || !this.#underWay) {
            await sleep(0);
            return;
        }
        const seconds = this.software ? HANG_SECONDS_SOFTWARE : HANG_SECONDS;
        const timer = setTimeout(() => {
            this.#lose(`the device has not answered for ${seconds} seconds`);
            this.device.destroy();
        }, seconds * 1000);
        await new Promise((done) => this.#waiting.push(() => done(null)));
        clearTimeout(timer);
    }

    /** Frees all that was made on the device, which stays. */
    close() {
        this.#closed = true;
        this.#endPass();
        this.#encoder = null;
        for (const {staging} of this.reads.all()) staging.destroy();
        for (const buffer of this.#staging.concat(this.#dead, this.buffers.all())) buffer.destroy();
        this.#tell();
    }
}
