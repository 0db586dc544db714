// The core in wasm through web/engine.js, in node and so on the CPU: golden answers of nano, files,
// sessions, cancelling, damaged models, no memory left, and the size of it all.

import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Engine } from "../../web/engine.js";
import { CaratError } from "../../web/errors.js";
import { Files } from "../../web/wasi.js";

const at = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const wasmPath = at("build/web/carat/carat.wasm");
const skip = !fs.existsSync(wasmPath) && "NO build/web/carat/carat.wasm (make wasm)";
const wasmBytes = skip ? new Uint8Array() : fs.readFileSync(wasmPath);
const nano = fs.readFileSync(at("models/nano.gguf"));
const golden = JSON.parse(fs.readFileSync(at("tests/golden/nano/text.json"), "utf8"));

const KIB = 1024, MIB = 1024 * KIB;

/** A file of Files over bytes. */
const readOnly = (bytes) => ({
    size: bytes.length,
    read: (offset, to) => to.set(bytes.subarray(offset, offset + to.length)),
});

/** A Directory in memory. */
class Folder {
    files = new Map();

    open(name, create) {
        if (!this.files.has(name) && !create) return null;
        if (!this.files.has(name)) this.files.set(name, { bytes: new Uint8Array(0) });
        const file = this.files.get(name);
        return {
            get size() { return file.bytes.length; },
            read: (offset, to) => to.set(file.bytes.subarray(offset, offset + to.length)),
            write: (offset, from) => {
                const bytes = new Uint8Array(Math.max(file.bytes.length, offset + from.length));
                bytes.set(file.bytes);
                bytes.set(from, offset);
                file.bytes = bytes;
            },
            truncate: (n) => { file.bytes = file.bytes.slice(0, n); },
        };
    }

    rename(from, to) {
        this.files.set(to, this.files.get(from));
        this.files.delete(from);
    }

    remove(name) {
        this.files.delete(name);
    }
}

async function create(model = nano, directory = null) {
    const files = new Files(directory);
    files.add("model.gguf", readOnly(model));
    const log = (line) => assert.fail(`the core printed: ${line}`);
    const engine = await Engine.create({ wasm: wasmBytes, files, log });
    engine.openDevice("cpu");
    return { engine, files };
}

/** Runs a job; an answer's text, thinking, calls and ids. */
function run(job, onEvent = () => {}) {
    const got = { text: "", thinking: "", toolCall: "", tokens: [], kinds: new Set() };
    try {
        for (;;) {
            const event = job.advance();
            got.kinds.add(event.kind);
            if (event.kind in got) got[event.kind] += event.text;
            if (event.token >= 0) got.tokens.push(event.token);
            onEvent(event, job);
            if (event.kind === "done")
                return { ...got, finish: event.finish, stats: job.stats() };
        }
    } finally {
        job.free();
    }
}

async function loaded(nCtx = 1024, directory = null) {
    const { engine, files } = await create(nano, directory);
    engine.openModel({ path: "/model.gguf" });
    const { kinds } = run(engine.load());
    assert.ok(kinds.has("progress"));
    engine.createSession(nCtx);
    return { engine, files };
}

/** What fn throws, which must be a CaratError with this code. */
function fails(code, fn) {
    let error = null;
    try {
        fn();
    } catch (e) {
        error = e;
    }
    assert.ok(error instanceof CaratError, `${code}: ${error?.stack ?? "nothing was thrown"}`);
    assert.equal(error.code, code, error.message);
    assert.ok(error.message.length > 5 && !error.message.includes("\n"), error.message);
    return error.message;
}

const ask = (content, more) => ({
    messages: [{ role: "user", content }], temperature: 0, ...more });

test("size, imports and exports", { skip }, async () => {
    assert.ok(wasmBytes.length <= 500_000, `${wasmBytes.length} bytes`);
    const module = await WebAssembly.compile(wasmBytes);
    const functions = WebAssembly.Module.exports(module).filter((e) => e.kind === "function");
    assert.ok(functions.length <= 40, `${functions.length} exports`);
    const modules = new Set(WebAssembly.Module.imports(module).map((i) => i.module));
    assert.deepEqual([...modules].sort(), ["gpu", "wasi_snapshot_preview1"]);
});

