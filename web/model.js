// @ts-check
/* model: from what a page names to an engine that has opened it. Owns the choice between storing,
 * reading in place and reading by range requests, the file that the engine reads, and the answer to
 * whether a model can run here.
 *
 * Weights are not read here. Flow: worker.js before; store.js and source.js bring the bytes,
 * gpu.js the device, engine.js the rest. */
import {CaratError} from "./errors.js";
import {Engine} from "./engine.js";
import {Gpu} from "./gpu.js";
import {bytes, nameOf} from "./opfs.js";
import {openBlob, openBytes, openOpfs, openUrl} from "./source.js";
import * as store from "./store.js";
import {Files} from "./wasi.js";

/** @typedef {import("./source.js").SourceFile} SourceFile */
/** @typedef {import("./carat.js").LoadOptions} LoadOptions */
/** @typedef {import("./carat.js").Progress} Progress */
/** @typedef {import("./carat.js").DeviceInfo} DeviceInfo */
/** @typedef {{url?: string, blob?: Blob, bytes?: ArrayBuffer | Uint8Array, opfs?: string,
 *     ollama?: string, server?: string}} Source as carat.js posts it
 * @typedef {{signal: AbortSignal, onProgress: (progress: Progress) => void,
 *     onNotice: (notice: string) => void}} Call
 * @typedef {{name: string, file: SourceFile, release: () => Promise<void>}} Opened */

/** More than this on a CPU would answer in minutes, not seconds. */
const CPU_WEIGHTS = 300e6;
/** What a 32-bit heap holds beside the engine's own data. */
const CPU_HEAP = 3.75e9;
/** What the heap grows by while weights stream through it. */
const STAGING = 16e6;
/** The start of a file in which a header is expected, where a server cannot send ranges. */
const HEAD = 32 << 20;

const nothing = async () => {};

/* ---- sources ---- */

/** What `carat serve` reads from its own disk is not stored a second time.
 * @param {Source} source @param {LoadOptions} options @param {AbortSignal} signal
 * @returns {Promise<Opened>} */
async function openServed({ollama = "", server}, {headers}, signal) {
    const {name, url} = await store.ollamaModel(ollama, server, signal);
    return {name, file: await openUrl(url, {headers, signal}), release: nothing};
}

/** @param {string} name @param {AbortSignal} signal @returns {Promise<Opened>} */
async function openStored(name, signal) {
    const letGo = await store.hold(name, signal);
    try {
        return {name, file: await openOpfs(name), release: letGo};
    } catch (error) {
        await letGo();
        throw error;
    }
}

/** Whether a URL's file is stored before it is used.
 * @param {LoadOptions} options */
const storesFirst = ({store: wanted}) =>
    wanted ?? Boolean(navigator.storage?.getDirectory);

/** Stored first, unless the page does not want that or the browser has no place for it.
 * @param {string} url @param {LoadOptions} options @param {Call} call @returns {Promise<Opened>} */
async function openAddress(url, options, {signal, onProgress, onNotice}) {
    const {name, size, sha256, headers} = options;
    const inPlace = async () =>
        ({name: name ?? nameOf(new URL(url)),
        file: await openUrl(url, {headers, signal}), release: nothing});
    if (!storesFirst(options)) return inPlace();
    const stored = await store.download(url, {name, size, sha256, headers, signal, onProgress,
        onNotice});
    return openStored(stored.name, signal);
}

/** @param {Source} source @param {LoadOptions} options @param {Call} call
 * @returns {Promise<Opened>} */
async function openSource(source, options, call) {
    const {url, blob, bytes: whole, opfs, ollama} = source;
    if (url !== undefined) return openAddress(url, options, call);
    if (opfs !== undefined) return openStored(opfs, call.signal);
    if (ollama !== undefined) return openServed(source, options, call.signal);
    const name = options.name ?? (blob instanceof File ? blob.name : "model.gguf");
    const file = blob ? openBlob(blob, name)
        : openBytes(/** @type {ArrayBuffer | Uint8Array} */ (whole), name);
    return {name, file, release: nothing};
}

/** A URL's file when it is stored, wholly or in part.
 * @param {string} url @param {LoadOptions} options */
async function findStored(url, {store: wanted = true, name}) {
    if (!wanted || !navigator.storage?.getDirectory) return null;
    const stored = await store.find(name ?? nameOf(new URL(url)));
    return stored?.url === url ? stored : null;
}

/** Only the header is read: what is at a URL stays there.
 * @param {Source} source @param {LoadOptions} options @param {Call} call
 * @returns {Promise<Opened>} */
