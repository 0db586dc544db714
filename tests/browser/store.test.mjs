// The model store in Chromium: downloads that go on after whatever cut them, what is refused, what
// is found damaged, several tabs, and the sources that the engine reads through.

import assert from "node:assert/strict";
import { browserTest, repository, sendFile } from "./lib.mjs";
import { Faulty, noise, random, sha256 } from "./faulty.mjs";

const KB = 1024;
const chunkBytes = 128 * KB;
/** Small pieces and short waits, so that tests see many of them. */
const quick = { chunkBytes, retryDelay: 5 };

const worker = (req, res) => sendFile(req, res, `${repository}tests/browser/store_worker.js`);

/** A test with a faulty file at /model.gguf, and `call` for what the worker can do.
 * options.size: of the file */
function storeTest(name, body, options = {}) {
    const { size = 1024 * KB + 77, seed = 1, ...rest } = options;
    const file = new Faulty(noise(size, seed));
    const routes = { "/store_worker.js": worker, "/model.gguf": file.route, ...options.routes };
    const allow = [/Failed to load resource/, ...options.allow ?? []];
    browserTest(name, async (tools) => {
        const url = `${tools.site.origin}/model.gguf`;
        const call = (...args) => inWorker(tools.page, ...args);
        const get = (given = {}) => call("download", url, { ...quick, ...given });
        await body({ ...tools, file, url, call, get });
    }, { ...rest, routes, allow });
}

/** Calls the worker of a page; gives {value or error, notices, progress}. */
function inWorker(page, call, ...args) {
    return page.evaluate(start, [call, args]).then(() => page.evaluate(() => window.last));
}

/** In the page: starts a call, remembers what comes in window.calls, and ends with its answer in
 * window.last. */
function start([call, args]) {
    window.worker ??= new Worker("/store_worker.js", { type: "module" });
    const id = window.calls = (window.calls ?? 0) + 1;
    const seen = window.seen = { id, notices: [], progress: [] };
    return new Promise((done) => {
        window.worker.addEventListener("message", function listen({ data }) {
            if (data.id !== id) return;
            if (data.notice) seen.notices.push(data.notice);
            if (data.progress) seen.progress.push(data.progress);
            if (!("value" in data) && !data.error) return;
            window.worker.removeEventListener("message", listen);
            window.last = Object.assign(seen, data);
            done();
        });
        window.worker.postMessage({ id, call, args });
    });
}

const stop = (page) => page.evaluate(() =>
    window.worker.postMessage({ id: window.seen.id, stop: true }));

/** Waits until a download of the page has got this far. */
const reaches = (until, page, bytes) => until(`${bytes} bytes`, () =>
    page.evaluate((n) => (window.seen?.progress.at(-1)?.done ?? 0) >= n, bytes));

/** The stored bytes as they are. */
async function storedDigest(page, name = "model.gguf") {
    return page.evaluate(async (name) => {
        const root = await navigator.storage.getDirectory();
        const carat = await root.getDirectoryHandle("carat");
        const models = await carat.getDirectoryHandle("models");
        const file = await (await models.getFileHandle(name)).getFile();
        const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
        return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
    }, name);
}

/** Calls a function of store.js in the page. */
const store = (page, name, ...args) => page.evaluate(async ([name, args]) => {
    const module = await import("/carat/store.js");
    try {
        return { value: await module[name](...args) };
    } catch ({ code, message }) {
        return { error: { code, message } };
    }
}, [name, args]);

function assertError(answer, code, ...patterns) {
    assert.equal(answer.error?.name ?? "CaratError", "CaratError", answer.error?.message);
    assert.equal(answer.error?.code, code, answer.error?.message ?? "no error");
    for (const pattern of patterns) assert.match(answer.error.message, pattern);
}

async function assertStored(page, file, answer) {
    assert.equal(answer.error, undefined, answer.error?.message);
    assert.equal(answer.value.complete, true);
    assert.equal(answer.value.size, file.bytes.length);
    assert.equal(await storedDigest(page), file.sha256);
}

/* ---- downloads ---- */