test("tokens, prompts and greedy answers equal the golden ones", { skip }, async () => {
    const { engine } = await loaded();
    assert.equal(golden.length, 15);
    for (const c of golden) {
        const { messages, tools, thinking } = c;
        assert.equal(engine.render({ messages, tools, thinking }), c.prompt, c.name);
        assert.deepEqual([...engine.tokenize(c.prompt, true)], c.ids, c.name);
        assert.equal(engine.detokenize(c.ids, true), c.prompt, c.name);
        const got = run(engine.chat({ messages, tools, thinking, temperature: 0, logprobs: true }));
        const end = c.greedy_ids[c.greedy_ids.length - 1];
        assert.equal(got.stats.promptTokens, c.ids.length, c.name);
        assert.equal(got.stats.generatedTokens, c.greedy_ids.length, c.name);
        if (end === 5 && !thinking) {
            assert.deepEqual(got.tokens, c.greedy_ids.slice(0, -1), c.name);
            assert.equal(`${got.text}<turn|>`, c.greedy_text, c.name);
        } else if (thinking) {
            const form = /^<\|channel>thought\n(.*)\n<channel\|>(.*)<turn\|>$/s;
            const [, thought, text] = form.exec(c.greedy_text);
            assert.deepEqual([got.thinking.trim(), got.text], [thought, text], c.name);
        } else {
            assert.deepEqual(JSON.parse(got.toolCall),
                { name: "get_time", arguments: { city: "Belgrade" } }, c.name);
        }
        assert.equal(got.finish, got.toolCall ? "tool_calls" : "stop", c.name);
    }
});

test("a model is described; plain text has no control tokens", { skip }, async () => {
    const { engine } = await loaded(512);
    const about = engine.describe();
    assert.equal(about.architecture, "gemma4");
    assert.equal(about.file_bytes, nano.length);
    assert.equal(about.config.n_layer, about.layers.length);
    assert.ok(about.memory.weights > 0 && about.tensors.length > 50);
    assert.deepEqual(engine.device(), { name: "CPU reference", isGpu: false, peakBytes: 0 });
    assert.equal(engine.context(), 512);
    const text = "<bos>Grüße <turn|> 💎";
    const ids = engine.tokenize(text);
    assert.ok(ids instanceof Int32Array && !ids.includes(2) && !ids.includes(5));
    assert.equal(engine.detokenize(ids), text);
    assert.equal(engine.tokenize("").length, 0);
    assert.equal(engine.detokenize([]), "");
});

test("options are passed on and checked", { skip }, async () => {
    const { engine } = await loaded();
    const short = run(engine.chat(ask("Hello", { maxTokens: 2 })));
    assert.deepEqual([short.text, short.finish], ["Hello!", "length"]);
    assert.equal(short.stats.generatedTokens, 2);
    const stopped = run(engine.chat(ask("Hello", { stop: ["can"] })));
    assert.deepEqual([stopped.text, stopped.finish], ["Hello! How ", "stop"]);
    let top = [];
    run(engine.chat(ask("Hello", { logprobs: 3 })), (e) => { top = e.top.length ? e.top : top; });
    assert.equal(top.length, 3);
    assert.ok(top[0].logprob <= 0 && top[0].logprob >= top[1].logprob);
    const seeded = () => run(engine.chat({ ...ask("Tell me a story."), temperature: 2, topK: 0,
        topP: 1, minP: 0, seed: 7, maxTokens: 12, repeatLastN: -1 })).text;
    assert.equal(seeded(), seeded());
    const scores = [];
    run(engine.score(golden[0].ids), (e) => e.kind === "score" && scores.push(e.logprob));
    assert.equal(scores.length, golden[0].ids.length - 1);
    assert.ok(scores.every((x) => x <= 0));
    const schema = JSON.stringify({ type: "object", properties: { sum: { type: "boolean" } },
        required: ["sum"], additionalProperties: false });
    const object = JSON.parse(run(engine.chat(ask("Hello", { schema }))).text);
    assert.deepEqual([Object.keys(object), typeof object.sum], [["sum"], "boolean"]);
    for (const bad of [{ topP: 2 }, { temperature: -1 }, { maxTokens: -1 }, { seed: "x" },
        { stop: "x" }, { stop: [1] }, { stop: [""] }, { logprobs: 21 }, { logprobs: "yes" },
        { messages: null }, { messages: 3 }])
        fails("argument", () => engine.chat({ ...ask("Hello"), ...bad }));
    fails("format", () => engine.chat({ messages: [{ role: "king", content: "" }] }));
    fails("argument", () => engine.complete([1e6]));
    fails("context", () => engine.chat(ask("carrot ".repeat(2000))));
    assert.match(fails("argument", () => engine.chat(ask("Hello", { topP: 2 }))), /^topP: /);
});

