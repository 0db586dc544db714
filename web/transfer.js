// transfer: brings one file from a server into a Part, whatever happens on the way.
//
// Owns the requests: ranges, retries, what has changed on the server, progress. Does not know
// files, locks or names. Flow: part.js before, store.js after.
// @ts-check
import {CaratError} from "./errors.js";
import {aborted, bytes} from "./opfs.js";
import {Part} from "./part.js";
import {Meter} from "./progress.js";

/** @typedef {import("./opfs.js").ModelRecord} ModelRecord */
/** @typedef {import("./part.js").Gap} Gap */
/** @typedef {import("./carat.d.ts").Progress} Progress */

/**
 * @typedef {object} RequestOptions
 * @property {string} url
 * @property {Record<string, string>} [headers]
 * @property {number} [size] expected
 * @property {(progress: Progress) => void} [onProgress]
 * @property {() => Promise<number>} free bytes that may still be stored
 * @property {number} [retries] in a row without getting any further
 * @property {number} [retryDelay] milliseconds before the first one; doubles
 * @property {number} [stallSeconds] without a byte, after which a connection counts as lost
 * @typedef {RequestOptions & import("./part.js").PartOptions} TransferOptions
 */

/** The connection or the server failed in a way that may pass. */
class Dropped extends Error {
    constructor(/** @type {string} */ message, wait = 0) {
        super(message);
        this.wait = wait;
    }
}

/** Statuses after which the same request may well succeed. */
const PASSING = [408, 425, 429, 500, 502, 503, 504];

export class Transfer {
    /** @type {Part} */ #part;
    /** @type {ModelRecord} */ #record;
    /** @type {TransferOptions} */ #options;
    /** Whether the server has answered at all. */
    #reached = false;
    /** The size that is known to fit. @type {number | null} */
    #fitting = null;
    #meter;

    /** @param {import("./part.js").SyncFile} file @param {ModelRecord} record
     * @param {TransferOptions} options */
    constructor(file, record, options) {
        this.#part = new Part(file, record, options);
        this.#record = record;
        this.#options = options;
        this.#meter = new Meter(options.onProgress ?? (() => {}));
    }

    /** Ends with a complete file, or throws and leaves what the next run can go on from. */
    async run() {
        const verifying = (/** @type {number} */ done, /** @type {number} */ total) =>
            this.#meter.report("verify", done, total);
        try {
            await this.#part.verify(verifying);
            await this.#fill();
            await this.#part.finish(verifying);
            this.#meter.report("download", this.#part.done, this.#part.done);
        } catch (cause) {
            // The first error is the one to tell.
            await this.#part.keep().catch(() => {});
            throw cause;
        }
    }

    async #fill() {
        const {retryDelay = 500} = this.#options;
        let failures = 0;
        let furthest = 0;
        for (let gap = this.#part.gap(); gap; gap = this.#part.gap()) {
            try {
                await this.#fetch(gap);
            } catch (cause) {
                this.#stopIfAborted();
                if (!(cause instanceof Dropped)) throw cause;
                if (this.#part.done > furthest) failures = 0;
                furthest = Math.max(furthest, this.#part.done);
                if (++failures > this.#patience()) throw this.#gaveUp(cause);
                await this.#sleep(Math.max(cause.wait, retryDelay * 2 ** (failures - 1)));
            }
        }
    }

    /** How many failures in a row are borne; a server that never answered is likely a wrong URL. */
    #patience() {
        const {retries = 6} = this.#options;
        return this.#reached ? retries : Math.min(retries, 2);
    }

    /** @param {Dropped} cause */
    #gaveUp(cause) {
        const {stored, size} = this.#record;
        const kept = stored === 0 ? "nothing is stored yet" : `${bytes(stored)}${
            size ? ` of ${bytes(size)}` : ""} are stored, and trying again goes on from there`;
        return new CaratError("network", `${this.#options.url}: ${cause.message}; ${kept}`);
    }

    /* ---- one request ---- */

