// opfs: the folders, names, records and locks of what carat keeps in the origin's private file
// system. Does not know how a file comes there. Flow: first; part.js and store.js come after.
//
//     carat/models/NAME          a model, whole or in part
//     carat/records/NAME.json    what is known of it; it says whether the model is complete
//     carat/sessions/NAME        saved sessions, and in adapters/ and checkpoints/ what training
//                                leaves (written by the worker: kept.js)
// @ts-check
import {CaratError} from "./errors.js";

/**
 * What is known of a file: where it comes from, what was promised, what is stored.
 * @typedef {object} ModelRecord
 * @property {1} version
 * @property {string} name
 * @property {string | null} url
 * @property {string | null} etag
 * @property {string | null} modified the server's Last-Modified
 * @property {number | null} size of the whole file
 * @property {string | null} wanted the sha256 that the caller asked for
 * @property {string | null} sha256 of the whole file, once it was computed
 * @property {number} chunkBytes
 * @property {string[]} chunks sha256 of the stored chunks, from the first on
 * @property {number} stored bytes that are safely on disk, from the first on
 * @property {{length: number, state: number[]} | null} hash of sha256.js, after some chunks
 * @property {boolean} complete
 */

/** A name that any file system takes: no separators, no dots in front, not empty, not long.
 * @param {string} name */
export function storedName(name) {
    const plain = String(name).normalize().replace(/[^\p{L}\p{N}._+ -]+/gu, "_")
        .replace(/^[. ]+|[. ]+$/g, "");
    const short = Array.from(plain).slice(-100).join("").replace(/^[. ]+/, "");
    if (!short) throw new CaratError("argument", `"${name}" cannot be the name of a model`);
    return short;
}

/** The last part of a URL's path. @param {URL} url */
export function nameOf(url) {
    let last = url.pathname.split("/").filter(Boolean).pop() ?? "";
    try {
        last = decodeURIComponent(last);
    } catch {
        // A lone % is taken as it is.
    }
    return storedName(/[\p{L}\p{N}]/u.test(last) ? last : "model.gguf");
}

/** What browsers give only to pages that came by https or from localhost. */
export function storageHere() {
    if (!navigator.storage?.getDirectory || !navigator.locks)
        throw new CaratError("unsupported",
            "nothing can be stored here: the browser has no private file system, or the page " +
            "came neither by https nor from localhost");
    return navigator.storage;
}

/** @param {"models" | "records" | "sessions" | "adapters" | "checkpoints"} kind */
export async function folder(kind) {
    const storage = storageHere();
    try {
        const root = await storage.getDirectory();
        const carat = await root.getDirectoryHandle("carat", {create: true});
        return await carat.getDirectoryHandle(kind, {create: true});
    } catch (cause) {
        throw new CaratError("io", `the browser's private file system cannot be opened: ${
            /** @type {Error} */ (cause).message}`);
    }
}

/** The handle of a file, or null when there is none.
 * @param {"models" | "records"} kind @param {string} name */
export async function findFile(kind, name) {
    try {
        return await (await folder(kind)).getFileHandle(name);
    } catch (cause) {
        if (/** @type {Error} */ (cause).name === "NotFoundError") return null;
        throw cause;
    }
}

/** @param {"models" | "records"} kind @param {string} name */
export async function deleteFile(kind, name) {
    try {
        await (await folder(kind)).removeEntry(name);
    } catch (cause) {
        if (/** @type {Error} */ (cause).name !== "NotFoundError") throw cause;
    }
}

/** The record of a model; null when there is none or it cannot be read.
 * @param {string} name @returns {Promise<ModelRecord | null>} */
export async function readRecord(name) {
    // A file that is replaced while it is read fails once, not twice.
    for (let attempt = 0; attempt < 2; attempt++) {
        try {
            const handle = await findFile("records", `${name}.json`);
            if (!handle) return null;
            const record = JSON.parse(await (await handle.getFile()).text());
            if (record?.version === 1 && Array.isArray(record.chunks)) return record;
        } catch (cause) {
            if (cause instanceof CaratError) throw cause;
        }
    }
    return null;
}

/** @param {string} name @returns {Promise<import("./carat.d.ts").StoredModel | null>} */
export async function find(name) {
    const plain = storedName(name);
    const handle = await findFile("models", plain);
    if (!handle) return null;
    const file = await handle.getFile().catch(() => null); // deleted by another tab meanwhile
    if (!file) return null;
    const record = await readRecord(plain);
    // A file without a record was put there whole by someone else.
    const known = record !== null || await findFile("records", `${plain}.json`) !== null;
    const size = record ? record.size : known ? null : file.size;
    return {
        name: plain,
        bytes: Math.min(file.size, size ?? file.size),
        size,
        complete: record ? record.complete && record.size === file.size : !known,
        url: record?.url ?? null,
        sha256: record?.sha256 ?? null,
        modified: new Date(file.lastModified),
    };
}

/** Replaces the record as a whole: after a crash there is the old one or the new one.
 * @param {ModelRecord} record */
export async function writeRecord(record) {
    const text = JSON.stringify(record);
    const handle = await (await folder("records"))
        .getFileHandle(`${record.name}.json`, {create: true});
    if ("createWritable" in handle) {
        const writable = await handle.createWritable();
        await writable.write(text);
        await writable.close();
        return;
    }
    const file = await /** @type {any} */ (handle).createSyncAccessHandle();
    try {
        const bytes = new TextEncoder().encode(text);
        file.write(bytes, {at: 0});
        file.truncate(bytes.length);
        file.flush();
    } finally {
        file.close();
    }
}

/* ---- locks: "download" belongs to the one that writes, "use" is shared by those that read ---- */

/**
 * Takes a lock of a model. Gives a function that lets go of it, or null when `ifAvailable` and
 * another has it.
 * @param {"download" | "use"} what @param {string} name
 * @param {{mode?: LockMode, ifAvailable?: boolean, signal?: AbortSignal}} [options]
 * @returns {Promise<(() => Promise<void>) | null>}
 */
export function lock(what, name, {mode = "exclusive", ifAvailable = false, signal} = {}) {
    return new Promise((resolve, reject) => {
        storageHere();
        const options = ifAvailable ? {mode, ifAvailable} : {mode, signal};
        const ended = navigator.locks.request(`carat:${what}:${name}`, options, (held) => {
            if (!held) return resolve(null);
            return new Promise((letGo) => resolve(async () => {
                letGo(undefined);
                await ended;
            }));
        });
        ended.catch((cause) => reject(signal?.aborted ? aborted(name) : cause));
    });
}

/** @param {string} what */
export function aborted(what) {
    return new CaratError("aborted", `${what}: the download was stopped`);
}

/** "3.2 GB" @param {number} n */
export function bytes(n) {
    const units = ["bytes", "KB", "MB", "GB", "TB"];
    let unit = 0;
    for (; n >= 1000 && unit < 4; unit++) n /= 1000;
    return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}