test("calls without a model or a session say so", { skip }, async () => {
    const { engine } = await create();
    for (const call of [() => engine.describe(), () => engine.tokenize("x"), () => engine.load(),
        () => engine.detokenize([1]), () => engine.render(ask("x")), () => engine.createSession(),
        () => engine.chat(ask("x")), () => engine.complete([1]), () => engine.score([1]),
        () => engine.saveSession("/s"), () => engine.restoreSession("/s")])
        fails("argument", call);
    assert.match(fails("argument", () => engine.openDevice("abacus")), /abacus/);
    assert.match(fails("device", () => engine.openDevice("gpu")), /^gpu: /);
    assert.match(fails("not-found", () => engine.openModel({ path: "/none.gguf" })), /none\.gguf/);
    engine.close();
    fails("argument", () => engine.device());
});

test("a session is saved, and restored by another instance", { skip }, async () => {
    const folder = new Folder();
    const { engine } = await loaded(1024, folder);
    const first = run(engine.chat(ask("What is 58 + 67?"))).text;
    run(engine.saveSession("/talk.session"));
    assert.deepEqual([...folder.files.keys()], ["talk.session"]);
    const held = engine.length();
    engine.close();

    const other = await loaded(1024, folder);
    run(other.engine.restoreSession("/talk.session"));
    assert.equal(other.engine.length(), held);
    const messages = [...ask("What is 58 + 67?").messages, { role: "assistant", content: first },
        { role: "user", content: "Hello" }];
    const { stats } = run(other.engine.chat({ messages, temperature: 0 }));
    assert.ok(stats.reusedTokens >= held - 2, `${stats.reusedTokens} of ${held} reused`);

    const { bytes } = folder.files.get("talk.session");
    bytes[bytes.length >> 1] ^= 1;
    fails("format", () => run(other.engine.restoreSession("/talk.session")));
    fails("not-found", () => run(other.engine.restoreSession("/gone.session")));
    assert.equal(run(other.engine.chat(ask("What is 58 + 67?"))).text, first);

    // A disk that is full: nothing half-written stays, and the cause is told.
    folder.open = () => ({ size: 0, read() {}, write() { throw new Error("no space at all"); } });
    assert.match(fails("io", () => run(other.engine.saveSession("/b"))), /no space at all/);
    assert.ok(!folder.files.has("b") && !folder.files.has("b.new"));
    const bare = await loaded(256);
    fails("io", () => run(bare.engine.saveSession("/nowhere")));
});

test("a job is cancelled within a token, and the session goes on", { skip }, async () => {
    const { engine } = await loaded();
    let n = 0;
    const cut = run(engine.chat(ask("Tell me a story about a fox and a owl.")),
        (event, job) => event.kind === "text" && ++n === 3 && job.cancel());
    assert.equal(cut.stats.generatedTokens, 3);
    const again = run(engine.chat(ask("Tell me a story about a fox and a owl.")));
    assert.ok(again.text.startsWith(cut.text) && again.stats.reusedTokens > 0);

    const busy = engine.chat(ask("Hello"));
    assert.match(fails("argument", () => engine.chat(ask("Hello"))), /another job/);
    busy.free();
    assert.equal(run(engine.chat(ask("Hello"))).text, "Hello! How can I help you today?");

    const { engine: loading } = await create();
    loading.openModel({ path: "/model.gguf" });
    const job = loading.load();
    job.cancel();
    fails("aborted", () => run(job));
});

test("what a file throws is what the caller gets", { skip }, async () => {
    const { engine, files } = await create();
    let broken = null;
    files.add("far.gguf", { size: nano.length, read(offset, to) {
        if (broken && offset > MIB) throw broken;
        readOnly(nano).read(offset, to);
    } });
    engine.openModel({ path: "/far.gguf" });
    broken = new CaratError("network", "far.gguf: the server went away");
    assert.equal(fails("network", () => run(engine.load())), "far.gguf: the server went away");
    broken = new Error("a bad sector");
    assert.match(fails("io", () => run(engine.load())), /far\.gguf: .*\(a bad sector\)/);
    broken = null;
    run(engine.load());
    files.remove("far.gguf");
    fails("not-found", () => engine.openModel({ path: "/far.gguf" }));
});

test("damaged and cut models give one sentence and no trap", { skip }, async () => {
    const { engine, files } = await create();
    let seed = 1;
    const random = (n) => {
        seed = (seed * 1103515245 + 12345) % 2 ** 31;
        return Math.floor(seed / 2 ** 31 * n);
    };
    const open = (bytes) => {
        files.add("bad.gguf", readOnly(bytes));
        engine.openModel({ path: "/bad.gguf" });
    };
    for (const size of [0, 3, 4, 24, 100, 5000, 40000, MIB, nano.length - 1])
        assert.match(fails("format", () => open(nano.subarray(0, size))), /bad\.gguf|gguf|tensor/i);
    let refused = 0;
    for (let i = 0; i < 400; i++) {
        const bytes = new Uint8Array(nano);
        const most = i < 200 ? 2000 : 60000;
        for (let n = random(4) + 1; n > 0; n--) bytes[random(most)] ^= 1 << random(8);
        try {
            open(bytes);
        } catch (e) {
            assert.ok(e instanceof CaratError && !e.message.includes("\n"), e.stack);
            refused++;
        }
    }
    assert.ok(refused > 100, `${refused} refused`);
    open(nano);
});

