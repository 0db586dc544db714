// Downloads into the model store in Chromium: they go on after whatever cut them, and what a server
// does wrong is either borne or named.

import assert from "node:assert/strict";
import { noise, random } from "./faulty.mjs";
import { KB, assertError, assertStored, getPart, quick, reaches,
    stop, store, storeTest } from "./store_lib.mjs";

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
            const starts = file.answers.map(({ range }) => Number(/\d+/.exec(range)[0]));
            assert.ok(starts.length > 2, "was never cut");
            assert.ok(starts.slice(1).every((from, i) => from >= starts[i]), "went back");
            assert.ok(starts.at(-1) > 0, "started over");
        }, { seed });
}

storeTest("given up, it goes on when it is tried again", async (tools) => {
    const { page, file, get } = tools;
    const first = await getPart(tools, 200 * KB);
    assertError(first, "network", /trying again goes on/);
    await assertStored(page, file, await get());
    const { range, ifRange } = file.answers.at(-1);
    assert.ok(Number(/\d+/.exec(range)[0]) >= 200 * KB, "started over");
    assert.equal(ifRange, file.etag);
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

storeTest("an empty file is no model", async ({ page, file, get }) => {
    file.bytes = Buffer.alloc(0);
    assertError(await get(), "format", /model\.gguf: is empty/);
    file.ranges = false;
    assertError(await get(), "format", /model\.gguf: is empty/);
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
    assert.equal(file.answers.length, 1 + 3);
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
        async (tools) => {
            const { page, file, get } = tools;
            file.modified = "Mon, 01 Jan 2024 00:00:00 GMT";
            await getPart(tools, 200 * KB);
            file.bytes = noise(file.bytes.length, 2);
            change(file);
            const answer = await get();
            await assertStored(page, file, answer);
            assert.match(answer.notices.join("\n"), /starting over/);
        });
}

storeTest("a server that sends no more than so much at once", async ({ page, file, get }) => {
    file.most = 300 * KB;
    const answer = await get({ sha256: file.sha256, retries: 0 });
    await assertStored(page, file, answer);
    assert.equal(file.answers.length, 4);
});

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
    assert.ok(file.answers.length >= 4);
    const { size, read } = (await call("read", "url", url, [[1000, 4]])).value;
    assert.equal(size, file.bytes.length);
    assert.deepEqual(read, [file.bytes.subarray(1000, 1004).toString("hex")]);
}, { csp: null });
