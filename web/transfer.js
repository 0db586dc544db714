// transfer: brings one file from a server into an open file, whatever happens on the way.
//
// Owns the requests (ranges, retries, what changed on the server), the digests of the stored
// chunks, and the record that lets the next run go on. Does not open files, take locks or decide
// which model has which name: store.js does, which comes after it in the flow; opfs.js before.
// @ts-check
import {CaratError} from "./errors.js";
import {aborted, bytes} from "./opfs.js";
import {Sha256} from "./sha256.js";

/** @typedef {import("./opfs.js").ModelRecord} ModelRecord */
/** @typedef {import("./carat.d.ts").Progress} Progress */

/**
 * The part of FileSystemSyncAccessHandle that is used.
 * @typedef {object} SyncFile
 * @property {() => number} getSize
 * @property {(to: Uint8Array, options: {at: number}) => number} read
 * @property {(from: Uint8Array, options: {at: number}) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 */

/**
 * @typedef {object} TransferOptions
 * @property {string} url
 * @property {Record<string, string>} [headers]
 * @property {number} [size] expected
 * @property {string} [sha256] expected, 64 hex digits
 * @property {AbortSignal} [signal]
 * @property {(progress: Progress) => void} [onProgress]
 * @property {(notice: string) => void} [onNotice]
 * @property {(record: ModelRecord) => Promise<void>} save
 * @property {() => Promise<number>} free bytes that may still be stored
 * @property {number} [retries] in a row without getting any further
 * @property {number} [retryDelay] milliseconds before the first one; doubles
 * @property {number} [stallSeconds] without a byte, after which a connection counts as lost
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

/** How often the record is written, in milliseconds: what a closed tab loses at most. */
const SAVE_EVERY = 1000;
const REPORT_EVERY = 100;

export class Transfer {
    /** @type {SyncFile} */ #file;
    /** @type {ModelRecord} */ #record;
    /** @type {TransferOptions} */ #options;
    /** @type {Set<number>} chunks whose bytes are no longer those of their digests */
    #bad = new Set();
    /** Bytes of the bad chunk that is being fetched again. */
    #mended = 0;
    #chunk = new Uint8Array(0);
    #saved = 0;
    /** @type {{time: number, done: number}[]} */ #samples = [];

    /** @param {SyncFile} file @param {ModelRecord} record @param {TransferOptions} options */
    constructor(file, record, options) {
        this.#file = file;
        this.#record = record;
        this.#options = options;
    }

    /** Ends with a complete file, or throws and leaves what the next run can go on from. */
    async run() {
        const record = this.#record;
        try {
            await this.#verify();
            await this.#fill();
            await this.#finish();
        } finally {
            if (!record.complete) await this.#save().catch(() => {});
        }
    }

    /* ---- what is stored ---- */

    /** Compares the stored chunks with their digests. */
    async #verify() {
        const {chunks, chunkBytes} = this.#record;
        const size = this.#file.getSize();
        if (size < this.#record.stored) {
            this.#notice(`${bytes(this.#record.stored - size)} are missing at its end`);
            this.#record.complete = false;
            this.#record.stored = size;
            chunks.length = Math.min(chunks.length, Math.floor(size / chunkBytes));
        }
        if (size > this.#record.stored) this.#file.truncate(this.#record.stored);
        if ((this.#record.hash?.length ?? 0) > chunks.length * chunkBytes) this.#record.hash = null;
        for (let i = 0; i < chunks.length; i++) {
            this.#stopIfAborted();
            this.#report("verify", i * chunkBytes, this.#record.stored);
            if (await this.#digest(i) !== chunks[i]) this.#bad.add(i);
        }
        if (this.#bad.size === 0) return;
        this.#record.complete = false;
        this.#notice(`${this.#bad.size} of ${chunks.length} stored pieces were damaged and are ` +
            "fetched again");
    }

    /** Reads a chunk back from the file. @param {number} i */
    #read(i) {
        const {chunkBytes, stored} = this.#record;
        if (this.#chunk.length !== chunkBytes) this.#chunk = new Uint8Array(chunkBytes);
        const at = i * chunkBytes;
        const part = this.#chunk.subarray(0, Math.min(chunkBytes, stored - at));
        const got = this.#file.read(part, {at});
        if (got !== part.length)
            throw new CaratError("io", `${this.#record.name}: cannot be read back at byte ${at}.`);
        return part;
    }

    /** @param {number} i */
    async #digest(i) {
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", this.#read(i)));
        return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    }

    /** A chunk has all its bytes. @param {number} i */
    async #closeChunk(i) {
        const digest = await this.#digest(i);
        const {chunks} = this.#record;
        if (this.#bad.has(i) && digest !== chunks[i])
            return this.#startOver("the file on the server is another one now");
        this.#bad.delete(i);
        this.#mended = 0;
        chunks[i] = digest;
        this.#hash(i);
    }

    /** Takes a chunk into the digest of the whole file, if it is its turn. @param {number} i */
    #hash(i) {
        const {chunkBytes, hash, stored} = this.#record;
        const whole = (i + 1) * chunkBytes <= stored;
        if (!this.#options.sha256 || !whole || (hash?.length ?? 0) !== i * chunkBytes) return;
        const next = new Sha256(hash ?? undefined);
        next.update(this.#read(i));
        this.#record.hash = next.toJSON();
    }

    /** @param {string} why */
    #startOver(why) {
        this.#notice(`${why}: starting over`);
        this.#file.truncate(0);
        this.#bad.clear();
        this.#mended = 0;
        this.#samples = [];
        Object.assign(this.#record, {etag: null, modified: null, size: null, sha256: null,
            chunks: [], stored: 0, hash: null, complete: false});
    }

    async #save() {
        this.#file.flush();
        this.#saved = Date.now();
        try {
            await this.#options.save(this.#record);
        } catch (cause) {
            throw this.#writeError(cause);
        }
    }