/** Where the offset of each tensor stands in a GGUF's header, and where its data begins. */
function offsetsOf(gguf) {
    const view = new DataView(gguf.buffer, gguf.byteOffset, gguf.length);
    let pos = 24;
    const u32 = () => view.getUint32((pos += 4) - 4, true);
    const u64 = () => Number(view.getBigUint64((pos += 8) - 8, true));
    const text = () => {
        const n = u64();
        pos += n;
    };
    const sizes = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
    const value = (type) => {
        if (type === 8) text();
        else if (type === 9) for (let kind = u32(), n = u64(); n > 0; n--) value(kind);
        else pos += sizes[type];
    };
    for (let n = Number(view.getBigUint64(16, true)); n > 0; n--) {
        text();
        value(u32());
    }
    const offsets = [];
    for (let n = Number(view.getBigUint64(8, true)); n > 0; n--) {
        text();
        const dimensions = u32();
        pos += 8 * dimensions + 4;
        offsets.push(pos);
        pos += 8;
    }
    return { offsets, data: Math.ceil(pos / 32) * 32 };
}

test("a file of more than 4 GB, whose tensors are at its end", { skip }, async () => {
    const { engine, files } = await create();
    const far = new Uint8Array(nano), gap = 9 * 2 ** 30;
    const { offsets, data } = offsetsOf(far);
    const view = new DataView(far.buffer);
    for (const o of offsets) view.setBigUint64(o, view.getBigUint64(o, true) + BigInt(gap), true);
    files.add("far.gguf", { size: nano.length + gap, read(offset, to) {
        assert.ok(offset < MIB || offset - gap >= data, "the gap is not read");
        if (offset >= MIB) readOnly(far).read(offset - gap, to);
        else to.fill(0).set(far.subarray(offset, Math.min(offset + to.length, data)));
    } });
    engine.openModel({ path: "/far.gguf" });
    assert.equal(engine.describe().file_bytes, nano.length + gap);
    run(engine.load());
    engine.createSession(128);
    assert.equal(run(engine.chat(ask("What is 23 + 45?"))).text, "23 + 45 = 68.");
});

test("when memory runs out, it is said and nothing is lost", { skip }, async () => {
    // What the instance's memory is, to fill it up.
    const { instantiate } = WebAssembly;
    let memory;
    WebAssembly.instantiate = async (module, imports) => {
        const instance = await instantiate(module, imports);
        ({ memory } = instance.exports);
        return instance;
    };
    const fill = () => {
        for (let pages = 16384; pages >= 1; pages >>= 1)
            try {
                for (;;) memory.grow(pages);
            } catch {
                // as much as there is
            }
    };
    try {
        const { engine } = await create();
        fill();
        fails("memory", () => engine.openModel({ path: "/model.gguf" }));
        const other = await create();
        other.engine.openModel({ path: "/model.gguf" });
        fill();
        fails("memory", () => run(other.engine.load()));
        const third = await loaded(256);
        fill();
        fails("memory", () => third.engine.createSession(8192));
        third.engine.createSession(128);
        assert.equal(run(third.engine.chat(ask("Hello", { maxTokens: 2 }))).text, "Hello!");
    } finally {
        WebAssembly.instantiate = instantiate;
    }
});

test("the heap stays small", { skip }, async () => {
    const { engine } = await create();
    assert.ok(engine.heapBytes() < 2 * MIB, `${engine.heapBytes()} bytes at first`);
    engine.openModel({ path: "/model.gguf" });
    assert.ok(engine.heapBytes() < 4 * MIB, `${engine.heapBytes()} bytes with a model`);
    run(engine.load());
    engine.createSession();
    run(engine.chat(ask("What is 58 + 67?")));
    const before = engine.heapBytes();
    assert.ok(before <= 64 * MIB, `${before} bytes`);
    for (let i = 0; i < 20; i++) run(engine.chat(ask(`What is ${i} + 67?`, { maxTokens: 3 })));
    assert.equal(engine.heapBytes(), before, "an answer leaves memory behind");
});
