// @ts-check
/* progress: how far something long is, seldom enough to be shown. Owns the rate, which is that of
 * the last seconds.
 *
 * Flow: worker.js reports to it; what it passes on is posted to the page. */

/** @typedef {import("./carat.js").Progress} Progress */

/** How often it is told, and over how long a rate is measured. */
const EVERY_MS = 100, WINDOW_MS = 3000;

export class Meter {
    #tell;
    #phase = "";
    #told = -Infinity;
    /** @type {{at: number, done: number}[]} */
    #samples = [];

    /** @param {(progress: Progress) => void} tell */
    constructor(tell) {
        this.#tell = tell;
    }

    /** The first and the last report of a phase are always told.
     * @param {Progress["phase"]} phase @param {number} done @param {number} total */
    report(phase, done, total) {
        const now = performance.now();
        const last = this.#samples[this.#samples.length - 1];
        /* What starts over has no rate below nothing. */
        if (phase !== this.#phase || done < last?.done) {
            this.#phase = phase;
            this.#samples = [];
            this.#told = -Infinity;
        }
        if (done < total && now - this.#told < EVERY_MS) return;
        this.#told = now;
        this.#samples.push({at: now, done});
        while (this.#samples.length > 2 && now - this.#samples[1].at > WINDOW_MS)
            this.#samples.shift();
        const [first] = this.#samples, ms = now - first.at;
        this.#tell({phase, done, total, rate: ms > 0 ? (done - first.done) / ms * 1000 : 0});
    }
}
