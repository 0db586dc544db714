// @ts-check
/* kept: what the engine writes onto a shelf (shelf.js) and reads again. It does both synchronously
 * with files of its flat directory, opening them is asynchronous: so a file is opened here first,
 * then the engine runs, then the file is put in its place.
 *
 * What is being written is NAME.new until it is whole; what is there is whole.
 *
 * Flow: worker.js before; shelf.js and wasi.js (Directory) are what it stands on. */
import {CaratError} from "./errors.js";
import {folder} from "./opfs.js";
import * as shelves from "./shelf.js";

/** @typedef {import("./wasi.js").File} File */
/** @typedef {import("./wasi.js").Directory} Directory */

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

/** Shows the engine one file, under each name that begins with `inside` (it writes beside a name,
 * then renames); closed afterwards. @template T
 * @param {FileSystemSyncAccessHandle} handle @param {string} inside @param {boolean} isThere
 * @param {(directory: Directory, seen: {renamed: boolean}) => T | Promise<T>} work */
async function withFile(handle, inside, isThere, work) {
    const file = fileOf(handle), seen = {renamed: false};
    try {
        return await work({
            open: (name, create) => {
                if (!(isThere ? name === inside : name.startsWith(inside))) return null;
                isThere ||= create;
                return isThere ? file : null;
            },
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

class Keeper {
    #shelf;
    #end;

    /** @param {shelves.Shelf} shelf @param {string} [end] of the path: what is to be written */
    constructor(shelf, end = "") {
        this.#shelf = shelf;
        this.#end = end;
    }

    /** What the engine calls it; its messages say so. @param {string} name */
    path(name) {
        return `/${this.#shelf.what} ${name.replace(/[/\0]/g, "_")}${this.#end}`;
    }

    /** The engine writes to path(name) while save() runs.
     * @param {string} name @param {(directory: Directory) => void | Promise<void>} save */
    async write(name, save) {
        const final = this.#shelf.file(name), draft = `${final}.new`;
        try {
            const directory = await folder(this.#shelf.kind);
            const entry = /** @type {any} */ (
                await directory.getFileHandle(draft, {create: true}));
            let whole = false;
            try {
                const handle = await entry.createSyncAccessHandle();
                const inside = `${this.path(name).slice(1)}.`;
                await withFile(handle, inside, false, async (files, seen) => {
                    await save(files);
                    whole = seen.renamed;
                });
                if (whole) await replace(directory, entry, final);
            } catch (cause) {
                await directory.removeEntry(draft).catch(() => {});
                throw cause;
            }
        } catch (cause) {
            throw this.#shelf.failure(name, cause);
        }
    }

    /** The engine reads from path(name) while restore() runs. @template T
     * @param {string} name @param {(directory: Directory) => T | Promise<T>} restore */
    async read(name, restore) {
        const file = this.#shelf.file(name);
        try {
            const directory = await folder(this.#shelf.kind);
            const entry = /** @type {any} */ (await directory.getFileHandle(file));
            return await withFile(await entry.createSyncAccessHandle(), this.path(name).slice(1),
                true, restore);
        } catch (cause) {
            throw this.#shelf.failure(name, cause);
        }
    }
}

export const sessions = new Keeper(shelves.sessions);
export const adapters = new Keeper(shelves.adapters, ".gguf");
export const checkpoints = new Keeper(shelves.checkpoints);