storeTest("a download is stored whole, and not fetched twice", async ({ page, file, get, url }) => {
    const answer = await get({ size: file.bytes.length, sha256: file.sha256 });
    await assertStored(page, file, answer);
    assert.equal(answer.value.url, url);
    assert.equal(answer.value.sha256, file.sha256);
    const last = answer.progress.at(-1);
    assert.deepEqual([last.phase, last.done, last.total],
        ["download", file.bytes.length, file.bytes.length]);
    assert.deepEqual(answer.notices, []);
    await assertStored(page, file, await get());
    assert.equal(file.answers.length, 1);
});

for (const seed of [1, 2, 3, 4]) {
    storeTest(`cut at random bytes, it goes on where it was: seed ${seed}`,
        async ({ page, file, get }) => {
            const next = random(seed);
            file.cutAfter = (length) => Math.floor(next() * Math.min(length * 1.3, 500 * KB));
            const answer = await get({ sha256: file.sha256, retries: 20 });
            await assertStored(page, file, answer);
            assert.deepEqual(answer.notices, []);
            assert.ok(file.answers.length > 2, "was never cut");
            assert.ok(file.answers.slice(1).some(({ range }) => !range.startsWith("bytes=0-")));
            // What was sent twice is what was under way when the connection broke.
            assert.ok(file.sent < file.bytes.length * 3, `${file.sent} bytes sent`);
        }, { seed });
}

storeTest("a server that cuts every connection at once is given up, and tried again later",
    async ({ page, file, get }) => {
        file.cutAfter = () => 200 * KB;
        const first = await get({ retries: 0 });
        assertError(first, "network", /model\.gguf/, /trying again goes on/);
        file.cutAfter = () => Infinity;
        const answer = await get();
        await assertStored(page, file, answer);
        const from = Number(/bytes=(\d+)/.exec(file.answers.at(-1).range)[1]);
        assert.ok(from > 0, "started over");
        assert.equal(file.answers.at(-1).ifRange, file.etag);
    });

storeTest("after a reload of the page it goes on", async ({ page, file, get, until }) => {
    file.pause = 40;
    get().catch(() => {});
    await reaches(until, page, 600 * KB);
    await page.reload();
    file.pause = 0;
    const partly = (await store(page, "list")).value;
    assert.equal(partly.length, 1);
    assert.equal(partly[0].complete, false);
    assert.equal(partly[0].size, file.bytes.length);
    assert.ok(partly[0].bytes > 0 && partly[0].bytes < file.bytes.length);
    await assertStored(page, file, await get({ sha256: file.sha256 }));
    assert.ok(!file.answers.at(-1).range.startsWith("bytes=0-"), file.answers.at(-1).range);
});

storeTest("stopped, it keeps its part", async ({ page, file, get, until }) => {
    file.pause = 30;
    const running = get();
    await reaches(until, page, 300 * KB);
    const before = Date.now();
    await stop(page);
    assertError(await running, "aborted", /model\.gguf/);
    assert.ok(Date.now() - before < 1000, "did not stop at once");
    file.pause = 0;
    await assertStored(page, file, await get());
    const from = Number(/bytes=(\d+)/.exec(file.answers.at(-1).range)[1]);
    assert.ok(from >= 300 * KB, `went on from ${from}`);
});

storeTest("stopped while it waits to try again", async ({ page, file, get, until }) => {
    file.statuses = Array(20).fill(503);
    const running = get({ retryDelay: 60000 });
    await until("the first answer", () => file.answers.length === 1);
    await stop(page);
    assertError(await running, "aborted");
});

storeTest("a connection that says nothing any more counts as cut", async ({ page, file, get }) => {
    let silences = 1;
    file.silentAfter = () => silences-- > 0 ? 300 * KB : Infinity;
    await assertStored(page, file, await get({ stallSeconds: 0.5 }));
    assert.equal(file.answers.length, 2);
});

/* ---- servers ---- */

storeTest("errors that pass are tried again", async ({ page, file, get }) => {
    file.statuses = [500, 503, 429];
    await assertStored(page, file, await get());
    assert.equal(file.answers.length, 4);
});

storeTest("an HTTP error is named, and leaves nothing behind", async ({ page, file, get, url }) => {
    for (const [status, code] of [[404, "not-found"], [403, "network"]]) {
        file.statuses = [status];
        const answer = await get();
        assertError(answer, code, new RegExp(`${status}`), /model\.gguf/);
        assert.ok(answer.error.message.includes(url));
    }
    file.statuses = Array(10).fill(500);
    assertError(await get({ retries: 3 }), "network", /500/);
    assert.equal(file.answers.length, 2 + 4);
    assert.deepEqual((await store(page, "list")).value, []);
});

