// What the model store checks in Chromium: lengths, digests, damage on disk, and space.

import assert from "node:assert/strict";
import { noise, sha256 } from "./faulty.mjs";
import { KB, assertError, assertStored, chunkBytes, getPart, reaches,
    store, storeTest } from "./store_lib.mjs";

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

storeTest("a stored model is not lost to a wrong expectation", async ({ page, file, get }) => {
    await get();
    const wanted = sha256(Buffer.from("something else"));
    const answer = await get({ sha256: wanted });
    assertError(answer, "format", new RegExp(wanted), new RegExp(file.sha256), /delete it to/);
    assertError(await get({ sha256: wanted }), "argument", new RegExp(file.sha256), /delete it or/);
    assertError(await get({ size: 5 }), "argument", new RegExp(`of ${file.bytes.length} bytes`));
    await assertStored(page, file, await get({ sha256: file.sha256, size: file.bytes.length }));
    assert.equal(file.answers.length, 1);
});

storeTest("damaged pieces of a part are found, and only they are fetched again",
    async (tools) => {
        const { page, file, get, call } = tools;
        await getPart(tools, 5 * chunkBytes, { sha256: file.sha256 });
        assertError(await call("open", "model.gguf"), "not-found", /only \d+ KB of 1\.0 MB/);
        await call("damage", "model.gguf", 2 * chunkBytes + 5);
        await call("damage", "model.gguf", 4 * chunkBytes);
        const before = file.answers.length;
        // The digest that was wanted at first is still checked.
        const answer = await get();
        assert.equal(answer.value?.sha256, file.sha256);
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

storeTest("a damaged start, and the rest has changed on the server", async (tools) => {
    const { page, file, get, call } = tools;
    await getPart(tools, 300 * KB);
    await call("damage", "model.gguf", 3);
    file.bytes = Buffer.concat([file.bytes.subarray(0, 300 * KB), noise(800 * KB, 3)]);
    file.etag = '"second"';
    await assertStored(page, file, await get());
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
    file.pause = 10;
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
