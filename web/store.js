// store: the models that are stored in the browser: download, list, delete, space, and the index
// that `carat serve` offers of others.
//
// Owns what happens when several tabs want the same model. Does not read models (source.js does,
// for the engine) nor talk to servers beyond the index (transfer.js does). download() needs a
// worker, because only workers write with sync access handles; the rest works anywhere.
// @ts-check
import {CaratError} from "./errors.js";
import {deleteFile, find, findFile, folder, lock, nameOf, readRecord, storageHere, storedName,
    writeRecord} from "./opfs.js";
import {Transfer} from "./transfer.js";

export {find, nameOf} from "./opfs.js";

/** @typedef {import("./opfs.js").ModelRecord} ModelRecord */
/** @typedef {import("./carat.d.ts").StoredModel} StoredModel */
/** @typedef {import("./carat.d.ts").Progress} Progress */

/**
 * @typedef {object} DownloadOptions
 * @property {string} [name] to store it under; default: the last part of the URL
 * @property {Record<string, string>} [headers]
 * @property {number} [size] expected
 * @property {string} [sha256] expected, 64 hex digits, "sha256:" in front or not
 * @property {AbortSignal} [signal]
 * @property {(progress: Progress) => void} [onProgress] about ten times a second
 * @property {(notice: string) => void} [onNotice] why it starts over, what was damaged
 * @property {boolean} [verify] read a complete model again and mend what is damaged
 * @property {number} [chunkBytes] what is checked and fetched again at once; a multiple of 64
 * @property {number} [retries]
 * @property {number} [retryDelay] milliseconds
 * @property {number} [stallSeconds]
 */

/** @typedef {{url: string, name: string, size?: number, sha256?: string}} Wanted */

const CHUNK_BYTES = 16 * 2 ** 20;

/* ---- what is stored ---- */

