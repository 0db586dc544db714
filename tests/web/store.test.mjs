// The model store's arithmetic, without a browser: digests of streams, names, and downloads of more
// than 4 GB into a file that only exists as a few pieces.

import assert from "node:assert/strict";
import { createHash, webcrypto } from "node:crypto";
import { test } from "node:test";
import { bytes, nameOf, storedName } from "../../web/opfs.js";
import { download, list, persist, remove, storage } from "../../web/store.js";
import { Sha256 } from "../../web/sha256.js";
import { Transfer } from "../../web/transfer.js";

globalThis.crypto ??= webcrypto;

const digestOf = (data) => createHash("sha256").update(data).digest("hex");

/* ---- sha256 ---- */

test("sha256 of any length, in any pieces", () => {
    const all = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7 + 3) % 251));
    for (const size of [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 999]) {
        for (const step of [1, 7, 63, 64, 65, 1000]) {
            const hash = new Sha256();
            for (let at = 0; at < size; at += step)
                hash.update(all.subarray(at, Math.min(at + step, size)));
            assert.equal(hash.hex(), digestOf(all.subarray(0, size)), `${size} by ${step}`);
        }
    }
});

test("sha256 goes on from a state that was put away", () => {
    const all = Buffer.alloc(320, 9);
    const first = new Sha256();
    first.update(all.subarray(0, 128));
    const second = new Sha256(JSON.parse(JSON.stringify(first)));
    second.update(all.subarray(128));
    assert.equal(second.hex(), digestOf(all));
    first.update(all.subarray(0, 1));
    assert.throws(() => JSON.stringify(first), RangeError);
});

test("sha256 knows lengths of more than 512 MB", () => {
    // The state after so many bytes is made up; the length in the padding is what is compared.
    const state = Array.from({ length: 8 }, (_, i) => i);
    const hexOf = (length) => new Sha256({ length, state }).hex();
    const small = hexOf(64);
    for (const more of [2 ** 29, 2 ** 32, 2 ** 40]) assert.notEqual(hexOf(64 + more), small);
    assert.notEqual(hexOf(2 ** 29), hexOf(2 ** 30));
});

/* ---- names ---- */

test("where a page may store nothing, that is what every call says", async () => {
    const own = Object.getOwnPropertyDescriptor(globalThis, "navigator");
    Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
    try {
        for (const call of [list, storage, persist, () => remove("a"),
            () => download("http://x/a.gguf")])
            await assert.rejects(call, { name: "CaratError", code: "unsupported" });
    } finally {
        if (own) Object.defineProperty(globalThis, "navigator", own);
        else delete globalThis.navigator;
    }
});

test("names that any file system takes", () => {
    for (const [given, plain] of [["a.gguf", "a.gguf"], ["../../a", "_.._a"], ["gemma4:e2b",
        "gemma4_e2b"], [".hidden", "hidden"], ["a\0b\\c", "a_b_c"], ["дом", "дом"],
    ["x".repeat(200), "x".repeat(100)]])
        assert.equal(storedName(given), plain);
    for (const empty of ["", ".", "..", "...", " "])
        assert.throws(() => storedName(empty), { code: "argument" });
    assert.equal(nameOf(new URL("http://x/a/b%20c.gguf?download=1")), "b c.gguf");
    for (const bare of ["http://x/", "http://x/..", "http://x/%2F", "http://x/%"])
        assert.equal(nameOf(new URL(bare)), "model.gguf");
    assert.deepEqual([0, 999, 1000, 123456, 3.2e9].map(bytes),
        ["0 bytes", "999 bytes", "1.0 KB", "123 KB", "3.2 GB"]);
});

/* ---- more than 4 GB ---- */

const GB = 2 ** 30;
const chunkBytes = 2 ** 20;

/** The byte at an offset of the file that the server has. */
const byteAt = (offset) => (offset % 251) ^ (Math.floor(offset / 2 ** 32) * 37) & 255;

function range(from, to) {
    const data = new Uint8Array(to - from);
    for (let i = 0; i < data.length; i++) data[i] = byteAt(from + i);
    return data;
}