    /** @param {Gap} gap */
    async #fetch(gap) {
        const controller = new AbortController();
        const {signal} = this.#options;
        const stop = () => controller.abort();
        signal?.addEventListener("abort", stop);
        try {
            this.#stopIfAborted();
            const response = await this.#soon(controller, this.#request(gap, controller.signal));
            this.#reached = true;
            const body = await this.#accept(response, gap);
            if (body) await this.#take(response, body, controller);
        } finally {
            signal?.removeEventListener("abort", stop);
            controller.abort();
        }
    }

    /** @param {Gap} gap @param {AbortSignal} signal */
    #request({at, end}, signal) {
        const {url} = this.#options;
        const headers = new Headers(this.#options.headers);
        // Asked for from the first byte on: the answer tells whether the server knows ranges,
        // and nothing on the way compresses it.
        headers.set("Range", `bytes=${at}-${end === null ? "" : end - 1}`);
        // To another origin, If-Range would need the server's leave (CORS); there the answer's
        // validators tell the same, one request later.
        const {etag} = this.#record;
        if (at > 0 && etag?.startsWith('"') && new URL(url).origin === globalThis.location?.origin)
            headers.set("If-Range", etag);
        return fetch(url, {headers, signal, cache: "no-store"});
    }

    /** Looks at the head of the answer; gives the gap that its body fills, or null for none.
     * @param {Response} response @param {Gap} gap @returns {Promise<Gap | null>} */
    async #accept(response, gap) {
        this.#refuse(response, gap);
        if (response.status === 416) {
            this.#part.startOver("the file on the server is shorter now");
            return null;
        }
        const {total, last} = this.#extent(response, gap);
        const part = response.status === 206;
        const change = this.#record.stored === 0 ? null : this.#change(response, total) ??
            (part ? null : "the server cannot send a part of the file");
        if (change) this.#part.startOver(change);
        if (change && part) return null;
        await this.#adopt(response, total);
        const {size} = this.#record;
        if (!part) return {at: 0, end: size, chunk: null};
        if (gap.chunk !== null) return gap;
        // Some servers send less than was asked for; the next request goes on from there.
        const end = last === null || size === null ? size : Math.min(last, size);
        return {at: gap.at, end, chunk: null};
    }

    /** Throws for an answer that brings nothing. @param {Response} response @param {Gap} gap */
    #refuse(response, {at}) {
        const {status, statusText} = response;
        const said = `the server answers ${`${status} ${statusText}`.trim()}`;
        if (status === 200 || status === 206 || (status === 416 && at > 0)) return;
        if (PASSING.includes(status)) throw new Dropped(said, retryAfter(response));
        const {url} = this.#options;
        if (status === 416) throw new CaratError("format", `${url}: is empty`);
        const code = status === 404 || status === 410 ? "not-found" : "network";
        throw new CaratError(code, `${url}: ${said}`);
    }

    /** What the answer says of itself: the size of the whole file, and where its body ends.
     * @param {Response} response @param {Gap} gap */
    #extent(response, {at, end}) {
        const header = response.headers.get("Content-Length");
        const length = header === null ? null : Number(header);
        if (response.status === 200) return {total: length, last: length};
        const told = response.headers.get("Content-Range") ?? "";
        const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(told);
        if (range && Number(range[1]) !== at)
            throw new Dropped(`the server sent byte ${range[1]} when asked for byte ${at}`);
        // Content-Range may be hidden from other origins; the length then tells as much.
        const last = range ? Number(range[2]) + 1 : length === null ? null : at + length;
        if (range && range[3] !== "*") return {total: Number(range[3]), last};
        return {total: end === null && !range ? last : this.#record.size, last};
    }

    /** What shows that the server has another file than the one that is stored in part, or null.
     * @param {Response} response @param {number | null} total */
    #change(response, total) {
        const {etag, modified, size, url, wanted} = this.#record;
        const newEtag = response.headers.get("ETag");
        const newModified = response.headers.get("Last-Modified");
        if (url !== this.#options.url) {
            const vouched = wanted !== null && wanted === this.#options.sha256;
            return vouched || (etag && etag === newEtag) ? null
                : "what is stored came from another address";
        }
        if (total !== null && size !== null && total !== size)
            return `the file on the server has ${total} bytes now, not ${size}`;
        const [before, now] = etag && newEtag ? [etag, newEtag] : [modified, newModified];
        return before && now && before !== now ? "the file on the server has changed" : null;
    }

    /** Takes note of the server's file. @param {Response} response @param {number | null} total */
    async #adopt(response, total) {
        const {url, size, sha256} = this.#options;
        const record = this.#record;
        if (size !== undefined && total !== null && total !== size)
            throw new CaratError("format", `${url}: has ${total} bytes, not the ${
                size} that were expected`);
        const first = record.size === null;
        record.url = url;
        record.etag = response.headers.get("ETag");
        record.modified = response.headers.get("Last-Modified");
        record.size = total ?? size ?? null;
        record.wanted = sha256 ?? record.wanted;
        if (record.size !== null && record.size !== this.#fitting)
            await this.#checkQuota(record.size);
        this.#fitting = record.size;
        if (first) await this.#part.save();
    }

    /** @param {number} size */
    async #checkQuota(size) {
        const free = await this.#options.free();
        const need = size - this.#record.stored;
        // Some browsers tell every site the same, so the file itself is asked as well.
        if (need <= free && this.#part.fits(size)) return;
        const only = need > free ? ` (another ${bytes(free)})` : "";
        throw new CaratError("quota", `${this.#record.name}: needs ${bytes(need)} more, and the ` +
            `browser does not let this site store so much${only}; delete other models or free ` +
            "disk space");
    }

    /** Takes the body in.
     * @param {Response} response @param {Gap} gap @param {AbortController} controller */
    async #take(response, gap, controller) {
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        const {end, chunk} = gap;
        for (let at = gap.at; ;) {
            const {done, value} = await this.#soon(controller, reader.read());
            this.#stopIfAborted();
            if (done) return this.#ended(at, end);
            if (end !== null && at + value.length > end && chunk === null)
                throw new CaratError("format", `${this.#options.url}: goes on after its ${
                    end} bytes`);
            const piece = end === null ? value : value.subarray(0, end - at);
            await this.#part.put(piece, at, gap);
            at += piece.length;
            this.#meter.report("download", this.#part.done, this.#record.size ?? 0);
            if (chunk !== null && at === end) return;
        }
    }

    /** The body is over. @param {number} at @param {number | null} end */
    #ended(at, end) {
        if (end === null) this.#record.size = at;
        else if (at < end) throw new Dropped(`the connection ended at byte ${at} of ${end}`);
    }

    /* ---- waiting ---- */

    #stopIfAborted() {
        if (this.#options.signal?.aborted) throw aborted(this.#record.name);
    }

    /** @param {number} milliseconds */
    #sleep(milliseconds) {
        const {signal} = this.#options;
        return new Promise((resolve, reject) => {
            const end = () => {
                clearTimeout(timer);
                signal?.removeEventListener("abort", end);
                if (signal?.aborted) reject(aborted(this.#record.name));
                else resolve(undefined);
            };
            const timer = setTimeout(end, milliseconds);
            signal?.addEventListener("abort", end);
        });
    }

    /** Waits for the network, but not for ever; its failures are Dropped.
     * @template T @param {AbortController} controller @param {Promise<T>} step
     * @returns {Promise<T>} */
    async #soon(controller, step) {
        const {stallSeconds = 30} = this.#options;
        let stalled = false;
        const timer = setTimeout(() => {
            stalled = true;
            controller.abort();
        }, stallSeconds * 1000);
        try {
            return await step;
        } catch (cause) {
            throw new Dropped(stalled ? `nothing came for ${stallSeconds} seconds`
                : `the connection failed (${/** @type {Error} */ (cause).message})`);
        } finally {
            clearTimeout(timer);
        }
    }
}

/** Milliseconds that the server asks to wait, at most half a minute. @param {Response} response */
function retryAfter(response) {
    const seconds = Number(response.headers.get("Retry-After"));
    return seconds > 0 ? Math.min(seconds, 30) * 1000 : 0;
}