storeTest("nobody there", async ({ page, site, call }) => {
    await call("read", "bytes", [], []); // the worker is there
    await site.stop();
    const answer = await call("download", `${site.origin}/model.gguf`, quick);
    assertError(answer, "network", /model\.gguf/);
    await site.restart();
}, { allow: [/ERR_CONNECTION_REFUSED/] });

storeTest("without range support it works, and starts over when cut", async (tools) => {
    const { page, file, get } = tools;
    file.ranges = false;
    await assertStored(page, file, await get());
    await store(page, "remove", "model.gguf");
    let cuts = 2;
    file.cutAfter = () => cuts-- > 0 ? 400 * KB : Infinity;
    const answer = await get({ sha256: file.sha256 });
    await assertStored(page, file, answer);
    assert.equal(answer.notices.length, 2);
    assert.match(answer.notices[0], /model\.gguf.*cannot send a part.*starting over/);
});

for (const [name, change] of [
    ["ETag", (file) => file.etag = '"second"'],
    ["weak ETag", (file) => file.etag = 'W/"second"'],
    ["Last-Modified", (file) => {
        file.etag = null;
        file.modified = "Tue, 02 Jan 2024 00:00:00 GMT";
    }],
    ["size", (file) => {
        file.etag = null;
        file.bytes = noise(900 * KB, 2);
    }],
    ["size, smaller than the part", (file) => {
        file.etag = null;
        file.bytes = noise(100 * KB, 2);
    }],
]) {
    storeTest(`another file on the server, told by its ${name}: starts over and says so`,
        async ({ page, file, get }) => {
            file.modified = "Mon, 01 Jan 2024 00:00:00 GMT";
            file.cutAfter = () => 500 * KB;
            assertError(await get({ retries: 0 }), "network");
            file.cutAfter = () => Infinity;
            file.bytes = noise(file.bytes.length, 2);
            change(file);
            const answer = await get();
            await assertStored(page, file, answer);
            assert.match(answer.notices.join("\n"), /starting over/);
        });
}

storeTest("without a Content-Length", async ({ page, file, get }) => {
    file.ranges = false;
    file.tellLength = false;
    await assertStored(page, file, await get());
    await store(page, "remove", "model.gguf");
    // Ends early, which only the expected size can tell.
    file.endAfter = 300 * KB;
    assertError(await get({ size: file.bytes.length, retries: 1 }), "network", /ended at byte/);
    file.endAfter = Infinity;
    await assertStored(page, file, await get({ size: file.bytes.length }));
});

storeTest("from another origin, which hides its headers", async ({ page, site, file, call }) => {
    // localhost is another origin than 127.0.0.1. No preflight is answered: none must be needed.
    file.headers = { "Access-Control-Allow-Origin": "*" };
    file.cutAfter = () => 300 * KB;
    const url = `http://localhost:${site.port}/model.gguf`;
    const answer = await call("download", url, { ...quick, sha256: file.sha256 });
    await assertStored(page, file, answer);
    assert.equal(file.answers.length, 4);
    const { size, read } = (await call("read", "url", url, [[1000, 4]])).value;
    assert.equal(size, file.bytes.length);
    assert.deepEqual(read, [file.bytes.subarray(1000, 1004).toString("hex")]);
}, { csp: null });

/* ---- what is checked ---- */

storeTest("a length that is not the expected one", async ({ page, file, get }) => {
    const answer = await get({ size: 12345 });
    assertError(answer, "format", /model\.gguf/, /12345/, new RegExp(`${file.bytes.length}`));
    assert.deepEqual((await store(page, "list")).value, []);
});

storeTest("a server that promises more than it has", async ({ page, file, get }) => {
    file.lied = 5000;
    assertError(await get({ retries: 2 }), "network");
    const [part] = (await store(page, "list")).value;
    assert.equal(part.complete, false);
});