/** Every stored model, whole or in part, by name. @returns {Promise<StoredModel[]>} */
export async function list() {
    const models = [];
    const files = /** @type {any} */ (await folder("models"));
    for await (const name of files.keys()) models.push(await find(name));
    return models.filter((model) => model !== null)
        .sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Whether a model is stored completely. @param {string} name */
export async function exists(name) {
    return (await find(name))?.complete ?? false;
}

/** Deletes a model, also a part of one. @param {string} name */
export async function remove(name) {
    const plain = storedName(name);
    const [own, letGo] = await claim(plain);
    if (!letGo) throw inUse(plain, "deleted", own);
    try {
        if (!await findFile("models", plain))
            throw new CaratError("not-found", `${name}: no such model is stored`);
        await forget(plain);
    } finally {
        await letGo();
    }
}

/** @param {string} name */
async function forget(name) {
    await deleteFile("models", name);
    await deleteFile("records", `${name}.json`);
}

/** @returns {Promise<import("./carat.d.ts").Storage>} */
export async function storage() {
    const manager = storageHere();
    const {usage = 0, quota = 0} = await manager.estimate();
    return {used: usage, free: Math.max(0, quota - usage), persistent: await manager.persisted()};
}

/** Asks the browser to keep what is stored; true when it promised. Only a page can ask. */
export async function persist() {
    const manager = /** @type {any} */ (storageHere());
    return await manager.persisted() || Boolean(await manager.persist?.());
}

/**
 * Keeps a model from being deleted or replaced while it is loaded; call what it gives afterwards.
 * @param {string} name @param {AbortSignal} [signal] @returns {Promise<() => Promise<void>>}
 */
export async function hold(name, signal) {
    const letGo = await lock("use", storedName(name), {mode: "shared", signal});
    return /** @type {() => Promise<void>} */ (letGo);
}

/* ---- download ---- */

/**
 * Stores the file of a URL, or the rest of it; a model that is already there is not asked for.
 * @param {string | URL} url @param {DownloadOptions} [options] @returns {Promise<StoredModel>}
 */
export async function download(url, options = {}) {
    const wanted = describe(url, options);
    const stored = await ready(wanted, options);
    if (stored) return stored;
    const letGo = await myTurn(wanted.name, options);
    try {
        return await ready(wanted, options) ?? await write(wanted, options);
    } finally {
        await letGo();
    }
}

/** @param {string | URL} url @param {DownloadOptions} options @returns {Wanted} */
function describe(url, {name, size, sha256}) {
    let address;
    try {
        address = new URL(url, globalThis.location?.href);
    } catch {
        throw new CaratError("argument", `"${url}" is not a URL`);
    }
    address.hash = "";
    const digest = sha256?.toLowerCase().replace(/^sha256:/, "");
    if (digest !== undefined && !/^[0-9a-f]{64}$/.test(digest))
        throw new CaratError("argument", `"${sha256}" is not a sha256: 64 hex digits`);
    return {url: address.href, name: name === undefined ? nameOf(address) : storedName(name), size,
        sha256: digest};
}

/** The stored model, if it is the wanted one and needs no work.
 * @param {Wanted} wanted @param {DownloadOptions} options */
async function ready(wanted, options) {
    const stored = await find(wanted.name);
    if (!stored?.complete) return null;
    refuseOther(stored, wanted);
    return options.verify || (wanted.sha256 && !stored.sha256) ? null : stored;
}

/** Throws when a complete model is clearly not the wanted one: what is whole is not replaced
 * without being asked.
 * @param {StoredModel} stored @param {Wanted} wanted */
function refuseOther(stored, {url, size, sha256}) {
    const same = sha256 !== undefined && sha256 === stored.sha256;
    const other = !same && stored.url !== url ? `one from ${stored.url ?? "elsewhere"}`
        : sha256 && stored.sha256 && !same ? `one with the sha256 ${stored.sha256}`
        : size !== undefined && size !== stored.size ? `one of ${stored.size} bytes` : null;
    if (other)
        throw new CaratError("argument", `${stored.name}: another model is stored under this ` +
            `name, ${other}; delete it or choose another name`);
}

/** Waits until no other tab downloads the model, and shows the other's progress meanwhile.
 * @param {string} name @param {DownloadOptions} options */
async function myTurn(name, {signal, onProgress}) {
    const channel = new BroadcastChannel("carat:download");
    channel.onmessage = ({data}) => {
        if (data.name === name) onProgress?.(data.progress);
    };
    try {
        const letGo = await lock("download", name, {signal});
        return /** @type {() => Promise<void>} */ (letGo);
    } finally {
        channel.close();
    }
}

/** @param {Wanted} wanted @param {DownloadOptions} options */
async function write(wanted, options) {
    const {name} = wanted;
    const letGo = await lock("use", name, {ifAvailable: true});
    if (!letGo) throw inUse(name, "replaced", true);
    const channel = new BroadcastChannel("carat:download");
    const record = await recordFor(wanted, options);
    let file;
    try {
        await writeRecord(record);
        file = await openToWrite(name);
        await new Transfer(file, record, {
            ...options,
            ...wanted,
            sha256: wanted.sha256 ?? record.wanted ?? undefined,
            save: writeRecord,
            free: async () => (await storage()).free,
            onProgress(progress) {
                channel.postMessage({name, progress});
                options.onProgress?.(progress);
            },
        }).run();
    } finally {
        file?.close();
        channel.close();
        if (record.stored === 0) await forget(name);
        await letGo();
    }
    return /** @type {StoredModel} */ (await find(name));
}

/** The record to go on from, or a fresh one.
 * @param {Wanted} wanted @param {DownloadOptions} options @returns {Promise<ModelRecord>} */
async function recordFor({url, name, size, sha256}, {chunkBytes = CHUNK_BYTES, onNotice}) {
    const old = await readRecord(name);
    const otherDigest = old?.wanted && sha256 && old.wanted !== sha256;
    const otherSize = old && old.size !== null && size !== undefined && old.size !== size;
    if (old && !otherDigest && !otherSize) return old;
    if (old) onNotice?.(`${name}: another ${otherSize ? "size" : "sha256"} is expected than ` +
        "that of what is stored: starting over");
    return {version: 1, name, url, etag: null, modified: null, size: null, wanted: sha256 ?? null,
        sha256: null, chunkBytes, chunks: [], stored: 0, hash: null, complete: false};
}

/** @param {string} name */
async function openToWrite(name) {
    const handle = /** @type {any} */ (
        await (await folder("models")).getFileHandle(name, {create: true}));
    if (!handle.createSyncAccessHandle)
        throw new CaratError("unsupported", "models can only be stored from a worker, and only " +
            "in browsers with sync access handles");
    try {
        return await handle.createSyncAccessHandle();
    } catch (cause) {
        throw new CaratError("io", `${name}: cannot be opened for writing: ${
            /** @type {Error} */ (cause).message}`);
    }
}

/* ---- several tabs ---- */

/** Both locks of a model at once: whether nobody downloads it, and how to let go of both (null
 * when somebody downloads or uses it).
 * @param {string} name @returns {Promise<[boolean, (() => Promise<void>) | null]>} */
async function claim(name) {
    const download = await lock("download", name, {ifAvailable: true});
    if (!download) return [false, null];
    const use = await lock("use", name, {ifAvailable: true});
    if (use) return [true, async () => void await Promise.all([use(), download()])];
    await download();
    return [true, null];
}

/** @param {string} name @param {string} verb @param {boolean} loaded */
function inUse(name, verb, loaded) {
    return new CaratError("busy", loaded
        ? `${name}: is loaded, here or in another tab; it can be ${verb} once it is closed there`
        : `${name}: is being downloaded, here or in another tab; stop that first`);
}

/* ---- carat serve ---- */

/**
 * What a `carat serve` offers. Default server: where the page comes from.
 * @param {string | URL} [server] @param {AbortSignal} [signal]
 * @returns {Promise<{name: string, size: number, url: string, sha256: string}[]>}
 */
export async function ollama(server = globalThis.location?.origin, signal = undefined) {
    const address = new URL("/models", server);
    let index;
    try {
        const response = await fetch(address, {signal});
        if (!response.ok) throw new Error(`it answers ${response.status} ${response.statusText}`);
        index = await response.json();
    } catch (cause) {
        if (signal?.aborted)
            throw new CaratError("aborted", `${address.origin}: asking it was stopped`);
        throw new CaratError("network", `no carat serve at ${address.origin}: ${
            /** @type {Error} */ (cause).message}`);
    }
    if (!Array.isArray(index?.models))
        throw new CaratError("format", `${address}: is not the index of a carat serve`);
    return index.models.map((/** @type {any} */ model) => ({
        name: String(model.name),
        size: Number(model.size),
        url: new URL(model.url, address).href,
        sha256: String(model.digest).replace(/^sha256:/, ""),
    }));
}

/** One model of it; as with Ollama, no tag means "latest".
 * @param {string} name @param {string | URL} [server] @param {AbortSignal} [signal] */
export async function ollamaModel(name, server, signal) {
    const models = await ollama(server, signal);
    const model = models.find((one) => one.name === name) ??
        models.find((one) => one.name === `${name}:latest`);
    if (model) return model;
    throw new CaratError("not-found", `${name}: not among the models of carat serve (${
        models.map((one) => one.name).join(", ") || "it has none"})`);
}
