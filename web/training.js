// @ts-check
/* training: a training run as a page holds it: its parts, and what can be asked of it meanwhile.
 * The run itself is in the worker.
 *
 * Flow: carat.js makes one for each train(); request.js checks the options, trainer.js is the
 * other end. */
import {Adapter} from "./adapter.js";
import {Parts} from "./answer.js";

/** @typedef {import("./carat.js").Training} Interface */
/** @typedef {import("./carat.js").TrainPart} TrainPart */
/** @typedef {import("./remote.js").Remote} Remote */

/** @implements {Interface} @extends {Parts<TrainPart>} */
export class Training extends Parts {
    #remote;
    #name;
    /** The number of the call, which is the run's. @type {Promise<number>} */
    #id;

    /** @param {Remote} remote @param {string} name of its adapter @param {() => void} stop
     * @param {Promise<number>} id */
    constructor(remote, name, stop, id) {
        super(stop, "done");
        this.#remote = remote;
        this.#name = name;
        this.#id = id;
        id.catch(() => {});
    }

    /** @param {string} op @param {object} [args] */
    async #call(op, args = {}) {
        return this.#remote.call(op, {run: await this.#id, ...args});
    }

    /** @returns {Promise<Extract<TrainPart, {type: "done"}>>} */
    async result() {
        return /** @type {any} */ ((await this.all()).at(-1));
    }

    pause() {
        return this.#call("pauseTraining");
    }

    resume() {
        return this.#call("resumeTraining");
    }

    /** @param {string} name */
    checkpoint(name) {
        return this.#call("saveCheckpoint", {name});
    }

    /** @param {number} i */
    sample(i) {
        return this.#call("trainingSample", {i});
    }

    async adapter(name = this.#name) {
        return new Adapter(this.#remote, name, await this.#call("trainingAdapter"));
    }

    /** @param {"gguf" | "peft"} [format] */
    async export(format) {
        const adapter = await this.adapter();
        try {
            return await adapter.export(format);
        } finally {
            await adapter.close();
        }
    }

    async close() {
        this.stop();
        const begun = await this.#id.then(() => true, () => false);
        if (begun) await this.#call("closeTraining");
    }
}
