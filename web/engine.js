// engine: the C core (carat.wasm) as JavaScript classes. Owns the wasm instance and its memory;
// every call but Engine.create() is synchronous, and none waits: a Job that says "pending" goes on
// after gpu.settled().
//
// Does not know about workers, downloads or the package's shapes. One Engine is one device, one
// model, one session. Flow: web/worker.js before; web/wasm.c, web/gpu.js and web/wasi.js after.
// @ts-check

import {CaratError, codes, jsonText} from "./errors.js";
import {Gpu} from "./gpu.js";
import {Files} from "./wasi.js";

const kinds = ["pending", "progress", "text", "thinking", "toolCall", "score", "notice", "done",
    "step", "eval"];
/** What the core describes. */
const DEVICE = 0, MODEL = 1, ADAPTER = 2, REPORT = 3, SAMPLE = 4, STATE = 5;
const finishes = [null, "stop", "length", "tool_calls"];
/** @typedef {import("./pixels.js").Media} Media */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * What Job.advance() gives. done of total: bytes while loading and saving, tokens of a prompt, soft
 * tokens of what is encoded (text: "encode"), tokens of a step of training (text: "step").
 * @typedef {{kind: string, text: string, done: number, total: number, token: number,
 *     logprob: number, top: {id: number, logprob: number}[], finish: string | null}} Event
 */

/**
 * Compiles what create() was given.
 * @param {any} wasm
 * @returns {Promise<WebAssembly.Module>}
 */
async function compile(wasm) {
    if (wasm instanceof WebAssembly.Module) return wasm;
    if (ArrayBuffer.isView(wasm) || wasm instanceof ArrayBuffer)
        return WebAssembly.compile(/** @type {BufferSource} */ (wasm));
    const response = wasm instanceof Response ? wasm : await fetch(wasm);
    if (!response.ok)
        throw new CaratError("network", `${response.url}: the server answered ${response.status}`);
    const streamed = response.headers.get("content-type") === "application/wasm";
    return streamed ? WebAssembly.compileStreaming(response)
        : WebAssembly.compile(await response.arrayBuffer());
}

/** The wasm instance: calls with texts, results and errors. */
class Core {
    #data = new DataView(new ArrayBuffer(0));

    constructor(instance, files) {
        this.exports = instance.exports;
        this.files = files;
    }

    /** A view of the memory as it is now: it moves when the memory grows. */
    get data() {
        const {buffer} = this.exports.memory;
        if (this.#data.buffer !== buffer) this.#data = new DataView(buffer);
        return this.#data;
    }

    bytes(at, n) {
        return new Uint8Array(this.exports.memory.buffer, at, n);
    }

    text(at, n) {
        return n ? decoder.decode(this.bytes(at, n)) : "";
    }

    /** Copies a text or ids into the call's memory; null and undefined are NULL. */
    #put(value) {
        if (value === null || value === undefined) return 0;
        const from = typeof value === "string" ? encoder.encode(value)
            : new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
        const at = this.exports.room(from.length);
        if (!at) this.fail();
        this.bytes(at, from.length).set(from);
        return at;
    }

    /** Hands pictures and sounds to the call that follows. @param {Media[]} media */
    #give(media) {
        if (media.length && !this.exports.expect_media(media.length)) this.fail();
        const {add_image: addImage, add_audio: addAudio} = this.exports;
        for (const m of media) {
            const ok = "rgb" in m ? addImage(this.#put(m.rgb), m.width, m.height, m.time ?? 0)
                : addAudio(this.#put(m.samples), m.samples.length / m.channels, m.channels,
                    m.sampleRate);
            if (!ok) this.fail();
        }
    }

    /** As call(), of a conversation with pictures and sounds, which the heap holds only meanwhile.
     * @param {string} name @param {any} request */
    callWith(name, {media = [], ...request}) {
        this.begin();
        try {
            this.#give(media);
            return this.#run(name, requestTexts(request));
        } finally {
            if (media.length) this.begin();
        }
    }

    begin() {
        this.files.failure = null;
        if (!this.exports.begin()) this.fail();
    }

    /** Calls an export. Texts, ids, null and undefined become pointers, the rest goes as it is.
     * A false or NULL that it returns becomes an error, if it left one. */
    call(name, ...args) {
        this.begin();
        return this.#run(name, args);
    }

    #run(name, args) {
        const plain = (x) => typeof x === "number" || typeof x === "boolean";
        const values = args.map((x) => plain(x) ? Number(x) : this.#put(x));
        const got = this.exports[name](...values);
        if (!got) this.fail();
        return got;
    }