    /** @param {Uint8Array} part @param {number} at */
    #write(part, at) {
        let written = 0;
        try {
            written = this.#file.write(part, {at});
        } catch (cause) {
            throw this.#writeError(cause);
        }
        if (written !== part.length) throw this.#writeError(null);
    }

    /** @param {unknown} cause */
    #writeError(cause) {
        const {name, stored} = this.#record;
        const error = /** @type {Error | null} */ (cause);
        if (!error || error.name === "QuotaExceededError")
            return new CaratError("quota", `${name}: the browser's storage is full after ${
                bytes(stored)}; they are kept, so delete something and try again.`);
        return new CaratError("io", `${name}: cannot be written: ${error.message}`);
    }

    /* ---- what is missing ---- */

    /** The next bytes to fetch: a damaged chunk, or all from the last stored byte on.
     * @returns {{at: number, end: number | null, chunk: number | null} | null} */
    #gap() {
        const {chunkBytes, size, stored} = this.#record;
        for (const chunk of this.#bad)
            return {chunk, at: chunk * chunkBytes, end: Math.min((chunk + 1) * chunkBytes, stored)};
        return stored === size ? null : {chunk: null, at: stored, end: size};
    }

    async #fill() {
        const {retries = 6, retryDelay = 500} = this.#options;
        let failures = 0;
        let furthest = -1;
        for (let gap = this.#gap(); gap; gap = this.#gap()) {
            const before = this.#done();
            try {
                await this.#fetch(gap);
            } catch (cause) {
                this.#stopIfAborted();
                if (!(cause instanceof Dropped)) throw cause;
                if (Math.max(before, this.#done()) > furthest) failures = 0;
                furthest = Math.max(furthest, this.#done());
                if (++failures > retries) throw this.#gaveUp(cause);
                await this.#sleep(Math.max(cause.wait, retryDelay * 2 ** (failures - 1)));
            }
        }
    }

    /** @param {Dropped} cause */
    #gaveUp(cause) {
        const {stored, size} = this.#record;
        const kept = stored === 0 ? "nothing is stored yet" : `${bytes(stored)}${
            size ? ` of ${bytes(size)}` : ""} are stored, and trying again goes on from there`;
        return new CaratError("network", `${this.#options.url}: ${cause.message}; ${kept}.`);
    }

    /** @param {{at: number, end: number | null, chunk: number | null}} gap */
    async #fetch(gap) {
        const controller = new AbortController();
        const {signal} = this.#options;
        const stop = () => controller.abort();
        signal?.addEventListener("abort", stop);
        try {
            this.#stopIfAborted();
            const response = await this.#soon(controller, this.#request(gap, controller.signal));
            if (await this.#accept(response, gap)) await this.#take(response, gap, controller);
        } finally {
            signal?.removeEventListener("abort", stop);
            controller.abort();
        }
    }

    /** @param {{at: number, end: number | null}} gap @param {AbortSignal} signal */
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

    /** Looks at the answer's head; true when its body is to be taken.
     * @param {Response} response @param {{at: number, end: number | null}} gap */
    async #accept(response, gap) {
        const {url} = this.#options;
        const {status} = response;
        if (PASSING.includes(status))
            throw new Dropped(`the server answers ${head(response)}`, retryAfter(response));
        if (status === 416 && gap.at > 0) {
            this.#startOver("the file on the server is shorter now");
            return false;
        }
        if (status === 404 || status === 410)
            throw new CaratError("not-found", `${url}: the server answers ${head(response)}.`);
        if (status === 416) throw new CaratError("format", `${url}: is empty.`);
        if (status !== 200 && status !== 206)
            throw new CaratError("network", `${url}: the server answers ${head(response)}.`);
        const total = this.#total(response, gap);
        const change = this.#change(response, total);
        if (change && gap.at > 0) {
            this.#startOver(change);
            if (status === 206) return false;
        } else if (status === 200 && gap.at > 0) {
            this.#startOver("the server cannot send a part of the file");
        }
        await this.#adopt(response, total);
        if (status === 200) Object.assign(gap, {at: 0, end: this.#record.size, chunk: null});
        return true;
    }

    /** The size of the whole file, as the answer tells it.
     * @param {Response} response @param {{at: number, end: number | null}} gap */
    #total(response, {at, end}) {
        const header = response.headers.get("Content-Length");
        const length = header === null ? null : Number(header);
        if (response.status === 200) return length;
        const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "");
        if (range && Number(range[1]) !== at)
            throw new Dropped(`the server sent byte ${range[1]} when asked for byte ${at}`);
        if (range && range[2] !== "*") return Number(range[2]);
        // Content-Range may be hidden from other origins; the length then tells as much.
        return end === null && length !== null ? at + length : this.#record.size;
    }

    /** What shows that the server has another file now than the stored part is of, or null.
     * @param {Response} response @param {number | null} total */
    #change(response, total) {
        const {record, options} = {record: this.#record, options: this.#options};
        const etag = response.headers.get("ETag");
        const modified = response.headers.get("Last-Modified");
        const vouched = options.sha256 && record.wanted === options.sha256;
        if (record.url !== options.url && !vouched && (!etag || etag !== record.etag))
            return "what is stored came from another address";
        if (record.url !== options.url) return null;
        if (total !== null && record.size !== null && total !== record.size)
            return `the file on the server has ${total} bytes now, not ${record.size}`;
        if (etag && record.etag ? etag !== record.etag
            : modified && record.modified && modified !== record.modified)
            return "the file on the server has changed";
        return null;
    }

    /** @param {Response} response @param {number | null} total */
    async #adopt(response, total) {
        const {url, size, sha256} = this.#options;
        const record = this.#record;
        if (size !== undefined && total !== null && total !== size)
            throw new CaratError("format", `${url}: has ${total} bytes, but ${size} were expected.`);
        const first = record.size === null;
        record.url = url;
        record.etag = response.headers.get("ETag");
        record.modified = response.headers.get("Last-Modified");
        record.size = total ?? size ?? null;
        record.wanted = sha256 ?? record.wanted;
        if (record.size !== null) await this.#checkQuota(record.size - record.stored);
        if (first) await this.#save();
    }

    /** @param {number} need */
    async #checkQuota(need) {
        const free = await this.#options.free();
        if (need > free)
            throw new CaratError("quota", `${this.#record.name}: needs ${bytes(need)} more, but ` +
                `the browser lets this site store only another ${bytes(free)}.`);
    }

    /** Takes the body in.
     * @param {Response} response @param {{at: number, end: number | null, chunk: number | null}} gap
     * @param {AbortController} controller */
    async #take(response, gap, controller) {
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        const {end, chunk} = gap;
        for (let at = gap.at; ;) {
            const {done, value} = await this.#soon(controller, reader.read());
            this.#stopIfAborted();
            if (done) return this.#ended(at, end);
            if (end !== null && at + value.length > end && chunk === null)
                throw new CaratError("format", `${this.#options.url}: goes on after its ${
                    end} bytes.`);
            at += await this.#put(end === null ? value : value.subarray(0, end - at), at, chunk);
            if (chunk !== null && at === end) return this.#closeChunk(chunk);
        }
    }

    /** Stores a piece, and what it completes.
     * @param {Uint8Array} piece @param {number} at @param {number | null} chunk */
    async #put(piece, at, chunk) {
        const {chunkBytes} = this.#record;
        for (let from = 0; from < piece.length;) {
            const room = chunkBytes - (at + from) % chunkBytes;
            const part = piece.subarray(from, from + room);
            this.#write(part, at + from);
            from += part.length;
            if (chunk !== null) {
                this.#mended = (at + from) - chunk * chunkBytes;
                continue;
            }
            this.#record.stored = at + from;
            if ((at + from) % chunkBytes === 0)
                await this.#closeChunk((at + from) / chunkBytes - 1);
        }
        this.#report("download", this.#done(), this.#record.size ?? 0);
        if (Date.now() - this.#saved >= SAVE_EVERY) await this.#save();
        return piece.length;
    }

    /** The body is over. @param {number} at @param {number | null} end */
    #ended(at, end) {
        if (end === null) this.#record.size = at;
        else if (at < end) throw new Dropped(`the connection ended at byte ${at} of ${end}`);
    }

    /* ---- the end ---- */

    async #finish() {
        const record = this.#record;
        const size = /** @type {number} */ (record.size);
        const last = Math.ceil(size / record.chunkBytes);
        while (record.chunks.length < last) await this.#closeChunk(record.chunks.length);
        if (this.#options.sha256) this.#checkDigest(this.#options.sha256, await this.#whole(last));
        record.complete = true;
        await this.#save();
        this.#report("download", size, size, true);
    }

    /** The sha256 of the whole file. @param {number} chunks */
    async #whole(chunks) {
        const {chunkBytes, stored} = this.#record;
        const hash = new Sha256(this.#record.hash ?? undefined);
        for (let i = (this.#record.hash?.length ?? 0) / chunkBytes; i < chunks; i++) {
            this.#report("verify", i * chunkBytes, stored);
            hash.update(this.#read(i));
            await this.#sleep(0);
        }
        return hash.hex();
    }

    /** @param {string} wanted @param {string} found */
    #checkDigest(wanted, found) {
        const {name} = this.#record;
        if (found !== wanted) {
            this.#startOver("the file on the server is not the expected one");
            throw new CaratError("format", `${name}: the file at ${this.#options.url} has the ` +
                `sha256 ${found}, but ${wanted} was expected; it was not kept.`);
        }
        Object.assign(this.#record, {sha256: found, wanted});
    }

    /* ---- small things ---- */

    #done() {
        const {chunkBytes, stored} = this.#record;
        let missing = 0;
        for (const i of this.#bad) missing += Math.min(chunkBytes, stored - i * chunkBytes);
        return stored - missing + this.#mended;
    }

    /** @param {string} text */
    #notice(text) {
        this.#options.onNotice?.(`${this.#record.name}: ${text}.`);
    }

    /** @param {"download" | "verify"} phase @param {number} done @param {number} total */
    #report(phase, done, total, now = false) {
        const time = Date.now();
        const samples = this.#samples;
        const last = samples[samples.length - 1];
        if (!now && last && time - last.time < REPORT_EVERY) return;
        if (last && done < last.done) samples.length = 0;
        samples.push({time, done});
        while (samples.length > 3000 / REPORT_EVERY) samples.shift();
        const seconds = (time - samples[0].time) / 1000;
        const rate = seconds > 0 ? (done - samples[0].done) / seconds : 0;
        this.#options.onProgress?.({phase, done, total, rate});
    }

    #stopIfAborted() {
        if (this.#options.signal?.aborted) throw aborted(this.#record.name);
    }

    /** @param {number} milliseconds */
    #sleep(milliseconds) {
        const {signal} = this.#options;
        return new Promise((resolve, reject) => {
            const stop = () => {
                clearTimeout(timer);
                reject(aborted(this.#record.name));
            };
            const timer = setTimeout(() => {
                signal?.removeEventListener("abort", stop);
                resolve(undefined);
            }, milliseconds);
            if (signal?.aborted) stop();
            signal?.addEventListener("abort", stop, {once: true});
        });
    }

    /** Waits for the network, but not for ever; its failures are Dropped.
     * @template T @param {AbortController} controller @param {Promise<T>} step @returns {Promise<T>} */
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

/** "404 Not Found" @param {Response} response */
function head(response) {
    return `${response.status} ${response.statusText}`.trim();
}

/** Milliseconds that the server asks to wait, at most half a minute. @param {Response} response */
function retryAfter(response) {
    const seconds = Number(response.headers.get("Retry-After"));
    return seconds > 0 ? Math.min(seconds, 30) * 1000 : 0;
}
