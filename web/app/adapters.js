// adapters: those that were kept, and which of them the model uses.
//
// Owns: the list of the loaded model's adapters with their switches, which localStorage remembers.
// The files are the package's (Carat.adapters); view/adapters.js shows them, tune.js makes new
// ones.
// @ts-check

import {Carat} from "../carat/carat.js";
import {model, sentence} from "./model.js";

const key = "carat.adapters";

/** @typedef {{name: string, bytes: number, on: boolean}} Kept */

/** Which model each is for, and whether it is on.
 * @returns {Record<string, {model: string, on: boolean}>} */
function records() {
    try {
        return JSON.parse(localStorage.getItem(key) ?? "{}") ?? {};
    } catch {
        return {}; // storage that is switched off or damaged
    }
}

/** @param {string} name @param {{model: string, on: boolean} | null} record */
function remember(name, record) {
    const {[name]: _, ...rest} = records();
    try {
        localStorage.setItem(key, JSON.stringify(record ? {...rest, [name]: record} : rest));
    } catch {
        // They hold for this visit.
    }
}

class Adapters extends EventTarget {
    /** @type {Kept[]} */
    list = [];
    /** Open ones of the loaded model. @type {Map<string, any>} */
    #open = new Map();
    /** @type {any} the Carat object that they belong to */
    #carat = null;

    constructor() {
        super();
        model.addEventListener("change", () => {
            if (model.state !== "ready" || model.carat === this.#carat) return;
            this.#carat = model.carat;
            this.#open = new Map();
            this.refresh().then(() => this.apply());
        });
    }

    async refresh() {
        const known = records();
        const all = await Carat.adapters.list().catch(() => []);
        this.list = all.filter(({name}) => known[name]?.model === model.name)
            .map(({name, bytes}) => ({name, bytes, on: known[name].on}));
        this.dispatchEvent(new Event("change"));
    }

    /** Has the model use those that are on. */
    async apply() {
        const carat = model.carat;
        const uses = [];
        for (const one of this.list.filter(({on}) => on)) {
            try {
                if (!this.#open.has(one.name))
                    this.#open.set(one.name, await carat.loadAdapter({opfs: one.name}));
                uses.push(this.#open.get(one.name));
            } catch (error) {
                model.notice(sentence(error), "error");
                this.#turn(one, false);
            }
        }
        await carat?.setAdapters(uses).catch((/** @type {any} */ error) =>
            model.notice(sentence(error), "error"));
    }

    /** @param {Kept} one @param {boolean} on */
    #turn(one, on) {
        one.on = on;
        remember(one.name, {model: model.name, on});
        this.dispatchEvent(new Event("change"));
    }

    /** @param {string} name */
    async toggle(name) {
        const one = this.list.find((a) => a.name === name);
        if (!one) return;
        this.#turn(one, !one.on);
        await this.apply();
    }

    /** Stores one that was trained, and turns it on. @param {any} adapter @param {string} name */
    async keep(adapter, name) {
        await adapter.save(name);
        remember(name, {model: model.name, on: true});
        await this.#forget(name);
        await this.refresh();
        await this.apply();
    }

    /** @param {string} name */
    async #forget(name) {
        await this.#open.get(name)?.close();
        this.#open.delete(name);
    }

    /** @param {string} name */
    async remove(name) {
        await Carat.adapters.delete(name);
        remember(name, null);
        await this.#forget(name);
        await this.refresh();
        await this.apply();
    }
}

export const adapters = new Adapters();