async function openHeader(source, options, call) {
    const {url} = source, {headers} = options;
    if (url === undefined) return openSource(source, options, call);
    const stored = await findStored(url, options);
    if (stored?.complete) return openStored(stored.name, call.signal);
    const file = await openUrl(url, {headers, signal: call.signal, headBytes: HEAD});
    return {name: options.name ?? nameOf(new URL(url)), file, release: nothing};
}

/* ---- device ---- */

/** Why there is no GPU, from the name of the CPU that took its place; null when none was wanted.
 * @param {string} name */
const noGpu = (name) => /no GPU: (?:gpu: )?(.*)\)$/.exec(name)?.[1] ?? null;

/** @param {Engine} engine @param {Gpu | null} gpu @returns {DeviceInfo} */
export function deviceInfo(engine, gpu) {
    const {name, isGpu} = engine.device(), reason = noGpu(name);
    if (!isGpu || !gpu?.info)
        return {name: reason ? `CPU (no GPU: ${reason})` : "CPU", kind: "cpu", backend: "wasm",
            features: []};
    const {name: adapter, kind, backend, features} = gpu.info;
    return {name: adapter, kind, backend, features};
}

/** An engine with its device open and no model yet.
 * @param {LoadOptions} options */
export async function openEngine({device = "auto", powerPreference}) {
    const gpu = device === "cpu" ? null : await Gpu.open({powerPreference});
    const files = new Files();
    try {
        const wasm = new URL("./carat.wasm", import.meta.url);
        const engine = await Engine.create({wasm, gpu, files, log: () => {}});
        engine.openDevice(device);
        return {engine, gpu, files};
    } catch (error) {
        gpu?.close();
        throw error;
    }
}

/* ---- model ---- */

/** What is opened: the model, and the second file of one that has its encoders there.
 * @typedef {{source: Source, projector?: Source}} Sources
 * @typedef {{model: Opened, projector: Opened | null, close: () => Promise<void>}} OpenedFiles */

/** @param {Sources} sources @param {LoadOptions} options @param {Call} call
 * @param {typeof openSource} open @returns {Promise<OpenedFiles>} */
async function openFiles({source, projector}, options, call, open) {
    /** @type {Opened[]} */
    const all = [];
    const close = async () => {
        for (const {file, release} of all) {
            file.close?.();
            await release();
        }
    };
    try {
        all.push(await open(source, options, call));
        /* These say something of the model. */
        const rest = {...options, name: undefined, size: undefined, sha256: undefined};
        if (projector) all.push(await open(projector, rest, call));
        return {model: all[0], projector: all[1] ?? null, close};
    } catch (error) {
        await close();
        throw error;
    }
}

/** The engine reads a file by its name; its messages say it.
 * @param {Awaited<ReturnType<typeof openEngine>>} host @param {Opened} opened @param {string} [not]
 * the name of another one */
function addFile({files}, {name, file}, not) {
    const inside = `/${name.replace(/[/\0]/g, "_")}`;
    const path = inside === not ? `${inside}-2` : inside;
    files.add(path.slice(1), file);
    return path;
}

/** @param {Awaited<ReturnType<typeof openEngine>>} host @param {Pick<OpenedFiles, "model" |
 *     "projector">} opened */
function openModel(host, {model, projector}) {
    const path = addFile(host, model);
    host.engine.openModel({path, projector: projector && addFile(host, projector, path)});
    return host.engine.describe();
}

/** @typedef {ReturnType<typeof openModel>} Description */

/** Bytes of weights, encoders and a session. @param {Description} about @param {number} context */
const allBytes = ({memory}, context) => memory.weights + memory.encoders + memory.kv_fixed +
    memory.kv_token * context + memory.scratch;

/** @param {Description} about @param {LoadOptions} options */
const contextOf = ({config}, {contextLength}) =>
    contextLength ?? Math.min(8192, config.n_ctx_train || 8192);

/** Why a model cannot run here, or null.
 * @param {Engine} engine @param {Description} about @param {LoadOptions} options
 * @returns {CaratError | null} */
function obstacle(engine, about, options) {
    const {name, memory, config} = about, context = contextOf(about, options);
    const device = engine.device(), all = allBytes(about, context);
    if (config.n_ctx_train && context > config.n_ctx_train)
        return new CaratError("argument", `${name} was made for ${config.n_ctx_train} tokens of ` +
            `context, not ${context}`);
    if (device.isGpu) return null;
    if (options.device !== "cpu" && memory.weights > CPU_WEIGHTS) {
        return new CaratError("device", `${name} needs a GPU, with ${bytes(memory.weights)} of ` +
            `weights: ${noGpu(device.name) ?? "there is none"}`);
    }
    if (all > CPU_HEAP)
        return new CaratError("memory", `${name} needs ${bytes(all)} on the CPU, and a page's ` +
            "engine holds 4 GB");
    return null;
}

