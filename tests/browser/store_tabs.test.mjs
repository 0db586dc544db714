// The model store among several tabs and models in Chromium, the index of carat serve, and the
// sources that the engine reads through.

import assert from "node:assert/strict";
import { random } from "./faulty.mjs";
import { KB, assertError, assertStored, inWorker, quick, reaches,
    start, stop, store, storeTest } from "./store_lib.mjs";

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
    const ranges = [[0, 4], [4, 8]];
    for (let at = 12; at < 300 * KB; at += 5000) ranges.push([at, 5000]);
    for (let i = 0; i < 30; i++) {
        const offset = Math.floor(next() * size);
        ranges.push([offset, Math.floor(next() * Math.min(size - offset, 100 * KB))]);
    }
    ranges.push([size - 3, 3], [0, 0], [size, 0], [0, size]);
    const expected = ranges.map(([offset, length]) =>
        file.bytes.subarray(offset, offset + length).toString("hex"));
    const before = file.answers.length;
    const fromUrl = await inWorker(page, "read", "url", url, ranges);
    assert.deepEqual(fromUrl.value, { size, read: expected }, fromUrl.error?.message);
    assert.ok(file.answers.length - before < 45, `${file.answers.length - before} requests`);
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
