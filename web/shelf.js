// @ts-check
/* shelf: the files that carat leaves in the origin's private file system beside the models: saved
 * conversations, adapters, checkpoints of training: their names, listing and deleting them. Works
 * in pages and workers; kept.js writes and reads them.
 *
 * Flow: opfs.js (the folders) before; carat.js and kept.js use it. */
import {CaratError} from "./errors.js";
import {folder} from "./opfs.js";

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", {ignoreBOM: true});

/** One folder of such files. */
export class Shelf {
    /** @param {"sessions" | "adapters" | "checkpoints"} kind @param {string} what one of them */
    constructor(kind, what) {
        this.kind = kind;
        this.what = what;
        this.suffix = `.${what}`;
    }

    /** Any name becomes a file name and back: what is not plain is written as _XX, byte by byte.
     * @param {unknown} name */
    file(name) {
        const bytes = typeof name === "string" ? encoder.encode(name) : [];
        /* Half a character would come back as another name. */
        if (bytes.length === 0 || bytes.length > 60 ||
            decoder.decode(Uint8Array.from(bytes)) !== name)
            throw new CaratError("argument", `the name of ${this.#a} is a text of 1 to 60 bytes`);
        return Array.from(bytes, (b) =>
            /[A-Za-z0-9-]/.test(String.fromCharCode(b)) ? String.fromCharCode(b)
                : `_${b.toString(16).padStart(2, "0")}`).join("") + this.suffix;
    }

    get #a() {
        return `${/^[aeiou]/.test(this.what) ? "an" : "a"} ${this.what}`;
    }

    /** @param {string} file */
    #name(file) {
        const hex = file.slice(0, -this.suffix.length).replace(/_([0-9a-f]{2})|(.)/g,
            (_, code, plain) => code ?? plain.charCodeAt(0).toString(16).padStart(2, "0"));
        return decoder.decode(Uint8Array.from(hex.match(/../g) ?? [], (b) => parseInt(b, 16)));
    }

    /** What went wrong, as an error that names it.
     * @param {string} name @param {unknown} cause */
    failure(name, cause) {
        if (cause instanceof CaratError) return cause;
        const {name: kind, message} = /** @type {Error} */ (cause), {what} = this;
        if (kind === "NotFoundError")
            return new CaratError("not-found", `there is no ${what} "${name}"`);
        if (kind === "QuotaExceededError")
            return new CaratError("quota", `${what} "${name}": the browser's storage is full`);
        if (kind === "NoModificationAllowedError")
            return new CaratError("io", `${what} "${name}" is in use, perhaps in another tab`);
        return new CaratError("io", `${what} "${name}": ${message}`);
    }

    /** @param {string} name */
    async remove(name) {
        const file = this.file(name);
        try {
            await (await folder(this.kind)).removeEntry(file);
        } catch (cause) {
            throw this.failure(name, cause);
        }
    }

    /** Newest first. */
    async list() {
        const list = [];
        const entries = /** @type {any} */ (await folder(this.kind)).values();
        for await (const entry of entries) {
            if (!entry.name.endsWith(this.suffix)) continue;
            try {
                const {size, lastModified} = await entry.getFile();
                list.push({name: this.#name(entry.name), bytes: size,
                    modified: new Date(lastModified)});
            } catch {
                /* it was deleted, or is being replaced, meanwhile */
            }
        }
        return list.sort((a, b) => b.modified.getTime() - a.modified.getTime());
    }
}

export const sessions = new Shelf("sessions", "session");
export const adapters = new Shelf("adapters", "adapter");
export const checkpoints = new Shelf("checkpoints", "checkpoint");
