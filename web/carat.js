// @ts-check
/* carat: the package's front: the class Carat, which a page holds. Owns nothing but the worker; all
 * that computes, reads or stores is there.
 *
 * Flow: request.js and openai.js bring calls into the engine's shape, remote.js carries them to
 * worker.js, answer.js is what a caller reads. carat.d.ts is the reference. */
import {Adapter, portableAdapter} from "./adapter.js";
import {Answer, noUsage} from "./answer.js";
import {CaratError} from "./errors.js";
import {portableMedia, videoFrames} from "./media.js";
import {completionsOf} from "./openai.js";
import {Remote, absolute} from "./remote.js";
import {chatRequest, checkAdapter, checkLoad, checkSpecials, checkUrl, countRequest,
    generateRequest, idsOf, trainRequest, usesOf} from "./request.js";
import {adapters, checkpoints} from "./shelf.js";
import * as store from "./store.js";
import {Training} from "./training.js";

/** @typedef {import("./carat.js").Carat} Interface */
/** @typedef {import("./carat.js").Source} Source */
/** @typedef {import("./carat.js").LoadOptions} LoadOptions */
/** @typedef {import("./carat.js").ChatOptions} ChatOptions */
/** @typedef {import("./carat.js").GenerateOptions} GenerateOptions */
/** @typedef {import("./remote.js").Handlers} Handlers */

export {CaratError};

/** How long a worker may take to hear an abort. */
const HEAR_MS = 3000;

/** A source as the worker takes it: what a worker cannot know is the page's address.
 * @param {Source} source */
function portable(source) {
    if (typeof source === "string" || source instanceof URL) return {url: absolute(source).href};
    if (source instanceof Blob) return {blob: source};
    if (source instanceof ArrayBuffer || source instanceof Uint8Array) return {bytes: source};
    const s = /** @type {any} */ (source);
    if (typeof s?.opfs === "string") return {opfs: s.opfs};
    if (typeof s?.ollama === "string")
        return {ollama: s.ollama, server: absolute(s.server ?? "/").href};
    throw new CaratError("argument", "a model's source is a URL, a file, bytes, {opfs: name} or " +
        "{ollama: name}");
}

/** What is to be opened. @param {Source} source @param {LoadOptions} options */
const sourcesOf = (source, {projector}) => ({source: portable(source),
    projector: projector === undefined ? undefined : portable(projector)});

/** The options that the worker sees: what can be posted to it.
 * @param {LoadOptions} options */
function plain({onProgress, onNotice, signal, base, projector, ...rest}) {
    return rest;
}

/** A worker that waits for the network in a synchronous read hears no abort: it is ended then.
 * @param {Remote} remote @param {string} op @param {object} args @param {LoadOptions} options */
async function callUntilAborted(remote, op, args, {onProgress, signal}) {
    let timer = 0;
    const end = () => {
        timer = setTimeout(() => remote.close(new CaratError("aborted", `${op}: it was aborted`)),
            HEAR_MS);
    };
    signal?.addEventListener("abort", end);
    try {
        return await remote.call(op, args, {onProgress, signal});
    } finally {
        signal?.removeEventListener("abort", end);
        clearTimeout(timer);
    }
}

/** Calls a worker that lives only for this one call.
 * @param {string} op @param {object} args @param {LoadOptions} options */
async function callOnce(op, args, options) {
    const remote = new Remote(options.base);
    remote.onNotice = options.onNotice;
    try {
        return await callUntilAborted(remote, op, args, options);
    } finally {
        await remote.close();
    }
}

/** @type {import("./carat.js").Models} */
const models = {
    list: () => store.list(),
    async download(url, options = {}) {
        checkUrl(url);
        checkLoad("download", options);
        return callOnce("download", {url: absolute(url).href, options: plain(options)}, options);
    },
    delete: (name) => store.remove(name),
    storage: () => store.storage(),
    persist: () => store.persist(),
    ollama: (server) => store.ollama(absolute(server ?? "/").href),
};

/** Files that a worker wrote. @param {typeof adapters} shelf
 * @returns {import("./carat.js").Kept} */
const kept = (shelf) => ({list: () => shelf.list(), delete: (name) => shelf.remove(name)});

/** @implements {Interface} */
export class Carat {
    static version = "0.1.0";
    static models = models;
    static adapters = kept(adapters);
    static checkpoints = kept(checkpoints);
    #remote;
    /** @type {Promise<unknown> | null} while a call decodes media: those after it wait */
    #decoding = null;

    /** @param {Remote} remote @param {any} loaded what the worker says of the model */
    constructor(remote, loaded) {
        this.#remote = remote;
        /** @type {import("./carat.js").ModelInfo} */
        this.model = loaded.model;
        /** @type {import("./carat.js").DeviceInfo} */
        this.device = loaded.device;
        const completions = completionsOf((/** @type {ChatOptions} */ options) =>
            this.#chat(options), loaded.model.name);
        /** @type {import("./carat.js").Carat["chat"]} */
        this.chat = Object.assign((/** @type {ChatOptions} */ options) => this.#chat(options),
            {completions});
    }

    /** @param {Source} source @param {LoadOptions} [options] */
    static async load(source, options = {}) {
        checkLoad("load", options);
        const args = {...sourcesOf(source, options), options: plain(options)};
        const remote = new Remote(options.base);
        remote.onNotice = options.onNotice;
        try {
            const carat = new Carat(remote, await callUntilAborted(remote, "load", args, options));
            remote.onDevice = (device) => {
                carat.device = device;
            };
            return carat;
        } catch (error) {
            await remote.close();
            throw error;
        }
    }

    /** @param {Source} source @param {LoadOptions} [options] */
    static async estimate(source, options = {}) {
        checkLoad("estimate", options);
        return callOnce("estimate", {...sourcesOf(source, options), options: plain(options)},
            options);
    }

    /** @param {LoadOptions} [options] */
    static async device(options = {}) {
        checkLoad("device", options);
        return callOnce("device", {options: plain(options)}, options);
    }

    /** @type {typeof import("./carat.js").Carat.frames} */
    static frames = videoFrames;

    memory() {
        return this.#remote.call("memory", {});
    }

    /** @param {ChatOptions} options */
    #chat(options) {
        return this.#answer("chat", () => chatRequest(options), options);
    }

