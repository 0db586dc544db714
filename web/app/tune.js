// tune: teaching the model: one dataset, one run, its outcome.
//
// Owns: what is to be learned and how, the run and what has come of it so far, going on with a run
// of an earlier visit. It says "change" when something else is to be shown, "step" when only the
// numbers moved. view/tune*.js shows it; the package does the work.
// @ts-check

import {Carat} from "../carat/carat.js";
import {adapters} from "./adapters.js";
import * as history from "./history.js";
import {explain, model} from "./model.js";

/** Of the checkpoint, and of what has to be the same to go on from it. */
const saved = "fine-tune";

/** Pages without such a place can train, too. */
const keeping = "getDirectory" in (navigator.storage ?? {})
    ? {checkpoint: saved, checkpointEvery: 25} : {};

/** @typedef {import("../carat/carat.js").TrainReport} TrainReport */
/** @typedef {import("../carat/carat.js").AdapterTarget} AdapterTarget */
/** @typedef {{rank: number, targets: keyof typeof targetSets, epochs: number,
 *     learningRate: number, memory: number}} Options memory: in GB */

/** @type {Record<"all" | "attention" | "few", {label: string, targets: AdapterTarget[]}>} */
export const targetSets = {
    all: {label: "All projections", targets: ["q", "k", "v", "o", "gate", "up", "down"]},
    attention: {label: "Attention", targets: ["q", "k", "v", "o"]},
    few: {label: "Queries and values", targets: ["q", "v"]},
};

/** A tiny model has to be pushed. @returns {Options} */
const defaults = () => model.choice.kind === "nano"
    ? {rank: 16, targets: "all", epochs: 10, learningRate: 2e-3, memory: 4}
    : {rank: 16, targets: "all", epochs: 3, learningRate: 2e-4, memory: 4};

class Tune extends EventTarget {
    /** "ready": the data was read; "done": there is an adapter
     * @type {"empty" | "reading" | "ready" | "running" | "paused" | "done"} */
    state = "empty";
    /** @type {File | null} */
    file = null;
    name = "my-adapter";
    /** @type {Options} */
    options = defaults();
    /** @type {TrainReport | null} */
    report = null;
    sample = "";
    error = "";
    /** @type {any[]} */
    steps = [];
    /** @type {any[]} */
    evals = [];
    /** the step that this run began with */
    from = 0;
    /** @type {any} the last part of a run that is over */
    done = null;
    /** @type {any} */
    adapter = null;
    kept = false;
    /** @type {any} what is left of an earlier visit's run */
    interrupted = null;
    /** @type {any} */
    #run = null;
    /** Counts those that were opened: one that takes long may be out of date. */
    #opening = 0;
    /** Whether it was to start while the data was still read. */
    #eager = false;
    /** @type {any} whose the run is */
    #carat = null;

    constructor() {
        super();
        model.addEventListener("change", () => {
            if (model.state !== "ready" || model.carat === this.#carat) return;
            const first = this.#carat === null;
            this.#carat = model.carat;
            this.options = defaults();
            if (first) this.#look();
            else if (this.file) this.choose(this.file);
        });
    }

    /** @param {Partial<Tune>} fields */
    #become(fields) {
        Object.assign(this, fields);
        this.dispatchEvent(new Event("change"));
    }

    get running() {
        return this.state === "running";
    }

    /** Seconds until it is through; NaN: not known yet. */
    get left() {
        const last = this.steps.at(-1);
        return last ? last.seconds / (last.step - this.from) * (last.steps - last.step) : NaN;
    }

    /* ---- the data ---- */

    /** Reads a dataset: what is to be seen before it starts.
     * @param {File} file @param {string} [name] of the adapter */
    async choose(file, name) {
        const plain = name ?? file.name.replace(/\.\w+$/, "").replace(/[^\w-]+/g, "-").slice(0, 40);
        this.#become({file, name: plain || "my-adapter", report: null});
        await this.#open({paused: true}, "reading");
    }

    async useExample() {
        const response = await fetch(new URL("./example.jsonl", import.meta.url));
        await this.choose(new File([await response.blob()], "example.jsonl"), "five-facts");
    }

    /** Other settings: the data is looked at anew. @param {Partial<Options>} options */
    async set(options) {
        this.options = {...this.options, ...options};
        if (this.file) await this.#open({paused: true}, "reading");
    }

