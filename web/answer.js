// @ts-check
/* answer: what a chat is given back while it runs. Owns the parts that have arrived, the readers
 * that wait for the next one, and the sum of it all. A training run's parts come in the same way.
 *
 * Parts are kept until the answer is collected: the context bounds how many there can be, so a slow
 * reader loses nothing, and an answer that nobody reads does not hold up the calls behind it.
 *
 * Flow: carat.js makes one for each call and feeds it what worker.js posts; the caller reads it. */

/** @typedef {import("./carat.js").Part} Part */
/** @typedef {import("./carat.js").AnswerResult} AnswerResult */

/** What comes one after the other. @template {{type: string}} T @implements {AsyncIterable<T>} */
export class Parts {
    /** @type {T[]} */
    #parts = [];
    /** @type {(() => void)[]} readers that have seen every part */
    #waiting = [];
    /** @type {{error: unknown} | null} */
    #failed = null;
    #over = false;
    #stop;
    #last;

    /** @param {() => void} stop asks for the end; what has been done, and the last part, still come
     * @param {T["type"]} last type of the last part */
    constructor(stop, last) {
        this.#stop = stop;
        this.#last = last;
    }

    /** @param {T} part */
    add(part) {
        if (this.#over) return;
        this.#parts.push(part);
        if (part.type === this.#last) this.#over = true;
        this.#wake();
    }

    /** Ends it with an error, which readers meet after the parts before it.
     * @param {unknown} error */
    fail(error) {
        if (this.#over) return;
        this.#failed = {error};
        this.#over = true;
        this.#wake();
    }

    stop() {
        if (!this.#over) this.#stop();
    }

    /** All of them, when the last one has come. */
    async all() {
        while (!this.#over) await this.#more();
        if (this.#failed) throw this.#failed.error;
        return this.#parts;
    }

    /** @returns {AsyncIterator<T, undefined>} */
    [Symbol.asyncIterator]() {
        let next = 0, left = false;
        return {
            next: async () => {
                while (!left && next === this.#parts.length && !this.#over) await this.#more();
                if (left) return {value: undefined, done: true};
                if (next < this.#parts.length) return {value: this.#parts[next++], done: false};
                left = true;
                if (this.#failed) throw this.#failed.error;
                return {value: undefined, done: true};
            },
            /* Leaving the loop: the next statement finds the session at rest. */
            return: async () => {
                left = true;
                this.stop();
                while (!this.#over) await this.#more();
                return {value: undefined, done: true};
            },
        };
    }

    /** @returns {Promise<void>} */
    #more() {
        return new Promise((resolve) => this.#waiting.push(resolve));
    }

    #wake() {
        for (const resolve of this.#waiting.splice(0)) resolve();
    }
}

/** @extends {Parts<Part>} */
export class Answer extends Parts {
    /** @param {() => void} stop */
    constructor(stop) {
        super(stop, "usage");
    }

    /** @returns {Promise<AnswerResult>} */
    async result() {
        return sum(await this.all());
    }
}

/** @param {Part[]} parts @returns {AnswerResult} */
function sum(parts) {
    /** @type {AnswerResult} */
    const all = {text: "", thinking: "", toolCalls: [], usage: noUsage(), finishReason: "stop"};
    for (const part of parts) {
        if (part.type === "text") all.text += part.text;
        else if (part.type === "thinking") all.thinking += part.text;
        else if (part.type === "toolCall") all.toolCalls.push(part.toolCall);
        else if (part.type === "usage") {
            all.usage = part.usage;
            all.finishReason = part.finishReason;
        }
        if ("logprobs" in part && part.logprobs)
            (all.logprobs ??= []).push(...part.logprobs);
    }
    return all;
}

/** The usage of an answer that never began. */
export function noUsage() {
    return {promptTokens: 0, cachedTokens: 0, completionTokens: 0, promptSeconds: 0,
        completionSeconds: 0, tokensPerSecond: 0};
}
