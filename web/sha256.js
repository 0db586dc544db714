// sha256: the digest of a stream of any length, whose state can be put away and taken up again.
//
// crypto.subtle only digests what is whole in memory; a model is not. Flow: transfer.js feeds it.
// @ts-check

/** The first 32 bits of the fractional parts of `root` of the first `n` primes (FIPS 180-4). */
function fractions(/** @type {number} */ n, /** @type {(x: number) => number} */ root) {
    const words = new Int32Array(n);
    for (let found = 0, candidate = 2; found < n; candidate++) {
        let divisor = 2;
        while (divisor * divisor <= candidate && candidate % divisor !== 0) divisor++;
        if (divisor * divisor > candidate)
            words[found++] = Math.floor((root(candidate) % 1) * 2 ** 32);
    }
    return words;
}

const START = fractions(8, Math.sqrt);
const ROUND = fractions(64, Math.cbrt);

export class Sha256 {
    #state = START.slice();
    #schedule = new Int32Array(64);
    #block = new Uint8Array(64);
    #length = 0;

    /** The state after so many whole blocks, as toJSON() gave it.
     * @param {{length: number, state: number[]}} [from] */
    constructor(from) {
        if (!from) return;
        this.#length = from.length;
        this.#state.set(from.state);
    }

    /** Only after a multiple of 64 bytes: what waits for its block is not part of it. */
    toJSON() {
        if (this.#length % 64 !== 0) throw new RangeError("sha256: not at a block's end");
        return {length: this.#length, state: Array.from(this.#state)};
    }

    /** @param {Uint8Array} bytes */
    update(bytes) {
        const waiting = this.#length % 64;
        this.#length += bytes.length;
        let at = 0;
        if (waiting > 0) {
            at = Math.min(64 - waiting, bytes.length);
            this.#block.set(bytes.subarray(0, at), waiting);
            if (waiting + at < 64) return;
            this.#blocks(this.#block, 0, 64);
        }
        const whole = at + Math.floor((bytes.length - at) / 64) * 64;
        this.#blocks(bytes, at, whole);
        this.#block.set(bytes.subarray(whole));
    }

    /** Ends it: 64 hex digits. */
    hex() {
        const length = this.#length;
        const padding = new Uint8Array(length % 64 < 56 ? 64 - length % 64 : 128 - length % 64);
        const view = new DataView(padding.buffer);
        padding[0] = 0x80;
        view.setUint32(padding.length - 8, Math.floor(length / 2 ** 29));
        view.setUint32(padding.length - 4, (length * 8) % 2 ** 32);
        this.update(padding);
        return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
    }

    #blocks(/** @type {Uint8Array} */ bytes, /** @type {number} */ from, /** @type {number} */ end) {
        const state = this.#state;
        const w = this.#schedule;
        let [a0, b0, c0, d0, e0, f0, g0, h0] = state;
        for (let at = from; at < end; at += 64) {
            for (let i = 0, p = at; i < 16; i++, p += 4)
                w[i] = bytes[p] << 24 | bytes[p + 1] << 16 | bytes[p + 2] << 8 | bytes[p + 3];
            for (let i = 16; i < 64; i++) {
                const x = w[i - 15];
                const y = w[i - 2];
                const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
                const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;
                w[i] = w[i - 16] + s0 + w[i - 7] + s1 | 0;
            }
            let a = a0, b = b0, c = c0, d = d0, e = e0, f = f0, g = g0, h = h0;
            for (let i = 0; i < 64; i++) {
                const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
                const t1 = h + s1 + (g ^ e & (f ^ g)) + ROUND[i] + w[i] | 0;
                const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
                const t2 = s0 + (a & b | c & (a | b)) | 0;
                h = g; g = f; f = e; e = d + t1 | 0;
                d = c; c = b; b = a; a = t1 + t2 | 0;
            }
            a0 = a0 + a | 0; b0 = b0 + b | 0; c0 = c0 + c | 0; d0 = d0 + d | 0;
            e0 = e0 + e | 0; f0 = f0 + f | 0; g0 = g0 + g | 0; h0 = h0 + h | 0;
        }
        state.set([a0, b0, c0, d0, e0, f0, g0, h0]);
    }
}
