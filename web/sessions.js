// @ts-check
/* sessions: saved conversations in the origin's private file system. The engine reads and writes
 * them synchronously as files of its flat directory, opening them is asynchronous: so a file is
 * opened here first, then the engine runs, then the file is put in its place.
 *
 * A session that is being written is NAME.new until it is whole; one that is there is whole.
 *
 * Flow: worker.js before; opfs.js (the folder) and wasi.js (Directory) are what it stands on. */
import {CaratError} from "./errors.js";
import {folder} from "./opfs.js";

/** @typedef {import("./wasi.js").File} File */
/** @typedef {import("./wasi.js").Directory} Directory */

const SUFFIX = ".session";
const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", {ignoreBOM: true});

/** Any name becomes a file name and back: what is not plain is written as _XX, byte by byte.
 * @param {unknown} name */
function fileName(name) {
    const bytes = typeof name === "string" ? encoder.encode(name) : [];
    /* Half a character would come back as another name. */
    if (bytes.length === 0 || bytes.length > 60 || decoder.decode(Uint8Array.from(bytes)) !== name)
        throw new CaratError("argument", "a session's name is a text of 1 to 60 bytes");
    const plain = Array.from(bytes, (b) =>
        /[A-Za-z0-9-]/.test(String.fromCharCode(b)) ? String.fromCharCode(b)
            : `_${b.toString(16).padStart(2, "0")}`).join("");
    return plain + SUFFIX;
}

/** @param {string} file */
function nameOf(file) {
    const hex = file.slice(0, -SUFFIX.length).replace(/_([0-9a-f]{2})|(.)/g, (_, code, plain) =>
        code ?? plain.charCodeAt(0).toString(16).padStart(2, "0"));
    return decoder.decode(Uint8Array.from(hex.match(/../g) ?? [], (b) => parseInt(b, 16)));
}

/** @param {string} name @param {unknown} cause */
function failure(name, cause) {
    if (cause instanceof CaratError) return cause;
    const {name: kind, message} = /** @type {Error} */ (cause);
    if (kind === "NotFoundError")
        return new CaratError("not-found", `there is no session "${name}"`);
    if (kind === "QuotaExceededError")
        return new CaratError("quota", `session "${name}": the browser's storage is full`);
    if (kind === "NoModificationAllowedError")
        return new CaratError("io", `session "${name}" is in use, perhaps in another tab`);
    return new CaratError("io", `session "${name}": ${message}`);
}

/** @param {FileSystemSyncAccessHandle} handle @returns {File} */
function fileOf(handle) {
    return {
        get size() {
            return handle.getSize();
        },
        read(at, to) {
            if (handle.read(to, {at}) !== to.length) throw new Error("the file ended early");
        },
        write(at, from) {
            if (handle.write(from, {at}) !== from.length)
                throw new CaratError("quota", "the browser's storage is full");
        },
        truncate: (size) => handle.truncate(size),
        flush: () => handle.flush(),
    };
}

/** Runs work while `directory` shows the engine one file; it is closed afterwards.
 * @template T @param {FileSystemSyncAccessHandle} handle @param {string} inside the file's name
 * @param {(directory: Directory, seen: {renamed: boolean}) => Promise<T>} work */
async function withFile(handle, inside, work) {
    const file = fileOf(handle), seen = {renamed: false};
    try {
        return await work({
            open: (name) => (name === inside ? file : null),
            rename: () => {
                seen.renamed = true;
            },
            remove: () => {},
        }, seen);
    } finally {
        handle.close();
    }
}

/** @param {FileSystemDirectoryHandle} directory @param {any} draft @param {string} final */
async function replace(directory, draft, final) {
    try {
        await draft.move(final);
    } catch {
        /* Some browsers do not move over a file that is there. */
        await directory.removeEntry(final);
        await draft.move(final);
    }
}

/** What the engine calls it; its messages say so. @param {string} name */
export function sessionPath(name) {
    return `/session ${name.replace(/[/\0]/g, "_")}`;
}

/** Saves: the engine writes to sessionPath(name) while save() runs.
 * @param {string} name @param {(directory: Directory) => Promise<void>} save */
export async function writeSession(name, save) {
    const final = fileName(name), draft = `${final}.new`;
    const inside = `${sessionPath(name).slice(1)}.new`;
    try {
        const directory = await folder("sessions");
        const entry = /** @type {any} */ (await directory.getFileHandle(draft, {create: true}));
        let whole = false;
        try {
            const handle = await entry.createSyncAccessHandle();
            await withFile(handle, inside, async (files, seen) => {
                await save(files);
                whole = seen.renamed;
            });
            if (whole) await replace(directory, entry, final);
        } catch (cause) {
            await directory.removeEntry(draft).catch(() => {});
            throw cause;
        }
    } catch (cause) {
        throw failure(name, cause);
    }
}

/** Restores: the engine reads from sessionPath(name) while restore() runs.
 * @param {string} name @param {(directory: Directory) => Promise<void>} restore */
export async function readSession(name, restore) {
    const file = fileName(name);
    try {
        const entry = /** @type {any} */ (await (await folder("sessions")).getFileHandle(file));
        await withFile(await entry.createSyncAccessHandle(), sessionPath(name).slice(1), restore);
    } catch (cause) {
        throw failure(name, cause);
    }
}

/** @param {string} name */
export async function deleteSession(name) {
    const file = fileName(name);
    try {
        await (await folder("sessions")).removeEntry(file);
    } catch (cause) {
        throw failure(name, cause);
    }
}

/** Newest first. */
export async function listSessions() {
    const list = [];
    const entries = /** @type {any} */ (await folder("sessions")).values();
    for await (const entry of entries) {
        if (!entry.name.endsWith(SUFFIX)) continue;
        try {
            const {size, lastModified} = await entry.getFile();
            list.push({name: nameOf(entry.name), bytes: size, modified: new Date(lastModified)});
        } catch {
            /* it was deleted, or is being replaced, meanwhile */
        }
    }
    return list.sort((a, b) => b.modified.getTime() - a.modified.getTime());
}
