// part: what is stored of one file, and whether it still is what was stored.
//
// Owns the bytes on disk, their digests by chunk, the digest of the whole, and the record that
// lets a later run go on. Does not know where bytes come from: transfer.js brings them, which
// comes after it in the flow; opfs.js before.
// @ts-check
import {CaratError} from "./errors.js";
import {aborted, bytes} from "./opfs.js";
import {Sha256} from "./sha256.js";

/** @typedef {import("./opfs.js").ModelRecord} ModelRecord */

/**
 * The part of FileSystemSyncAccessHandle that is used.
 * @typedef {object} SyncFile
 * @property {() => number} getSize
 * @property {(to: Uint8Array, options: {at: number}) => number} read
 * @property {(from: Uint8Array, options: {at: number}) => number} write
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 */

/** Bytes to fetch: a chunk that was damaged, or all from the last stored byte on (chunk null; end
 * null while the size is not known).
 * @typedef {{at: number, end: number | null, chunk: number | null}} Gap */

/**
 * @typedef {object} PartOptions
 * @property {string} [sha256] expected of the whole file
 * @property {AbortSignal} [signal]
 * @property {(record: ModelRecord) => Promise<void>} save
 * @property {(notice: string) => void} [onNotice]
 */

/** How often the record is written, in milliseconds: what a closed tab loses at most. */
const SAVE_EVERY = 1000;

/** What is given up for the record of the rest when the storage is full. */
const RECORD_ROOM = 256 * 2 ** 10;

export class Part {
    /** @type {ModelRecord} */ record;
    /** @type {SyncFile} */ #file;
    /** @type {PartOptions} */ #options;
    /** @type {Set<number>} chunks whose bytes are no longer those of their digests */
    #bad = new Set();
    /** Bytes of the first of them that were fetched again. */
    #mended = 0;
    #chunk = new Uint8Array(0);
    #saved = 0;

    /** @param {SyncFile} file @param {ModelRecord} record @param {PartOptions} options */
    constructor(file, record, options) {
        this.#file = file;
        this.record = record;
        this.#options = options;
    }