storeTest("a sha256 that is not the expected one: both are named, nothing is kept",
    async ({ page, file, get }) => {
        const wanted = sha256(Buffer.from("something else"));
        const answer = await get({ sha256: wanted });
        assertError(answer, "format", /model\.gguf/, new RegExp(wanted), new RegExp(file.sha256));
        assert.deepEqual((await store(page, "list")).value, []);
        assertError(await get({ sha256: "abc" }), "argument", /abc/);
        await assertStored(page, file, await get({ sha256: `sha256:${file.sha256}` }));
    });

storeTest("a stored model is checked when its sha256 is wanted later",
    async ({ page, file, get }) => {
        await get();
        const answer = await get({ sha256: file.sha256 });
        await assertStored(page, file, answer);
        assert.equal(answer.value.sha256, file.sha256);
        assert.ok(answer.progress.some(({ phase }) => phase === "verify"));
        assert.equal(file.answers.length, 1);
    });

storeTest("damaged pieces of a part are found, and only they are fetched again",
    async ({ page, file, get, call }) => {
        file.cutAfter = () => 900 * KB;
        assertError(await get({ retries: 0, sha256: file.sha256 }), "network");
        assertError(await call("open", "model.gguf"), "not-found", /only \d+ KB of 1\.0 MB/);
        file.cutAfter = () => Infinity;
        await call("damage", "model.gguf", 2 * chunkBytes + 5);
        await call("damage", "model.gguf", 4 * chunkBytes);
        const before = file.answers.length;
        const answer = await get({ sha256: file.sha256 });
        await assertStored(page, file, answer);
        assert.match(answer.notices[0], /model\.gguf: 2 of \d stored pieces were damaged/);
        const ranges = file.answers.slice(before).map(({ range }) => range);
        assert.deepEqual(ranges.slice(0, 2), [
            `bytes=${2 * chunkBytes}-${3 * chunkBytes - 1}`,
            `bytes=${4 * chunkBytes}-${5 * chunkBytes - 1}`,
        ]);
        assert.equal(ranges.length, 3);
    });

storeTest("damage of a complete model is mended", async ({ page, file, get, call }) => {
    await get();
    await call("damage", "model.gguf", file.bytes.length - 1);
    const answer = await get({ verify: true });
    await assertStored(page, file, answer);
    assert.equal(file.answers.at(-1).range,
        `bytes=${8 * chunkBytes}-${file.bytes.length - 1}`);
    assert.equal(file.answers.length, 2);
});

storeTest("a lost tail is fetched again, and nothing else", async ({ page, file, get, call }) => {
    await get();
    await call("truncate", "model.gguf", 700 * KB);
    assert.equal((await store(page, "exists", "model.gguf")).value, false);
    const answer = await get();
    await assertStored(page, file, answer);
    assert.match(answer.notices[0], /missing at its end/);
    assert.equal(file.answers.at(-1).range, `bytes=${700 * KB}-${file.bytes.length - 1}`);
});

storeTest("damage, and the server has another file now: starts over", async (tools) => {
    const { page, file, get, call } = tools;
    file.etag = null;
    await get();
    await call("damage", "model.gguf", 3);
    file.bytes = noise(file.bytes.length, 2);
    const answer = await get({ verify: true });
    await assertStored(page, file, answer);
    assert.match(answer.notices.at(-1), /another one now: starting over/);
});

/* ---- space ---- */

/** What Chromium lets the page's origin store. */
async function quota(context, page, quotaSize) {
    const session = await context.newCDPSession(page);
    const { origin } = new URL(page.url());
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize });
    return session;
}

storeTest("refused before the download when it does not fit", async (tools) => {
    const { page, context, file, get } = tools;
    const session = await quota(context, page, 500 * KB);
    assertError(await get(), "quota", /model\.gguf: needs 1\.0 MB/);
    assert.deepEqual((await store(page, "list")).value, []);
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(page.url()).origin });
    await assertStored(page, file, await get());
});

storeTest("the storage is full in the middle: what is stored is kept", async (tools) => {
    const { page, context, file, get, until } = tools;
    file.pause = 30;
    const running = get();
    await reaches(until, page, 300 * KB);
    const session = await quota(context, page, 400 * KB);
    assertError(await running, "quota", /model\.gguf/, /are kept/);
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(page.url()).origin });
    file.pause = 0;
    await assertStored(page, file, await get());
    assert.ok(!file.answers.at(-1).range.startsWith("bytes=0-"), file.answers.at(-1).range);
});

