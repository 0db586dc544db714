// @ts-check
/* worker: where the model lives. Owns the engine, its device, its file and its session; answers the
 * calls that remote.js posts (the messages are described there), those that use the session one
 * after the other.
 *
 * What is not a CaratError is a fault of carat's own (a trap in wasm, say): nothing is known of the
 * engine's state then, so the worker says "fatal" and is ended.
 *
 * Flow: remote.js before; model.js opens, run.js drives, kept.js stores, trainer.js learns. */
import {adapt, closeAdapter, exportAdapter, openAdapter, saveAdapter} from "./adapters.js";
import {noUsage} from "./answer.js";
import {CaratError} from "./errors.js";
import {sessions} from "./kept.js";
import {deviceInfo, estimate, modelInfo, openEngine, openHere} from "./model.js";
import {decodePictures} from "./pixels.js";
import {Meter} from "./progress.js";
import {Line, run} from "./run.js";
import {sessions as shelf} from "./shelf.js";
import {download} from "./store.js";
import {makeWay, train, trainingOps} from "./trainer.js";

/** @typedef {import("./engine.js").Event} Event */
/** @typedef {import("./engine.js").Job} Job */
/** @typedef {import("./carat.js").Part} Part */
/** @typedef {import("./carat.js").Progress} Progress */
/** @typedef {{id: number, signal: AbortSignal, onProgress: (progress: Progress) => void,
 *     onNotice: (notice: string) => void, onPart: (part: any) => void, meter: Meter}} Call */

/** @type {Awaited<ReturnType<typeof openHere>> | null} */
let host = null;
const line = new Line();
/** @type {Map<number, {stop: AbortController, ended: Promise<void>}>} */
const calls = new Map();

function loaded() {
    if (!host) throw new CaratError("internal", "no model is loaded");
    return host;
}

/** @param {string} notice */
function onNotice(notice) {
    postMessage({notice});
}

/* ---- jobs ---- */

/** @param {Job} job @param {{signal: AbortSignal}} call
 * @param {(event: Event) => void} onEvent */
function drive(job, {signal}, onEvent) {
    const {engine, gpu, cpuWillDo} = loaded();
    return run(job, {gpu, cpuWillDo, signal, onEvent(event) {
        if (event.kind === "notice") {
            onNotice(event.text);
            postMessage({device: deviceInfo(engine, gpu)});
        }
        onEvent(event);
    }});
}

/** @param {number} id */
const tokenText = (id) => loaded().engine.detokenize([id], true);

/** The token that an event brought, when log-probabilities were asked for.
 * @param {Event} event @param {unknown} wanted */
function logprobsOf({token, logprob, top}, wanted) {
    if (!wanted || token < 0) return {};
    return {logprobs: [{token: tokenText(token), id: token, logprob,
        top: top.filter((t) => t.id >= 0).map((t) => ({...t, token: tokenText(t.id)}))}]};
}

/** @param {string} text @returns {Part} */
function toolCallPart(text) {
    const {name, arguments: given} = JSON.parse(text);
    const id = crypto.getRandomValues(new Uint32Array(2))
        .reduce((all, n) => all + n.toString(16).padStart(8, "0"), "call_");
    return {type: "toolCall", toolCall: {id, name, arguments: given ?? {}}};
}

/** Passes an event of an answer on.
 * @param {Event} event @param {Call} call @param {unknown} logprobs what was asked for */
function tell(event, {onPart, meter}, logprobs) {
    const {kind, text, done, total} = event;
    if (kind === "progress") {
        /* Weights again, after a lost device: their bytes are more than any context. */
        const phase = total > loaded().engine.context() ? "load" : "prompt";
        meter.report(text === "encode" ? "encode" : phase, done, total);
    } else if (kind === "text" || kind === "thinking") {
        onPart({type: kind, text, ...logprobsOf(event, logprobs)});
    } else if (kind === "toolCall") {
        const its = logprobsOf(event, logprobs);
        if (its.logprobs) onPart({type: "text", text: "", ...its});
        onPart(toolCallPart(text));
    } else if (kind === "notice") {
        onPart({type: "notice", text});
    }
}

/** @param {ReturnType<Job["stats"]>} stats @returns {import("./carat.js").Usage} */
function usageOf({promptTokens, reusedTokens, generatedTokens, promptSeconds, generateSeconds}) {
    /* The first token is the prompt's. */
    const rate = generateSeconds > 0 ? Math.max(0, generatedTokens - 1) / generateSeconds : 0;
    return {promptTokens, cachedTokens: reusedTokens, completionTokens: generatedTokens,
        promptSeconds, completionSeconds: generateSeconds, tokensPerSecond: rate};
}

/** Runs it when the calls before have ended; training goes on behind it.
 * @param {AbortSignal} signal @param {() => Promise<void>} work */
function inTurn(signal, work) {
    makeWay();
    return line.wait(signal, work);
}