    /** Throws the core's error, if there is one; or what a file threw, when that was the reason. */
    fail() {
        const at = this.exports.error();
        const code = codes[this.data.getUint32(at, true)];
        if (code === "ok") return;
        const {failure} = this.files;
        if (code === "io" && failure instanceof CaratError) throw failure;
        const all = this.bytes(at + 4, 512);
        const why = code === "io" && failure ? ` (${failure.message})` : "";
        throw new CaratError(code, decoder.decode(all.subarray(0, all.indexOf(0))) + why);
    }

    /** What the last call gave: [address, number]. */
    result() {
        const at = this.exports.result();
        return [this.data.getUint32(at, true), this.data.getUint32(at + 4, true)];
    }
}

/** What runs on: advance() it until an event's kind is "done", then free() it. */
export class Job {
    #core;
    #at;

    /** @param {Core} core @param {number} at */
    constructor(core, at) {
        this.#core = core;
        this.#at = at;
    }

    /** Does what can be done now. Throws a CaratError when the job failed; then only free() it.
     * @returns {Event} */
    advance() {
        const core = this.#core;
        core.files.failure = null;
        const at = core.exports.advance(this.#at);
        if (!at) core.fail();
        const {data} = core;
        const u32 = (offset) => data.getUint32(at + offset, true);
        /** @type {Event} */
        const event = {
            kind: kinds[u32(0)],
            text: core.text(u32(4), u32(8)),
            done: Number(data.getBigUint64(at + 16, true)),
            total: Number(data.getBigUint64(at + 24, true)),
            token: data.getInt32(at + 32, true),
            logprob: data.getFloat32(at + 36, true),
            top: [],
            finish: finishes[u32(48)],
        };
        for (let i = 0, top = u32(40); i < u32(44); i++)
            event.top.push({
                id: data.getInt32(top + 8 * i, true),
                logprob: data.getFloat32(top + 8 * i + 4, true),
            });
        return event;
    }

    /** Ends it: the next event is "done" (while loading, an error with code "aborted"). */
    cancel() {
        this.#core.exports.cancel(this.#at);
    }

    /** Times are in seconds. */
    stats() {
        const at = this.#core.exports.stats(this.#at);
        const {data} = this.#core;
        return {
            promptTokens: data.getUint32(at, true),
            reusedTokens: data.getUint32(at + 4, true),
            generatedTokens: data.getUint32(at + 8, true),
            loadSeconds: data.getFloat64(at + 16, true),
            promptSeconds: data.getFloat64(at + 24, true),
            generateSeconds: data.getFloat64(at + 32, true),
            dispatches: data.getUint32(at + 40, true),
            logitsHash: data.getBigUint64(at + 48, true),
            bytesRead: Number(data.getBigUint64(at + 56, true)),
            encodeSeconds: data.getFloat64(at + 64, true),
            encodedTokens: data.getUint32(at + 72, true),
        };
    }

    free() {
        if (this.#at) this.#core.exports.free_job(this.#at);
        this.#at = 0;
    }
}

/** JSON texts of a request's messages, tools and options. @param {any} request */
function requestTexts({messages, tools, ...options}) {
    return [jsonText("messages", messages), jsonText("tools", tools), jsonText("options", options)];
}

export class Engine {
    #core;

    /** @param {Core} core */
    constructor(core) {
        this.#core = core;
    }

    /**
     * @param {object} options
     * @param {string | URL | Response | BufferSource | WebAssembly.Module} options.wasm
     * @param {Gpu | null} [options.gpu] null: there is only the CPU
     * @param {Files} [options.files]
     * @param {(line: string) => void} [options.log] what the core writes to stderr
     */
    static async create({wasm, gpu = null, files = new Files(), log = console.error}) {
        const module = await compile(wasm);
        /** @type {any} */
        let instance = null;
        const memory = () => instance.exports.memory;
        instance = await WebAssembly.instantiate(module, {
            wasi_snapshot_preview1: files.imports(memory, log),
            gpu: (gpu ?? new Gpu()).imports(memory),
        });
        instance.exports._initialize();
        return new Engine(new Core(instance, files));
    }

    /** @param {"auto" | "gpu" | "cpu"} kind */
    openDevice(kind) {
        this.#core.call("open_device", kind);
    }

    /** @param {number} what @param {number} [which] */
    #describe(what, which = 0) {
        this.#core.call("describe", what, which);
        return this.#core.text(...this.#core.result());
    }

    /** @returns {{name: string, isGpu: boolean, peakBytes: number}} */
    device() {
        return JSON.parse(this.#describe(DEVICE));
    }

    /** Reads and checks the header, the tokenizer and the configuration; no weights.
     * @param {{path: string, projector?: string | null,
     *     system?: string | null, params?: string | null,
     *     messages?: string | null, template?: "small" | "large" | null}} model
     *     params and messages are JSON texts */
    openModel({path, projector, system, params, messages, template}) {
        this.#core.call("open_model", path, projector, system, params, messages, template);
    }

    /** Everything known about the model: name, configuration, layers, tensors, memory. */
    describe() {
        return JSON.parse(this.#describe(MODEL));
    }

    /** @returns {Int32Array} */
    tokenize(text, specials = false) {
        const bytes = encoder.encode(text);
        this.#core.call("tokenize", bytes, bytes.length, specials);
        const [at, n] = this.#core.result();
        return new Int32Array(this.#core.bytes(at, 4 * n).slice().buffer);
    }

    /** @param {ArrayLike<number>} ids */
    detokenize(ids, specials = false) {
        this.#core.call("detokenize", Int32Array.from(ids), ids.length, specials);
        return this.#core.text(...this.#core.result());
    }

    /** The prompt that chat() would run, with its control tokens spelled out. */
    render(request) {
        this.#core.call("render", ...requestTexts(request));
        return this.#core.text(...this.#core.result());
    }

    /** Tokens of that prompt. */
    count(request) {
        return this.#core.callWith("count", request);
    }

    /** @param {number} [nCtx] tokens of context; 0: what the model or the memory allows */
    createSession(nCtx = 0) {
        this.#core.call("create_session", nCtx);
    }

    /** Tokens that the session can hold. */
    context() {
        return this.#core.exports.context();
    }

    /** Tokens that it holds. */
    length() {
        return this.#core.exports.length();
    }

    #job(name, ...args) {
        return new Job(this.#core, this.#core.call(name, ...args));
    }

    load() {
        return this.#job("load");
    }

    /** @param {any} request with `media`: {rgb, width, height, time} and {samples, channels,
     *     sampleRate}, in the order in which the messages' parts name them */
    chat(request) {
        return new Job(this.#core, this.#core.callWith("chat", request));
    }

    /** Continues raw ids without a template. @param {ArrayLike<number>} ids */
    complete(ids, request = {}) {
        const [, , options] = requestTexts(request);
        return this.#job("complete", Int32Array.from(ids), ids.length, options);
    }

    /** @param {ArrayLike<number>} ids */
    score(ids) {
        return this.#job("score", Int32Array.from(ids), ids.length);
    }

    saveSession(path) {
        return this.#job("save", path);
    }

    restoreSession(path) {
        return this.#job("restore", path);
    }

    /* ---- adapters: numbers, until closeAdapter() ---- */

    /** @param {string | null} path null: the training run's, as it is now @returns {number} */
    openAdapter(path) {
        return this.#core.call("open_adapter", path);
    }

    /** @param {number} adapter */
    closeAdapter(adapter) {
        this.#core.exports.close_adapter(adapter);
    }

    /** @param {number} adapter */
    describeAdapter(adapter) {
        return JSON.parse(this.#describe(ADAPTER, adapter));
    }

    /** @param {number} adapter @param {string} path ends in .gguf, or is a folder as PEFT has it */
    saveAdapter(adapter, path) {
        this.#core.call("save_adapter", adapter, path);
    }

    /** From now on these are added, and no others.
     * @param {{adapter: number, scale: number}[]} uses */
    adapt(uses) {
        const list = new DataView(new ArrayBuffer(8 * uses.length));
        for (const [i, {adapter, scale}] of uses.entries()) {
            list.setUint32(8 * i, adapter, true);
            list.setFloat32(8 * i + 4, scale, true);
        }
        this.#core.call("adapt", list, uses.length);
    }

    /* ---- training: one run at a time ---- */

    /** @param {string} data @param {string | null} adapter path of one to go on from
     * @param {object} options see web/wasm.c */
    openTrainer(data, adapter, options) {
        this.#core.call("open_trainer", data, adapter, jsonText("options", options));
    }

    closeTrainer() {
        this.#core.call("open_trainer", null, null, null);
    }

    /** @param {number} [steps] 0: all that are left */
    train(steps = 0) {
        return this.#job("train", steps);
    }

    /** @param {string} path */
    saveCheckpoint(path) {
        this.#core.call("checkpoint", path, false);
    }

    /** @param {string} path */
    resumeCheckpoint(path) {
        this.#core.call("checkpoint", path, true);
    }

    trainingReport() {
        return JSON.parse(this.#describe(REPORT));
    }

    /** @param {number} i */
    trainingSample(i) {
        return this.#describe(SAMPLE, i);
    }

    trainingState() {
        return JSON.parse(this.#describe(STATE));
    }

    heapBytes() {
        return this.#core.exports.memory.buffer.byteLength;
    }

    close() {
        this.#core.exports.close();
    }
}
