// @ts-check
/* remote: the page's end of a worker. Owns the worker and the calls that are on their way to it;
 * gives each call its progress, its parts and its end, and every call an end when the worker dies.
 *
 * The messages. To the worker: {id, op, args} and {cancel: id}. From it: {id, progress},
 * {id, part}, {id, value} or {id, error}, which end the call, {notice}, {device}, and {fatal},
 * after which the worker is of no use any more.
 *
 * Flow: carat.js calls; worker.js answers. */
import {CaratError} from "./errors.js";

/** @typedef {import("./carat.js").Progress} Progress */
/** @typedef {import("./carat.js").DeviceInfo} DeviceInfo */
/** @typedef {{code: string, message: string}} Fault */
/** @typedef {{onProgress?: (progress: Progress) => void, onPart?: (part: any) => void,
 *     signal?: AbortSignal}} Handlers */
/** @typedef {Handlers & {resolve: (value: any) => void, reject: (error: unknown) => void,
 *     unlisten: () => void}} Call */

/** How long the worker may take to put its files and its device away. */
const CLOSE_MS = 2000;

/** @param {string | URL | undefined} base */
function startWorker(base) {
    /* Bundlers look for exactly this expression. */
    if (base === undefined)
        return new Worker(new URL("./worker.js", import.meta.url), {type: "module"});
    const url = new URL("worker.js", absolute(`${base}`.replace(/\/?$/, "/")));
    try {
        return new Worker(url, {type: "module"});
    } catch (error) {
        throw new CaratError("argument", `${url} cannot be carat's worker: ${error}`);
    }
}

/** @param {string | URL} url relative to the page */
export function absolute(url) {
    try {
        return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
        throw new CaratError("argument", `${url} is not a URL`);
    }
}

/** A listener's own fault must not look like one of carat's, nor stop the answer.
 * @template T @param {((value: T) => void) | undefined} listener @param {T} value */
function tell(listener, value) {
    try {
        listener?.(value);
    } catch (error) {
        reportError(error);
    }
}

export class Remote {
    #worker;
    /** @type {Map<number, Call>} */
    #calls = new Map();
    #lastId = 0;
    /** @type {CaratError | null} why no more calls are possible */
    #ended = null;
    /** @type {Promise<void>} for those who close it again */
    #closed = Promise.resolve();
    /** @type {((notice: string) => void) | undefined} */
    onNotice;
    /** @type {((device: DeviceInfo) => void) | undefined} */
    onDevice;

    /** @param {string | URL | undefined} base where worker.js is, when not beside this file */
    constructor(base) {
        this.#worker = startWorker(base);
        this.#worker.onmessage = ({data}) => this.#receive(data);
        this.#worker.onmessageerror = () => this.#end(new CaratError("internal",
            "a message of carat's worker could not be read"));
        this.#worker.onerror = (event) => {
            event.preventDefault();
            this.#end(new CaratError("internal", event.message
                ? `carat's worker failed: ${event.message}`
                : "carat's worker could not be started: worker.js has to be beside carat.js, " +
                  "on the page's own origin, and the page's CSP has to allow it"));
        };
    }

    /** @param {string} op @param {object} args @param {Handlers} [handlers]
     * @returns {{id: number, done: Promise<any>, cancel: () => void}} */
    start(op, args, handlers = {}) {
        const id = ++this.#lastId;
        const cancel = () => {
            if (this.#calls.has(id)) this.#worker.postMessage({cancel: id});
        };
        const done = new Promise((resolve, reject) => {
            if (this.#ended) return reject(this.#ended);
            const {signal} = handlers;
            try {
                this.#worker.postMessage({id, op, args});
            } catch (error) {
                return reject(new CaratError("argument", `${op}: ${error}`));
            }
            const unlisten = () => signal?.removeEventListener("abort", cancel);
            this.#calls.set(id, {...handlers, resolve, reject, unlisten});
            if (signal?.aborted) cancel();
            else signal?.addEventListener("abort", cancel);
        });
        return {id, done, cancel};
    }

    /** @param {string} op @param {object} args @param {Handlers} [handlers] */
    call(op, args, handlers) {
        return this.start(op, args, handlers).done;
    }

    /** Rejects what is on its way and ends the worker.
     * @param {CaratError} [why] */
    close(why = new CaratError("closed", "carat was closed")) {
        if (!this.#ended) this.#closed = this.#putAway(why);
        return this.#closed;
    }

    /** @param {CaratError} why */
    async #putAway(why) {
        const worker = this.#worker;
        const put = new Promise((resolve) => {
            worker.onmessage = ({data}) => data.closed && resolve(undefined);
            setTimeout(resolve, CLOSE_MS);
        });
        worker.postMessage({close: true});
        this.#reject(why);
        await put;
        worker.terminate();
    }

    /** @param {CaratError} why */
    #reject(why) {
        this.#ended = why;
        for (const call of this.#calls.values()) {
            call.unlisten();
            call.reject(why);
        }
        this.#calls.clear();
    }

    /** @param {CaratError} why */
    #end(why) {
        if (this.#ended) return;
        this.#reject(why);
        this.#worker.terminate();
    }

    /** @param {any} message */
    #receive(message) {
        if (message.fatal) return this.#end(errorOf(message.fatal));
        if (message.notice) return tell(this.onNotice, message.notice);
        if (message.device) return tell(this.onDevice, message.device);
        const call = this.#calls.get(message.id);
        if (!call) return;
        if (message.progress) return tell(call.onProgress, message.progress);
        if (message.part) return call.onPart?.(message.part);
        this.#calls.delete(message.id);
        call.unlisten();
        if (message.error) call.reject(errorOf(message.error));
        else call.resolve(message.value);
    }
}

/** @param {Fault} fault */
function errorOf(fault) {
    return new CaratError(fault.code, fault.message);
}