/** A file that keeps nothing: it has the server's bytes, or makes up the first of each chunk. */
class FakeFile {
    constructor(size, damaged = -1) {
        Object.assign(this, { size, damaged, written: [] });
    }
    getSize() {
        return this.size;
    }
    truncate(size) {
        this.size = size;
    }
    flush() {}
    write(data, { at }) {
        for (let i = 0; i < data.length; i += 4099)
            assert.equal(data[i], byteAt(at + i), `byte ${at + i}`);
        if (at === this.damaged) this.damaged = -1;
        this.written.push([at, at + data.length]);
        this.size = Math.max(this.size, at + data.length);
        return data.length;
    }
    read(to, { at }) {
        to[0] = byteAt(at) ^ (at === this.damaged ? 1 : 0);
        return to.length;
    }
}

/** A digest of the first byte only, or reading gigabytes would be the test. */
const digestOfFirst = (byte) => byte.toString(16).padStart(2, "0").repeat(32);

/** Serves a file of `size` bytes, each answer cut after `cut` bytes. */
function serve(t, size, cut) {
    const asked = [];
    t.mock.method(globalThis, "fetch", async (url, { headers }) => {
        const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(headers.get("Range"));
        const start = Number(from), end = to ? Number(to) + 1 : size;
        asked.push([start, end]);
        const stop = Math.min(end, start + cut);
        let at = start;
        const body = new ReadableStream({
            pull(controller) {
                const next = Math.min(at + 300007, stop);
                if (at < stop) controller.enqueue(range(at, next));
                else if (stop < end) controller.error(new Error("cut"));
                else controller.close();
                at = next;
            },
        });
        return new Response(body, { status: 206, headers: {
            "Content-Range": `bytes ${start}-${end - 1}/${size}`, "ETag": '"one"' } });
    });
    t.mock.method(crypto.subtle, "digest", async (name, data) =>
        new Uint8Array(32).fill(data[0]).buffer);
    return asked;
}

const url = "http://localhost/big.gguf";
const options = { url, retryDelay: 1, save: async () => {}, free: async () => 100 * GB };

/** What is known of a file that is stored up to a byte. */
function record(stored, size) {
    const whole = Math.floor(stored / chunkBytes);
    return { version: 1, name: "big.gguf", url, etag: '"one"', modified: null, size, wanted: null,
        sha256: null, chunkBytes, stored, hash: null, complete: false,
        chunks: Array.from({ length: whole }, (_, i) => digestOfFirst(byteAt(i * chunkBytes))) };
}

for (const [name, boundary] of [["2 GB", 2 * GB], ["4 GB", 4 * GB], ["32 GB", 32 * GB]]) {
    test(`a download goes on across ${name}, and a piece before it is mended`, async (t) => {
        const size = boundary + 3 * chunkBytes + 12345;
        const stored = boundary - 2 * chunkBytes - 777;
        const damaged = boundary - 5 * chunkBytes;
        const asked = serve(t, size, 1500000);
        const file = new FakeFile(stored, damaged);
        const known = record(stored, size);
        const seen = [];
        await new Transfer(file, known, { ...options, onProgress: (p) => seen.push(p) }).run();
        assert.equal(known.complete, true);
        assert.equal(known.stored, size);
        assert.equal(file.size, size);
        assert.deepEqual(known.chunks, record(size, size).chunks.concat(
            digestOfFirst(byteAt(boundary + 3 * chunkBytes))));
        assert.deepEqual(asked.slice(0, 2), [[damaged, damaged + chunkBytes], [stored, size]]);
        assert.ok(asked.length > 3 && asked.at(-1)[0] > boundary);
        // Every missing byte was written once, in order.
        const tail = file.written.filter(([at]) => at >= stored);
        assert.equal(tail[0][0], stored);
        assert.ok(tail.slice(1).every(([at], i) => at === tail[i][1]));
        assert.equal(tail.at(-1)[1], size);
        assert.deepEqual(seen.at(-1).done, size);
        assert.ok(seen.every(({ done }) => done <= size));
    });
}

test("a file that does not fit is refused with the numbers", async (t) => {
    serve(t, 5 * GB, Infinity);
    const known = { ...record(0, null), etag: null };
    const small = { ...options, free: async () => 3 * GB };
    await assert.rejects(new Transfer(new FakeFile(0), known, small).run(),
        { code: "quota", message: /big\.gguf: needs 5\.4 GB more.*3\.2 GB/ });
});
