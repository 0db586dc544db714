// faulty: a route that serves one file and misbehaves on demand: cut connections, wrong lengths,
// no ranges, another file than a moment ago, errors, silence.
//
// Used by store.test.mjs with the server of server.mjs. Its fields may be changed at any time.

import { createHash } from "node:crypto";
import { parseRange } from "./server.mjs";

/** Numbers in [0, 1), the same for the same seed. */
export function random(seed) {
    let state = seed >>> 0;
    return () => {
        state = (state + 0x6d2b79f5) >>> 0;
        let t = Math.imul(state ^ (state >>> 15), state | 1);
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
        return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
}

/** So many bytes, the same for the same seed. */
export function noise(size, seed = 1) {
    const next = random(seed);
    const bytes = Buffer.alloc(size);
    for (let i = 0; i < size; i++) bytes[i] = next() * 256;
    return bytes;
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const PIECE = 16 * 1024;
const CUT_DELAY = 50;

export class Faulty {
    /** @param {Buffer} bytes */
    constructor(bytes) {
        this.bytes = bytes;
        this.etag = '"first"';
        this.modified = null;
        this.ranges = true; // false: 200 with the whole file for every request
        this.statuses = []; // answered one after another before anything else
        this.headers = {};
        this.tellLength = true; // false: chunked, without a Content-Length
        this.cutAfter = () => Infinity; // bytes of a body after which the connection is cut
        this.endAfter = Infinity; // bytes of a chunked body after which it ends as if whole
        this.pause = 0; // milliseconds after each 16 KiB
        this.silentAfter = () => Infinity; // bytes of a body after which nothing comes any more
        this.lied = 0; // added to the file's size where it is told
        this.most = Infinity; // bytes of a range that it sends at most
        this.answers = []; // {range, ifRange, status, sent}
        this.route = (req, res) => this.answer(req, res);
    }

    get sha256() {
        return sha256(this.bytes);
    }

    /** Bytes sent so far, all answers together. */
    get sent() {
        return this.answers.reduce((sum, answer) => sum + answer.sent, 0);
    }

    async answer(req, res) {
        const noted = { range: req.headers.range ?? null, ifRange: req.headers["if-range"] ?? null,
            status: this.statuses.shift() ?? 0, sent: 0 };
        this.answers.push(noted);
        res.setHeader("Connection", "close");
        for (const name in this.headers) res.setHeader(name, this.headers[name]);
        if (noted.status) {
            res.writeHead(noted.status).end("no");
            return;
        }
        const { start, end } = this.head(res, noted);
        if (noted.status === 416 || req.method === "HEAD") res.end();
        else await this.send(res, this.bytes.subarray(start, end), noted);
    }

    /** Writes the head; gives the bytes that follow. */
    head(res, noted) {
        const size = this.bytes.length + this.lied;
        const stale = noted.ifRange && noted.ifRange !== this.etag;
        const range = this.ranges && !stale ? parseRange(noted.range, size) : null;
        noted.status = range ? 206 : range === false ? 416 : 200;
        if (this.etag) res.setHeader("ETag", this.etag);
        if (this.modified) res.setHeader("Last-Modified", this.modified);
        const start = range ? range.start : 0;
        const end = range ? Math.min(range.end, start + this.most - 1) : size - 1;
        if (range) res.setHeader("Content-Range", `bytes ${start}-${end}/${size}`);
        if (range !== false && this.tellLength) res.setHeader("Content-Length", end - start + 1);
        res.writeHead(noted.status);
        return { start, end: end + 1 };
    }

    async send(res, body, noted) {
        const cut = this.cutAfter(body.length);
        const silent = this.silentAfter(body.length);
        const stop = Math.min(body.length, cut, silent, this.endAfter);
        const closed = new Promise((done) => res.once("close", done));
        for (let at = 0; at < stop && !res.destroyed; at += PIECE) {
            const piece = body.subarray(at, Math.min(at + PIECE, stop));
            const taken = new Promise((done) => res.write(piece, done));
            await Promise.race([taken, closed]);
            noted.sent += piece.length;
            if (this.pause) await wait(this.pause);
        }
        if (stop === silent) return;
        const whole = stop === body.length && stop < cut && this.lied <= 0;
        if (whole || stop === this.endAfter) {
            res.end();
            return;
        }
        // What a browser has not read yet when the connection breaks, it forgets.
        await wait(CUT_DELAY);
        res.destroy();
    }
}