    /** Bytes that need not be fetched any more. */
    get done() {
        const {chunkBytes, stored} = this.record;
        let missing = 0;
        for (const i of this.#bad) missing += Math.min(chunkBytes, stored - i * chunkBytes);
        return stored - missing + this.#mended;
    }

    /** What to fetch next; null when all is there. @returns {Gap | null} */
    gap() {
        const {chunkBytes, size, stored} = this.record;
        for (const chunk of this.#bad)
            return {chunk, at: chunk * chunkBytes, end: Math.min((chunk + 1) * chunkBytes, stored)};
        return stored === size ? null : {chunk: null, at: stored, end: size};
    }

    /** Compares what is stored with the record, and takes note of what is lost.
     * @param {(done: number, total: number) => void} report */
    async verify(report) {
        const {record} = this;
        const {chunks, chunkBytes} = record;
        const size = this.#file.getSize();
        if (size < record.stored) {
            this.notice(`${bytes(record.stored - size)} are missing at its end`);
            record.complete = false;
        }
        this.#cut(Math.min(size, record.stored));
        for (let i = 0; i < chunks.length; i++) {
            this.#stopIfAborted();
            report(i * chunkBytes, record.stored);
            if (await this.#digest(i) !== chunks[i]) this.#bad.add(i);
        }
        if (chunks.length > 0) report(record.stored, record.stored);
        if (this.#bad.size === 0) return;
        record.complete = false;
        this.notice(`${this.#bad.size} of ${chunks.length} stored pieces were damaged and are ` +
            "fetched again");
    }

    /** Forgets everything that is stored. @param {string} why */
    startOver(why) {
        this.notice(`${why}: starting over`);
        this.#file.truncate(0);
        this.#bad.clear();
        this.#mended = 0;
        Object.assign(this.record, {etag: null, modified: null, size: null, sha256: null,
            chunks: [], stored: 0, hash: null, complete: false});
    }

    /** Stores bytes of a gap, and what they complete.
     * @param {Uint8Array} piece @param {number} at @param {Gap} gap */
    async put(piece, at, {chunk, end}) {
        const {chunkBytes} = this.record;
        for (let rest = piece; rest.length > 0;) {
            const part = rest.subarray(0, chunkBytes - at % chunkBytes);
            this.#write(part, at);
            rest = rest.subarray(part.length);
            at += part.length;
            if (chunk === null) this.record.stored = at;
            else this.#mended = at - chunk * chunkBytes;
            if (at % chunkBytes === 0 || (chunk !== null && at === end))
                await this.#closeChunk(Math.ceil(at / chunkBytes) - 1);
        }
        if (Date.now() - this.#saved >= SAVE_EVERY) await this.save();
    }

    /** All bytes are there: checks the digest of the whole, if one was asked for, and marks the
     * file as complete. @param {(done: number, total: number) => void} report */
    async finish(report) {
        const {record} = this;
        const {sha256} = this.#options;
        if (record.stored === 0) throw new CaratError("format", `${record.url}: is empty`);
        const last = Math.ceil(record.stored / record.chunkBytes);
        while (record.chunks.length < last) await this.#closeChunk(record.chunks.length);
        if (sha256) {
            const found = await this.#whole(last, report);
            if (found !== sha256) throw this.#unexpected(found, sha256);
            Object.assign(record, {sha256, wanted: sha256});
        }
        record.complete = true;
        await this.save();
    }

    /** Puts what is stored, and the record of it, safely on disk. */
    async save() {
        this.#saved = Date.now();
        try {
            this.#file.flush();
            await this.#options.save(this.record);
        } catch (cause) {
            throw this.#writeError(cause);
        }
    }

    /** After an error: keeps what is stored. Where even the record finds no room, a little less. */
    async keep() {
        const {stored} = this.record;
        try {
            this.#cut(stored);
            await this.save();
        } catch {
            this.#cut(Math.max(0, stored - RECORD_ROOM));
            await this.save();
        }
    }

    /** Whether the browser lets the file grow to this size. @param {number} size */
    fits(size) {
        try {
            this.#file.truncate(size);
            // Chromium says no by doing nothing.
            return this.#file.getSize() === size;
        } catch {
            return false;
        } finally {
            this.#file.truncate(this.record.stored);
        }
    }

    /** @param {string} text */
    notice(text) {
        this.#options.onNotice?.(`${this.record.name}: ${text}`);
    }

    /* ---- chunks ---- */

    /** Reads a chunk back from the file. @param {number} i */
    #read(i) {
        const {chunkBytes, name, stored} = this.record;
        if (this.#chunk.length !== chunkBytes) this.#chunk = new Uint8Array(chunkBytes);
        const at = i * chunkBytes;
        const part = this.#chunk.subarray(0, Math.min(chunkBytes, stored - at));
        if (this.#file.read(part, {at}) === part.length) return part;
        throw new CaratError("io", `${name}: cannot be read back at byte ${at}`);
    }

    /** @param {number} i */
    async #digest(i) {
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", this.#read(i)));
        return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    }

    /** A chunk has all its bytes. @param {number} i */
    async #closeChunk(i) {
        const digest = await this.#digest(i);
        const {chunks} = this.record;
        if (this.#bad.has(i) && digest !== chunks[i])
            return this.startOver("the file on the server is another one now");
        this.#bad.delete(i);
        this.#mended = 0;
        chunks[i] = digest;
        this.#hash(i);
    }

    /** Takes a whole chunk into the digest of the file, if it is its turn. @param {number} i */
    #hash(i) {
        const {chunkBytes, hash, stored} = this.record;
        if ((i + 1) * chunkBytes > stored || (hash?.length ?? 0) !== i * chunkBytes) return;
        if (!this.#options.sha256) return;
        const next = new Sha256(hash ?? undefined);
        next.update(this.#read(i));
        this.record.hash = next.toJSON();
    }

    /** The sha256 of the whole file.
     * @param {number} chunks @param {(done: number, total: number) => void} report */
    async #whole(chunks, report) {
        const {chunkBytes, hash, stored} = this.record;
        const whole = new Sha256(hash ?? undefined);
        for (let i = (hash?.length ?? 0) / chunkBytes; i < chunks; i++) {
            report(i * chunkBytes, stored);
            whole.update(this.#read(i));
            // Lets a message with an abort in.
            await new Promise((resolve) => setTimeout(resolve));
            this.#stopIfAborted();
        }
        report(stored, stored);
        return whole.hex();
    }

    /** What was whole before stays; what has just come from the server does not.
     * @param {string} found @param {string} wanted */
    #unexpected(found, wanted) {
        const {name, url, complete} = this.record;
        if (complete) this.record.sha256 = found;
        else this.startOver("the file on the server is not the expected one");
        const kept = complete ? "delete it to download it anew" : "it was not kept";
        return new CaratError("format", `${name}: the file from ${url} has the sha256 ${
            found}, but ${wanted} was expected; ${kept}`);
    }

    /* ---- writing ---- */

    /** Keeps the first bytes only. @param {number} size */
    #cut(size) {
        const {record} = this;
        const {chunks, chunkBytes, hash} = record;
        if (size < record.stored) {
            record.stored = size;
            chunks.length = Math.min(chunks.length, Math.floor(size / chunkBytes));
            if (hash && hash.length > size) record.hash = null;
            for (const i of this.#bad) if (i >= chunks.length) this.#bad.delete(i);
        }
        if (this.#file.getSize() !== size) this.#file.truncate(size);
    }

    /** @param {Uint8Array} part @param {number} at */
    #write(part, at) {
        let written = 0;
        try {
            written = this.#file.write(part, {at});
        } catch (cause) {
            throw this.#writeError(cause);
        }
        // Fewer bytes than given: the disk is full.
        if (written !== part.length) throw this.#writeError({name: "QuotaExceededError"});
    }

    /** @param {any} cause */
    #writeError(cause) {
        const {name, stored} = this.record;
        if (cause.name === "QuotaExceededError")
            return new CaratError("quota", `${name}: the browser's storage is full after ${
                bytes(stored)}, which are kept; delete something and try again`);
        return new CaratError("io", `${name}: cannot be written: ${cause.message}`);
    }

    #stopIfAborted() {
        if (this.#options.signal?.aborted) throw aborted(this.record.name);
    }
}
