// downloads: models on their way from a URL into the origin's private file system.
//
// Owns: which downloads run, how far they are, pausing and resuming them. The package stores and
// resumes; this keeps the list that view/models.js shows.
// @ts-check

import {Carat} from "../carat/carat.js";
import {explain, model} from "./model.js";

/**
 * @typedef {{name: string, url: string, done: number, total: number, rate: number,
 *     state: "running" | "failed", phase: string, error: string, stop: AbortController}} Download
 */

class Downloads extends EventTarget {
    /** @type {Map<string, Download>} by the name under which it is stored */
    all = new Map();

    #tell() {
        this.dispatchEvent(new Event("change"));
    }

    /** @param {string} url @returns {string} the name under which it is stored */
    nameFor(url) {
        const last = new URL(url).pathname.split("/").at(-1) ?? "";
        return decodeURIComponent(last) || "model.gguf";
    }

    /** The one to show where there is room for one. */
    running() {
        return [...this.all.values()].find((d) => d.state === "running") ?? null;
    }

    /** Begins, or goes on where an earlier visit stopped.
     * @param {string} url @param {string} [name] @returns {Promise<boolean>} whether it is whole */
    async start(url, name = this.nameFor(url)) {
        if (this.all.get(name)?.state === "running") return false;
        /** @type {Download} */
        const download = {name, url, done: 0, total: 0, rate: 0, state: "running",
            phase: "download", error: "", stop: new AbortController()};
        this.all.set(name, download);
        this.#tell();
        try {
            await Carat.models.download(url, {
                name,
                signal: download.stop.signal,
                onProgress: (/** @type {any} */ {phase, done, total, rate}) => {
                    Object.assign(download, {phase, done, total, rate});
                    this.#tell();
                },
            });
            this.all.delete(name);
            this.dispatchEvent(new CustomEvent("ready", {detail: name}));
            return true;
        } catch (error) {
            if (download.stop.signal.aborted) this.all.delete(name);
            else {
                Object.assign(download, {state: "failed", error: explain(error)});
                model.notice(`${name} was not downloaded: ${explain(error)}`, "error");
            }
            return false;
        } finally {
            this.#tell();
        }
    }

    /** What was stored stays. @param {string} name */
    pause(name) {
        this.all.get(name)?.stop.abort();
    }

    /** Drops a failed one from the list. @param {string} name */
    forget(name) {
        this.pause(name);
        this.all.delete(name);
        this.#tell();
    }
}

export const downloads = new Downloads();
