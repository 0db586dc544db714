// @ts-check
/* adapter: a LoRA adapter as a page holds it. What it names is in the worker.
 *
 * Flow: carat.js makes them; adapters.js is the other end. */
import {CaratError} from "./errors.js";
import {absolute} from "./remote.js";

/** @typedef {import("./carat.js").Adapter} Interface */
/** @typedef {import("./carat.js").AdapterSource} AdapterSource */
/** @typedef {import("./carat.js").AdapterInfo} AdapterInfo */
/** @typedef {import("./remote.js").Remote} Remote */

/** @param {string} path */
const lastPart = (path) => path.split("/").filter(Boolean).pop() ?? "";

/** A PEFT adapter's files all have the same names: its folder says which it is.
 * @param {string} path */
function nameOf(path) {
    const file = lastPart(path), folder = lastPart(path.slice(0, path.lastIndexOf(file)));
    const name = /^adapter_(model|config)\./.test(file) ? folder : file.replace(/\.\w+$/, "");
    return name || "adapter";
}

/** @param {string} path */
function unescaped(path) {
    try {
        return decodeURIComponent(path);
    } catch {
        return path; // a lone % is taken as it is
    }
}

/** A source as the worker takes it, and what the adapter is called unless the caller says.
 * @param {AdapterSource} source */
export function portableAdapter(source) {
    if (typeof source === "string" || source instanceof URL) {
        const {href, pathname} = absolute(source);
        return {source: {url: href}, name: nameOf(unescaped(pathname))};
    }
    if (source instanceof ArrayBuffer || source instanceof Uint8Array)
        return {source: {bytes: source}, name: "adapter"};
    const {opfs} = /** @type {any} */ (source ?? {});
    if (typeof opfs === "string") return {source: {opfs}, name: opfs};
    const list = Array.isArray(source) ? source : [source];
    if (!list.length || !list.every((one) => one instanceof Blob))
        throw new CaratError("argument", "an adapter's source is a URL, a file, the files of a " +
            "PEFT folder, bytes or {opfs: name}");
    const files = list.map((one) => one instanceof File ? one : new File([one], "adapter"));
    const [{webkitRelativePath, name}] = files;
    return {source: {files}, name: nameOf(webkitRelativePath || name)};
}

/** @implements {Interface} */
export class Adapter {
    #remote;
    #id;

    /** @param {Remote} remote @param {string} name @param {{id: number, info: AdapterInfo}} got */
    constructor(remote, name, {id, info}) {
        this.#remote = remote;
        this.#id = id;
        this.name = name;
        this.info = info;
    }

    /** What the worker knows one by.
     * @param {unknown} adapter @param {Remote} remote whose it must be */
    static id(adapter, remote) {
        if (!(adapter instanceof Adapter) || adapter.#remote !== remote)
            throw new CaratError("argument", "an adapter that this model's loadAdapter() or " +
                "train() gave is expected");
        return adapter.#id;
    }

    /** @param {"gguf" | "peft"} [format] */
    async export(format = "gguf") {
        if (format !== "gguf" && format !== "peft")
            throw new CaratError("argument", 'export: "gguf" or "peft" is expected');
        return this.#remote.call("exportAdapter", {id: this.#id, format, name: this.name});
    }

    /** @param {string} [name] */
    async save(name = this.name) {
        return this.#remote.call("saveAdapter", {id: this.#id, name});
    }

    async close() {
        return this.#remote.call("closeAdapter", {id: this.#id});
    }
}
