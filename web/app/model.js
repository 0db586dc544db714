// model: the one model that is loaded, and the change from it to another.
//
// Owns: the Carat object. Others wait for it with ready(); it says with "change" what it is doing
// and with "notice" what a person should read. view/bar.js shows it, chat.js uses it.
// @ts-check

import {Carat} from "../carat/carat.js";
import {nanoBytes} from "./nano.js";
import {settings} from "./settings.js";

/** @typedef {{kind: "nano" | "opfs" | "ollama" | "file", name?: string, file?: File,
 *     projector?: File}} Choice projector: of a model that has its encoders in a second file */

/** @param {Choice} choice what it is called on the page */
export function nameOf(choice) {
    return choice.kind === "nano" ? "nano" : (choice.name ?? "").replace(/\.gguf$/i, "");
}

/** @param {{name: string, kind: string}} device its real name; what is no GPU is called so */
export function deviceName({name, kind}) {
    if (kind === "cpu") return "CPU";
    if (kind === "software" && !/software/i.test(name)) return `${name} (software)`;
    return name;
}

/** @param {any} error @returns {string} one sentence */
export function sentence(error) {
    const text = String(error?.message ?? error).trim();
    if (!text) return "Something went wrong.";
    const first = text[0].toUpperCase() + text.slice(1);
    return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** What to do about an error. @param {any} error */
function advice(error) {
    switch (error?.code) {
    case "quota": return " Delete a stored model or free some disk space, then try again.";
    case "format": return " Get the file again: it is damaged or not a Gemma 4 GGUF.";
    case "memory": return " Choose a smaller model or a shorter context in the settings.";
    case "busy": return " Close carat's other tabs and try again.";
    case "network": return " Check the connection and try again: it goes on where it stopped.";
    case "internal": return " The model is loaded again; then try again.";
    case "device": return " Choose the CPU in the settings, or try another browser.";
    default: return "";
    }
}

/** @param {any} error */
export function explain(error) {
    return sentence(error) + advice(error);
}

class Model extends EventTarget {
    /** @type {"loading" | "ready" | "failed"} */
    state = "loading";
    /** @type {Choice} */
    choice = {kind: "nano"};
    /** @type {import("../carat/carat.js").Progress | null} */
    progress = null;
    /** @type {any} the Carat object while state is "ready" */
    carat = null;
    error = "";
    /** @type {AbortController | null} */
    #loading = null;

    get name() {
        return nameOf(this.choice);
    }

    /** @param {string} text @param {"info" | "error"} kind */
    notice(text, kind = "info") {
        this.dispatchEvent(new CustomEvent("notice", {detail: {text, kind}}));
    }

    /** @param {Partial<Model>} fields */
    #become(fields) {
        Object.assign(this, fields);
        this.dispatchEvent(new Event("change"));
    }

    /** Loads a model in place of the present one; when it cannot be, nano comes back.
     * @param {Choice} choice @param {boolean} remember for the next visit
     * @returns {Promise<boolean>} whether it is the one loaded now */
    async use(choice, remember = true) {
        this.#loading?.abort();
        const mine = new AbortController();
        this.#loading = mine;
        const before = this.carat;
        this.#become({state: "loading", choice, carat: null, progress: null, error: ""});
        try {
            await before?.close();
            const carat = await this.#load(choice, mine.signal);
            if (mine.signal.aborted) {
                await carat.close();
                return false;
            }
            this.#become({state: "ready", carat, progress: null});
            if (remember) this.#remember(choice);
            return true;
        } catch (error) {
            if (mine.signal.aborted) return false;
            if (choice.kind === "nano") {
                this.#become({state: "failed", error: explain(error)});
                this.notice(`nano could not be loaded: ${explain(error)}`, "error");
            } else {
                this.notice(`${this.name} could not be loaded: ${explain(error)} nano answers ` +
                    "instead.", "error");
                await this.use({kind: "nano"}, false);
            }
            return false;
        }
    }

    /** @param {Choice} choice @param {AbortSignal} signal */
    async #load(choice, signal) {
        const onProgress = (/** @type {any} */ progress) => {
            if (!signal.aborted) this.#become({progress});
        };
        const onNotice = (/** @type {string} */ text) => {
            this.notice(sentence(text));
            this.#become({}); // the device may be another one now
        };
        const options = {...settings.loadOptions(), onProgress, onNotice, signal};
        if (choice.kind === "nano") return Carat.load(await nanoBytes(onProgress, signal), options);
        if (choice.kind === "file")
            return Carat.load(/** @type {File} */ (choice.file),
                {...options, projector: choice.projector});
        const name = choice.name ?? "";
        return Carat.load(choice.kind === "opfs" ? {opfs: name} : {ollama: name}, options);
    }

    /** A picked file cannot be opened again without the user, so it is not remembered.
     * @param {Choice} choice */
    #remember(choice) {
        const {kind, name} = choice;
        if (kind !== "file") settings.set({model: /** @type {any} */ ({kind, name})});
    }

    /** Loads the present one again, with other settings. */
    reload() {
        return this.use(this.choice);
    }

    /** After a fault of its own the engine answers nothing any more. @param {any} error */
    replaceBroken(error) {
        if (error?.code === "internal" && this.state === "ready") this.reload();
    }

    /** Waits until there is one. @param {AbortSignal} signal @returns {Promise<any>} */
    ready(signal) {
        return new Promise((done, failed) => {
            const look = () => {
                if (signal.aborted) failed(new DOMException("stopped", "AbortError"));
                else if (this.state === "ready") done(this.carat);
                else if (this.state === "failed") failed(new Error(this.error));
                else return;
                this.removeEventListener("change", look);
                signal.removeEventListener("abort", look);
            };
            this.addEventListener("change", look);
            signal.addEventListener("abort", look);
            look();
        });
    }
}

export const model = new Model();