    /* ---- the run ---- */

    /** @param {object} more options of train() @param {"reading" | "running"} state */
    async #open(more, state) {
        const {file, options: {targets, memory, ...options}} = this, before = this.#run;
        const opening = ++this.#opening;
        this.#run = null;
        this.#eager = false;
        /* What is known of the data stays in view until it is known anew: nothing moves. */
        this.#become({state, error: "", steps: [], evals: [], done: null,
            adapter: null, kept: false, interrupted: null});
        await before?.close().catch(() => {});
        if (opening !== this.#opening) return;
        const run = model.carat.train({...options, data: file, targets: targetSets[targets].targets,
            memory: memory * 1e9, name: this.name, warmup: 2, seed: 1, ...keeping, ...more});
        this.#run = run;
        this.#follow(run);
    }

    /** @param {any} run */
    async #follow(run) {
        try {
            for await (const part of run) {
                if (run !== this.#run) return;
                await this.#take(part);
            }
        } catch (error) {
            if (run !== this.#run) return;
            this.#run = null;
            this.#become({state: "empty", report: null, error: explain(error)});
            model.replaceBroken(error);
        }
    }

    /** @param {any} part */
    async #take(part) {
        if (part.type === "report") {
            const state = this.state === "reading" ? "ready" : this.state;
            this.#become({report: part.report, sample: part.sample, from: part.step, state});
            if (this.#eager) await this.start();
        } else if (part.type === "step" || part.type === "eval") {
            (part.type === "step" ? this.steps : this.evals).push(part);
            this.dispatchEvent(new Event("step"));
        } else if (part.type === "done") {
            const run = this.#run, adapter = part.step ? await run.adapter(this.name) : null;
            if (run === this.#run) this.#become({state: adapter ? "done" : "ready", done: part,
                adapter});
        }
    }

    async start() {
        this.#eager = this.state === "reading"; // then it starts when that is over
        if (this.state !== "ready") return;
        const {file, name, options} = this;
        this.#become({state: "running"});
        await history.putMedium(/** @type {any} */ ({id: saved, file, name, options,
            model: model.name})).catch(() => {});
        await this.#run.resume();
    }

    async pause() {
        this.#become({state: "paused"});
        await this.#run.pause();
    }

    async resume() {
        this.#become({state: "running"});
        await this.#run.resume();
    }

    stop() {
        this.#run?.stop();
    }

    /* ---- a run of an earlier visit ---- */

    async #look() {
        const record = await history.medium(saved).catch(() => null);
        const list = record ? await Carat.checkpoints.list().catch(() => []) : [];
        const there = list.find(({name}) => name === saved);
        if (record && there && this.state === "empty")
            this.#become({interrupted: {...record, modified: there.modified}});
    }

    async goOn() {
        const {file, name, options} = this.interrupted;
        this.#become({file, name, options});
        await this.#open({resume: true}, "running");
    }

    async discard() {
        const run = this.#run;
        this.#run = null;
        this.#opening++;
        await run?.close().catch(() => {});
        await this.#clear();
        this.#become({state: "empty", file: null, report: null, adapter: null, interrupted: null,
            error: ""});
    }

    async #clear() {
        await Promise.all([history.removeMedium(saved), Carat.checkpoints.delete(saved)])
            .catch(() => {}); // there may be none
    }

    /* ---- the outcome ---- */

    /** The same question without the adapter and with it.
     * @param {string} question @param {(which: "without" | "with", text: string) => void} tell */
    async compare(question, tell) {
        const {carat} = model;
        try {
            for (const which of /** @type {const} */ (["without", "with"])) {
                await carat.setAdapters(which === "with" ? [this.adapter] : []);
                const answer = carat.chat({messages: [{role: "user", content: question}],
                    temperature: 0, maxTokens: 200});
                let text = "";
                for await (const part of answer)
                    if (part.type === "text") tell(which, text += part.text);
            }
        } finally {
            await adapters.apply();
        }
    }

    /** @param {string} name */
    async keep(name) {
        await adapters.keep(this.adapter, name);
        await this.#clear();
        this.#become({kept: true, name});
    }

    /** @param {"gguf" | "peft"} format @returns {Promise<File[]>} */
    files(format) {
        return this.adapter.export(format);
    }
}

export const tune = new Tune();