    /** @param {string} prompt @param {GenerateOptions} [options] */
    generate(prompt, options = {}) {
        return this.#answer("generate", () => generateRequest(prompt, options), options);
    }

    /** Starts a call when its media are decoded and those before it have started.
     * @template T @param {any} request @param {AbortSignal | undefined} signal
     * @param {(args: object) => T | Promise<T>} start @returns {T | Promise<T>} */
    #inTurn({media, ...args}, signal, start) {
        const before = this.#decoding;
        if (!media?.length && !before) return start({...args, media});
        const ready = (async () => {
            const portable = media && await portableMedia(media, signal);
            await before?.catch(() => {});
            return portable;
        })();
        const started = ready.then((portable) => start({...args, media: portable}));
        this.#decoding = ready;
        const over = () => {
            if (this.#decoding === ready) this.#decoding = null;
        };
        ready.then(over, over);
        return started;
    }

    /** @param {string} op @param {() => object} request @param {GenerateOptions} options */
    #answer(op, request, options) {
        const {signal, onProgress} = options ?? {}, stop = new AbortController();
        let cancel = () => stop.abort();
        const answer = new Answer(() => cancel());
        const end = () =>
            answer.add({type: "usage", usage: noUsage(), finishReason: "aborted"});
        const fail = (/** @type {any} */ error) => error?.code === "aborted" ? end()
            : answer.fail(error);
        const abort = () => stop.abort();
        /* A signal may outlive many answers. */
        const unlisten = () => signal?.removeEventListener("abort", abort);
        const start = (/** @type {object} */ args) => {
            if (stop.signal.aborted) return end();
            const call = this.#remote.start(op, args, {onPart: (part) => answer.add(part),
                onProgress, signal});
            cancel = call.cancel;
            return call.done.catch((error) => answer.fail(error));
        };
        try {
            const args = request();
            if (signal?.aborted) {
                end();
            } else {
                signal?.addEventListener("abort", abort);
                Promise.resolve(this.#inTurn(args, stop.signal, start)).catch(fail).then(unlisten);
            }
        } catch (error) {
            answer.fail(error);
        }
        return answer;
    }

    /** @param {string} text @param {{specials?: boolean}} [options] */
    async tokenize(text, options = {}) {
        if (typeof text !== "string")
            throw new CaratError("argument", "tokenize: text is expected");
        checkSpecials("tokenize", options);
        return this.#remote.call("tokenize", {text, specials: options.specials ?? false});
    }

    /** @param {ArrayLike<number>} ids @param {{specials?: boolean}} [options] */
    async detokenize(ids, options = {}) {
        checkSpecials("detokenize", options);
        return this.#remote.call("detokenize",
            {ids: idsOf(ids), specials: options.specials ?? false});
    }

    /** @param {Parameters<import("./carat.js").Carat["countTokens"]>[0]} input */
    async countTokens(input) {
        return this.#inTurn(countRequest(input), undefined,
            (args) => this.#remote.call("count", args));
    }

    /** @param {string} name */
    async saveSession(name) {
        return this.#inTurn({name}, undefined, (args) => this.#remote.call("saveSession", args));
    }

    /** @param {string} name */
    async restoreSession(name) {
        return this.#inTurn({name}, undefined, (args) => this.#remote.call("restoreSession", args));
    }

    /** @param {string} name */
    deleteSession(name) {
        return this.#remote.call("deleteSession", {name});
    }

    listSessions() {
        return this.#remote.call("listSessions", {});
    }

    /* ---- adapters and training ---- */

    /** @param {import("./carat.js").AdapterSource} source
     * @param {{name?: string, headers?: Record<string, string>, signal?: AbortSignal}} [options] */
    async loadAdapter(source, options = {}) {
        checkAdapter(options);
        const {headers, signal} = options, {source: from, name} = portableAdapter(source);
        const got = await this.#remote.call("loadAdapter", {source: {...from, headers}}, {signal});
        return new Adapter(this.#remote, options.name ?? name, got);
    }

    /** @param {import("./carat.js").AdapterUse[]} uses */
    async setAdapters(uses) {
        const list = usesOf(uses).map(({adapter, scale}) =>
            ({id: Adapter.id(adapter, this.#remote), scale}));
        return this.#inTurn({uses: list}, undefined,
            (args) => this.#remote.call("setAdapters", args));
    }

    /** @param {import("./carat.js").TrainOptions} options */
    train(options) {
        const read = trainRequest(options), {signal, onProgress, adapter} = options;
        const from = adapter ? Adapter.id(adapter, this.#remote) : null;
        const stop = new AbortController(), abort = () => stop.abort();
        const start = async () => {
            const call = this.#remote.start("train", {...await read(), adapter: from},
                {onPart: (part) => run.add(part), onProgress, signal: stop.signal});
            call.done.catch((error) => run.fail(error))
                .then(() => signal?.removeEventListener("abort", abort));
            return call.id;
        };
        signal?.addEventListener("abort", abort);
        if (signal?.aborted) abort();
        const started = start();
        const run = new Training(this.#remote, options.name ?? "adapter", abort, started);
        started.catch((error) => run.fail(error));
        return run;
    }

    close() {
        return this.#remote.close();
    }
}

export default Carat;
