// sha256: the digest of a stream of any length, whose state can be put away and taken up again.
//
// crypto.subtle only digests what is whole in memory; a model is not. Flow: part.js feeds it.
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
        const words = Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0"));
        return words.join("");
    }

    /** @param {Uint8Array} bytes @param {number} from @param {number} end */
    #blocks(bytes, from, end) {
        const state = this.#state;
        const w = this.#schedule;
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        for (let at = from; at < end; at += 64) {
            for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + i * 4);
            for (let i = 16; i < 64; i++)
                w[i] = w[i - 16] + small0(w[i - 15]) + w[i - 7] + small1(w[i - 2]) | 0;
            let a = state[0], b = state[1], c = state[2], d = state[3];
            let e = state[4], f = state[5], g = state[6], h = state[7];
            // Four rounds at a time, in which the variables change places instead of their
            // contents: three times as fast as round by round.
            for (let i = 0; i < 64; i += 4) {
                h = h + big1(e) + choose(e, f, g) + ROUND[i] + w[i] | 0;
                d = d + h | 0;
                h = h + big0(a) + majority(a, b, c) | 0;
                g = g + big1(d) + choose(d, e, f) + ROUND[i + 1] + w[i + 1] | 0;
                c = c + g | 0;
                g = g + big0(h) + majority(h, a, b) | 0;
                f = f + big1(c) + choose(c, d, e) + ROUND[i + 2] + w[i + 2] | 0;
                b = b + f | 0;
                f = f + big0(g) + majority(g, h, a) | 0;
                e = e + big1(b) + choose(b, c, d) + ROUND[i + 3] + w[i + 3] | 0;
                a = a + e | 0;
                e = e + big0(f) + majority(f, g, h) | 0;
                let swap = a; a = e; e = swap;
                swap = b; b = f; f = swap;
                swap = c; c = g; g = swap;
                swap = d; d = h; h = swap;
            }
            state[0] += a; state[1] += b; state[2] += c; state[3] += d;
            state[4] += e; state[5] += f; state[6] += g; state[7] += h;
        }
    }
}

/* The functions of FIPS 180-4, section 4.1.2. */

/** @param {number} x */
const big0 = (x) => (x >>> 2 | x << 30) ^ (x >>> 13 | x << 19) ^ (x >>> 22 | x << 10);
/** @param {number} x */
const big1 = (x) => (x >>> 6 | x << 26) ^ (x >>> 11 | x << 21) ^ (x >>> 25 | x << 7);
/** @param {number} x */
const small0 = (x) => (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
/** @param {number} x */
const small1 = (x) => (x >>> 17 | x << 15) ^ (x >>> 19 | x << 13) ^ x >>> 10;
/** @param {number} x @param {number} y @param {number} z */
const choose = (x, y, z) => z ^ x & (y ^ z);
/** @param {number} x @param {number} y @param {number} z */
const majority = (x, y, z) => x & y | z & (x | y);