storeTest("storage() tells what is used and free", async ({ page, file, get }) => {
    const before = (await store(page, "storage")).value;
    await get();
    const after = (await store(page, "storage")).value;
    assert.ok(after.used - before.used >= file.bytes.length);
    assert.ok(after.free > 0);
    assert.equal(typeof after.persistent, "boolean");
    assert.equal(typeof (await store(page, "persist")).value, "boolean");
});

/* ---- several tabs, several models ---- */

storeTest("two tabs at once: one downloads, both see it", async (tools) => {
    const { page, newPage, file, url, get, until } = tools;
    file.pause = 10;
    const other = await newPage();
    const first = get();
    await reaches(until, page, 100 * KB);
    const second = inWorker(other, "download", url, quick);
    const [one, two] = await Promise.all([first, second]);
    await assertStored(page, file, one);
    await assertStored(other, file, two);
    assert.equal(file.answers.length, 1);
    assert.ok(two.progress.length > 1, "saw no progress");
    assert.ok(two.progress.every(({ phase }) => phase === "download"));
});

storeTest("two tabs, and the first is closed: the second goes on", async (tools) => {
    const { page, newPage, file, url, until } = tools;
    file.pause = 20;
    const other = await newPage();
    inWorker(other, "download", url, quick).catch(() => {});
    await reaches(until, other, 200 * KB);
    const second = inWorker(page, "download", url, quick);
    await until("the second tab to wait", () => page.evaluate(() => window.seen?.progress.length));
    await other.close();
    await assertStored(page, file, await second);
    assert.equal(file.answers.length, 2);
});

storeTest("a loaded model is not deleted", async ({ page, newPage, get }) => {
    await get();
    const other = await newPage();
    await other.evaluate(async () => {
        const { hold } = await import("/carat/store.js");
        window.release = await hold("model.gguf");
    });
    const refused = await store(page, "remove", "model.gguf");
    assertError(refused, "busy", /model\.gguf: is loaded/);
    assert.equal((await store(page, "exists", "model.gguf")).value, true);
    assertError(await get({ verify: true }), "busy", /is loaded/);
    await other.evaluate(() => window.release());
    assert.equal((await store(page, "remove", "model.gguf")).error, undefined);
    assert.deepEqual((await store(page, "list")).value, []);
    assertError(await store(page, "remove", "model.gguf"), "not-found", /model\.gguf/);
});

storeTest("a model under way is not deleted", async ({ page, file, get, until }) => {
    file.pause = 20;
    const running = get();
    await reaches(until, page, 100 * KB);
    assertError(await store(page, "remove", "model.gguf"), "busy", /is being downloaded/);
    await stop(page);
    assertError(await running, "aborted");
    assert.equal((await store(page, "remove", "model.gguf")).error, undefined);
});

storeTest("names", async ({ page, file, url, get, call }) => {
    const names = { "../a/b:c": "_a_b_c", "модель é.gguf": "модель é.gguf",
        [`${"x".repeat(300)}.gguf`]: `${"x".repeat(95)}.gguf` };
    for (const name in names) {
        assert.equal((await get({ name })).value?.name, names[name]);
        assert.equal((await store(page, "exists", name)).value, true);
    }
    for (const name of ["", "..", " . "]) assertError(await get({ name }), "argument");
    assertError(await call("download", "http://", quick), "argument", /not a URL/);
    const listed = (await store(page, "list")).value;
    assert.deepEqual(listed.map(({ name }) => name).sort(), Object.values(names).sort());
    // The same name for another file.
    const clash = await call("download", `${url}?other`, { ...quick, name: "../a/b:c" });
    assertError(clash, "argument", /another model is stored/);
    const digest = await call("download", `${url}?mirror`,
        { ...quick, name: "m", sha256: file.sha256 });
    assert.equal(digest.error, undefined);
    const mirrored = await call("download", url, { ...quick, name: "m", sha256: file.sha256 });
    assert.equal(mirrored.value?.complete, true);
}, { size: 200 * KB });

storeTest("a file that someone else put there is a model", async ({ page }) => {
    await page.evaluate(async () => {
        const { folder } = await import("/carat/opfs.js");
        const handle = await (await folder("models")).getFileHandle("own.gguf", { create: true });
        const writable = await handle.createWritable();
        await writable.write(new Uint8Array(1234));
        await writable.close();
    });
    const [model] = (await store(page, "list")).value;
    assert.deepEqual([model.name, model.size, model.complete, model.url],
        ["own.gguf", 1234, true, null]);
});

