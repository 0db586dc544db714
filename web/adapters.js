// @ts-check
/* adapters: LoRA adapters in the worker: from what a page names to what the engine adds, and back
 * to files. Owns the list of open ones.
 *
 * An adapter is read whole and at once; its files are let go then.
 *
 * Flow: worker.js before; source.js and kept.js bring the bytes, engine.js does the rest. */
import {CaratError} from "./errors.js";
import {adapters as kept} from "./kept.js";
import {MemoryFolder} from "./memory.js";
import {openBlob, openBytes} from "./source.js";

/** @typedef {import("./source.js").SourceFile} SourceFile */
/** @typedef {{engine: import("./engine.js").Engine, files: import("./wasi.js").Files}} Host */
/** @typedef {{url?: string, files?: File[], bytes?: ArrayBuffer | Uint8Array, opfs?: string,
 *     headers?: Record<string, string>}} Source as adapter.js posts it */
/** @typedef {{name: string, file: SourceFile}} Named */

const WEIGHTS = "adapter_model.safetensors", CONFIG = "adapter_config.json";

/** Open adapters of the engine, by the numbers that the page knows them by.
 * @type {Map<number, number>} */
const open = new Map();
let last = 0;

/* ---- sources ---- */

/** @param {string} url @param {Record<string, string>} headers @param {AbortSignal} signal */
async function fetchFile(url, headers, signal) {
    let response;
    try {
        response = await fetch(url, {headers, signal});
        if (response.ok) return openBytes(await response.arrayBuffer(), url);
    } catch (cause) {
        if (signal.aborted) throw new CaratError("aborted", `${url}: reading was stopped`);
        throw new CaratError("network", `${url}: ${/** @type {Error} */ (cause).message}`);
    }
    throw new CaratError([404, 410].includes(response.status) ? "not-found" : "network",
        `${url}: the server answers ${response.status}`);
}

/** A GGUF file; or a folder as PEFT has it, by its address or by that of the weights in it.
 * @param {string} url @param {Record<string, string>} headers @param {AbortSignal} signal
 * @returns {Promise<Named[]>} */
async function fetchFiles(url, headers, signal) {
    const {pathname} = new URL(url), fromFolder = pathname.endsWith("/");
    const get = async (/** @type {string} */ name, /** @type {string} */ at) =>
        ({name, file: await fetchFile(new URL(at, url).href, headers, signal)});
    if (!fromFolder && !pathname.endsWith(".safetensors"))
        return [await get("adapter.gguf", url)];
    return Promise.all([get(WEIGHTS, fromFolder ? WEIGHTS : url), get(CONFIG, CONFIG)]);
}

/** @param {Source} source @param {AbortSignal} signal @returns {Promise<Named[]>} */
async function namedFiles({url, files, bytes, headers = {}}, signal) {
    if (url !== undefined) return fetchFiles(url, headers, signal);
    if (bytes) return [{name: "adapter", file: openBytes(bytes)}];
    return /** @type {File[]} */ (files).map((file) => ({name: file.name, file: openBlob(file)}));
}

/* ---- opening ---- */

/** @param {any} described in the core's words @returns {import("./carat.js").AdapterInfo} */
export function infoOf({first_layer: firstLayer, n_layer: layers, ...described}) {
    const {rank, alpha, rslora, targets, parameters} = described;
    return {rank, alpha, rslora, targets, firstLayer, layers, parameters};
}

/** @param {Host} host @param {number} adapter the engine's */
export function keep({engine}, adapter) {
    const id = ++last;
    open.set(id, adapter);
    return {id, info: infoOf(engine.describeAdapter(adapter))};
}

/** @param {Host} host @param {Named[]} list */
function openFiles(host, list) {
    const {files, engine} = host, inside = (/** @type {Named} */ {name}) => `adapter/${name}`;
    const weights = list.find(({name}) => !name.endsWith(".json"));
    if (!weights)
        throw new CaratError("argument", `an adapter's files are ${WEIGHTS} and ${CONFIG}, or ` +
            "one .gguf");
    try {
        for (const one of list) files.add(inside(one), one.file);
        return keep(host, engine.openAdapter(`/${inside(weights)}`));
    } finally {
        for (const one of list) {
            files.remove(inside(one));
            one.file.close?.();
        }
    }
}

/** @param {Host} host @param {Source} source @param {AbortSignal} signal */
export async function openAdapter(host, source, signal) {
    const {opfs} = source;
    if (opfs === undefined) return openFiles(host, await namedFiles(source, signal));
    return kept.read(opfs, (directory) => host.files.inside(directory,
        () => keep(host, host.engine.openAdapter(kept.path(opfs)))));
}

/** @param {number} id */
function found(id) {
    const adapter = open.get(id);
    if (adapter === undefined) throw new CaratError("argument", "the adapter was closed");
    return adapter;
}

/** @param {Host} host @param {{id: number, scale: number}[]} uses */
export function adapt({engine}, uses) {
    engine.adapt(uses.map(({id, scale}) => ({adapter: found(id), scale})));
}

/** @param {Host} host @param {number} id */
export function closeAdapter({engine}, id) {
    const adapter = open.get(id);
    open.delete(id);
    if (adapter !== undefined) engine.closeAdapter(adapter);
}

/* ---- writing ---- */

/** The files of an adapter: llama.cpp's one, or PEFT's two.
 * @param {Host} host @param {number} id @param {"gguf" | "peft"} format @param {string} name */
export function exportAdapter({engine, files}, id, format, name) {
    const folder = new MemoryFolder(), adapter = found(id);
    const path = format === "gguf" ? "adapter.gguf" : "adapter";
    files.inside(folder, () => engine.saveAdapter(adapter, `/${path}`));
    if (format === "gguf") return [new File([folder.bytes(path)], `${name}.gguf`)];
    return [new File([folder.bytes(`adapter/${WEIGHTS}`)], WEIGHTS),
        new File([folder.bytes(`adapter/${CONFIG}`)], CONFIG, {type: "application/json"})];
}

/** Into the origin's private file system. @param {Host} host @param {number} id
 * @param {string} name */
export async function saveAdapter({engine, files}, id, name) {
    const adapter = found(id);
    await kept.write(name, (directory) => files.inside(directory,
        () => engine.saveAdapter(adapter, kept.path(name))));
}

/** For the trainer, which goes on from a file. @param {Host} host @param {number} id
 * @param {string} path */
export function adapterFolder({engine, files}, id, path) {
    const folder = new MemoryFolder();
    files.inside(folder, () => engine.saveAdapter(found(id), path));
    return folder;
}