/** Before gigabytes are downloaded for nothing: whether the CPU alone would do.
 * @param {Source} source @param {LoadOptions} options @param {Call} call
 * @param {Awaited<ReturnType<typeof openEngine>>} host */
async function checkBeforehand(source, options, call, host) {
    if (source.url === undefined || host.engine.device().isGpu) return;
    let opened = null, why = null;
    try {
        opened = await openHeader(source, options, call);
        why = obstacle(host.engine, openModel(host, {model: opened, projector: null}), options);
    } catch {
        /* If that matters, the download or the opening says so. */
    } finally {
        opened?.file.close?.();
        await opened?.release();
    }
    if (why) throw why;
}

/** @param {Sources} sources @param {LoadOptions} options @param {Call} call */
export async function openHere(sources, options, call) {
    const host = await openEngine(options);
    /** @type {OpenedFiles | null} */
    let opened = null;
    const close = async () => {
        host.engine.close();
        host.gpu?.close();
        await opened?.close();
    };
    try {
        await checkBeforehand(sources.source, options, call, host);
        opened = await openFiles(sources, options, call, openSource);
        const {size} = opened.model.file;
        call.onProgress({phase: "open", done: 0, total: size, rate: 0});
        const about = openModel(host, opened);
        const why = obstacle(host.engine, about, options);
        if (why) throw why;
        return {...host, about, fileBytes: size, close,
            cpuWillDo: about.memory.weights <= CPU_WEIGHTS || options.device === "cpu"};
    } catch (error) {
        await close();
        throw error;
    }
}

/** @param {Description} about @param {number} fileBytes @param {number} context */
export function modelInfo(about, fileBytes, context) {
    const {name, size_label, quantisation, n_params, memory, config, params, encoders} = about;
    const said = params ?? {};
    return {name, sizeLabel: size_label, quantisation, parameters: n_params, fileBytes,
        vision: encoders.vision !== null, audio: encoders.audio !== null,
        weightBytes: memory.weights, encoderBytes: memory.encoders, contextLength: context,
        maxContextLength: config.n_ctx_train,
        layers: config.n_layer, vocabulary: config.n_vocab,
        sampling: {temperature: said.temperature ?? 1, topK: said.top_k ?? 64,
            topP: said.top_p ?? 0.95, minP: said.min_p ?? 0}};
}

/* ---- estimate ---- */

/** Bytes of a URL's file that are not stored yet.
 * @param {Source} source @param {LoadOptions} options @param {number} size */
async function downloadBytes({url}, options, size) {
    if (url === undefined || !storesFirst(options)) return 0;
    return size - ((await findStored(url, options))?.bytes ?? 0);
}

/** Without a GPU that was asked for, the rest can still be told.
 * @param {LoadOptions} options */
async function openEngineOrCpu(options) {
    try {
        return {host: await openEngine(options), noDevice: null};
    } catch (error) {
        if (!(error instanceof CaratError) || error.code !== "device") throw error;
        return {host: await openEngine({device: "cpu"}), noDevice: error.message};
    }
}

/** @param {Sources} sources @param {LoadOptions} options @param {Call} call
 * @returns {Promise<import("./carat.js").Estimate>} */
export async function estimate(sources, options, call) {
    const {host, noDevice} = await openEngineOrCpu(options);
    const opened = await openFiles(sources, options, call, openHeader);
    try {
        const about = openModel(host, opened), onGpu = host.engine.device().isGpu;
        const context = contextOf(about, options);
        const all = allBytes(about, context);
        const {model, projector} = opened, fileBytes = model.file.size;
        const missing = await downloadBytes(sources.source, options, fileBytes) +
            (sources.projector && projector ? await downloadBytes(sources.projector,
                {...options, name: undefined}, projector.file.size) : 0);
        const free = missing ? (await store.storage()).free : 0;
        const reason = noDevice ?? obstacle(host.engine, about, options)?.message ??
            (missing > free ? `${bytes(missing)} are to be downloaded, and this page may store ` +
                `${bytes(free)} more` : null);
        const {name, sizeLabel, quantisation, parameters, maxContextLength, vision, audio} =
            modelInfo(about, fileBytes, context);
        return {name, sizeLabel, quantisation, parameters, vision, audio,
            fileBytes, downloadBytes: missing, gpuBytes: onGpu ? all : 0,
            hostBytes: host.engine.heapBytes() + (onGpu ? STAGING : all),
            contextLength: context, maxContextLength, fits: reason === null, reason};
    } finally {
        await opened.close();
    }
}