storeTest("the index of carat serve", async ({ page, site }) => {
    const digest = "ab".repeat(32);
    site.routes["/models"] = (req, res) => void res.end(JSON.stringify({ models: [
        { name: "gemma4:latest", size: 5, digest: `sha256:${digest}`, url: "/models/blob/g%3Al" },
    ] }));
    const model = { name: "gemma4:latest", size: 5, sha256: digest,
        url: `${site.origin}/models/blob/g%3Al` };
    assert.deepEqual((await store(page, "ollama")).value, [model]);
    assert.deepEqual((await store(page, "ollamaModel", "gemma4")).value, model);
    assertError(await store(page, "ollamaModel", "other"), "not-found", /other.*gemma4:latest/);
    site.routes["/models"] = (req, res) => void res.writeHead(404).end();
    assertError(await store(page, "ollama"), "network", /no carat serve at http/, /404/);
    site.routes["/models"] = (req, res) => void res.end("{}");
    assertError(await store(page, "ollama"), "format");
});

/* ---- sources ---- */

storeTest("URL, File, bytes and stored file read the same", async (tools) => {
    const { page, file, url, get, newPage } = tools;
    await get();
    const next = random(9);
    const size = file.bytes.length;
    // A header in small pieces, a tensor in large ones, rows anywhere, and both ends.
    const ranges = [[0, 4], [4, 8], [size - 3, 3], [0, size], [0, 0], [size, 0]];
    for (let at = 0; at < 300 * KB; at += 5000) ranges.push([at, 5000]);
    for (let i = 0; i < 30; i++) {
        const offset = Math.floor(next() * size);
        ranges.push([offset, Math.floor(next() * Math.min(size - offset, 100 * KB))]);
    }
    const expected = ranges.map(([offset, length]) =>
        file.bytes.subarray(offset, offset + length).toString("hex"));
    const before = file.answers.length;
    const fromUrl = await inWorker(page, "read", "url", url, ranges);
    assert.deepEqual(fromUrl.value, { size, read: expected }, fromUrl.error?.message);
    assert.ok(file.answers.length - before < 50, `${file.answers.length - before} requests`);
    const others = [await inWorker(page, "read", "opfs", "model.gguf", ranges)];
    for (const kind of ["blob", "bytes"]) {
        others.push(await page.evaluate(async ([kind, ranges, url, start]) => {
            const response = await fetch(url);
            window.from = kind === "blob" ? await response.blob() : await response.arrayBuffer();
            await (0, eval)(`(${start})`)(["read", [kind, window.from, ranges]]);
            return window.last;
        }, [kind, ranges, url, start.toString()]));
    }
    for (const { value, error } of others)
        assert.deepEqual(value, { size, read: expected }, error?.message);
    const other = await newPage();
    assert.equal((await inWorker(page, "open", "model.gguf")).value, size);
    const again = await inWorker(other, "read", "opfs", "model.gguf", ranges.slice(0, 5));
    assert.deepEqual(again.value?.read, expected.slice(0, 5), again.error?.message);
}, { csp: null });

storeTest("sources that fail say why", async ({ file, url, call }) => {
    const range = [[0, 10]];
    file.statuses = [404];
    assertError(await call("read", "url", url, range), "not-found", /404/);
    file.ranges = false;
    assertError(await call("read", "url", url, range), "unsupported", /cannot send a part/);
    const head = await call("read", "url", url, [[0, 1000]], { headBytes: 64 * KB });
    assert.deepEqual(head.value, { size: file.bytes.length,
        read: [file.bytes.subarray(0, 1000).toString("hex")] });
    assertError(await call("read", "url", url, [[100 * KB, 4]], { headBytes: 64 * KB }), "io");
    file.ranges = true;
    assertError(await call("read", "url", url, [[file.bytes.length - 5, 6]]), "io");
    assertError(await call("read", "opfs", "none", range), "not-found", /none/);
    file.cutAfter = () => 20;
    assertError(await call("read", "url", url, [[0, 10]]), "network", /cannot be read/);
});