/** @param {any} request @param {Call} call @param {() => Job | Promise<Job>} start */
async function answer(request, call, start) {
    let usage = noUsage();
    /** @type {any} */
    let finishReason = "aborted";
    await inTurn(call.signal, async () => {
        const {finish, stats} = await drive(await start(), call,
            (event) => tell(event, call, request.logprobs));
        usage = usageOf(stats);
        finishReason = finish ?? "aborted";
    }).catch((error) => {
        if (error?.code !== "aborted") throw error;
    });
    call.onPart({type: "usage", usage, finishReason});
}

/** @param {Job} job @param {Call} call @param {Progress["phase"]} [phase] */
async function finish(job, call, phase) {
    await drive(job, call, ({kind, done, total}) => {
        if (kind === "progress" && phase) call.meter.report(phase, done, total);
    });
}

/* ---- calls ---- */

/** @type {Record<string, (args: any, call: Call) => unknown>} */
const ops = {
    async load({options, ...sources}, call) {
        host = await openHere(sources, options, call);
        const {engine, gpu, about, fileBytes} = host;
        await finish(engine.load(), call, "load");
        engine.createSession(options.contextLength);
        return {model: modelInfo(about, fileBytes, engine.context()),
            device: deviceInfo(engine, gpu)};
    },
    estimate: ({options, ...sources}, call) => estimate(sources, options, call),
    async device({options}) {
        const {engine, gpu} = await openEngine(options);
        return deviceInfo(engine, gpu);
    },
    download: ({url, options}, {signal, onProgress}) =>
        download(url, {...options, signal, onProgress, onNotice}),

    chat: (request, call) => answer(request, call, async () => {
        const media = await decodePictures(request.media, call.signal);
        return loaded().engine.chat({...request, media});
    }),
    generate: ({prompt, specials, ...request}, call) => answer(request, call, () => {
        const {engine} = loaded();
        return engine.complete(engine.tokenize(prompt, specials), request);
    }),

    tokenize: ({text, specials}) => loaded().engine.tokenize(text, specials),
    detokenize: ({ids, specials}) => loaded().engine.detokenize(ids, specials),
    async count({text, ...request}, {signal}) {
        if (text !== undefined) return loaded().engine.tokenize(text).length;
        const media = await decodePictures(request.media, signal);
        return loaded().engine.count({...request, media});
    },
    memory: () => ({heapBytes: loaded().engine.heapBytes(),
        gpuPeakBytes: loaded().engine.device().peakBytes}),

    saveSession: ({name}, call) => inTurn(call.signal, () => sessions.write(name, (files) =>
        withDirectory(files, () => finish(loaded().engine.saveSession(sessions.path(name)),
            call)))),
    restoreSession: ({name}, call) => inTurn(call.signal, () => sessions.read(name, (files) =>
        withDirectory(files, () => finish(loaded().engine.restoreSession(sessions.path(name)),
            call)))),
    deleteSession: ({name}) => shelf.remove(name),
    listSessions: () => shelf.list(),

    loadAdapter: ({source}, {signal}) => openAdapter(loaded(), source, signal),
    setAdapters: ({uses}, {signal}) => inTurn(signal, async () => adapt(loaded(), uses)),
    exportAdapter: ({id, format, name}) => exportAdapter(loaded(), id, format, name),
    saveAdapter: ({id, name}) => saveAdapter(loaded(), id, name),
    closeAdapter: ({id}) => closeAdapter(loaded(), id),

    train: (request, call) => train(shop(), request, call),
    ...Object.fromEntries(Object.entries(trainingOps).map(([name, op]) =>
        [name, (/** @type {any} */ args) => op(shop(), args)])),
};

/** What a training run needs. */
const shop = () => ({line, host: loaded(), drive});

/** @param {import("./wasi.js").Directory} directory @param {() => Promise<void>} work */
async function withDirectory(directory, work) {
    const {files} = loaded();
    files.directory = directory;
    try {
        await work();
    } finally {
        files.directory = null;
    }
}

/* ---- messages ---- */

/** @param {{id: number, op: string, args: any}} message @param {AbortSignal} signal */
async function serve({id, op, args}, signal) {
    const onProgress = (/** @type {Progress} */ progress) => postMessage({id, progress});
    try {
        const value = await ops[op](args, {id, signal, onProgress, onNotice,
            onPart: (part) => postMessage({id, part}), meter: new Meter(onProgress)});
        postMessage({id, value});
    } catch (error) {
        const {message} = /** @type {Error} */ (error);
        if (error instanceof CaratError) postMessage({id, error: {code: error.code, message}});
        else postMessage({fatal: {code: "internal", message: `carat stopped: ${error}`}});
    } finally {
        calls.delete(id);
    }
}

/** Stops what runs, gives files and device back, and says so: another worker may want them. */
async function close() {
    for (const {stop} of calls.values()) stop.abort();
    await Promise.all(Array.from(calls.values(), ({ended}) => ended));
    await host?.close();
    postMessage({closed: true});
}

addEventListener("message", ({data}) => {
    if (data.close) close();
    else if (data.cancel !== undefined) calls.get(data.cancel)?.stop.abort();
    else {
        const stop = new AbortController();
        calls.set(data.id, {stop, ended: serve(data, stop.signal)});
    }
});
