// What the tests of the model store share: a page with a worker that can do what store_worker.js
// says, and a server whose file misbehaves.

import assert from "node:assert/strict";
import { browserTest, repository, sendFile } from "./lib.mjs";
import { Faulty, noise } from "./faulty.mjs";

export const KB = 1024;
export const chunkBytes = 128 * KB;
/** Small pieces and short waits, so that tests see many of them. */
export const quick = { chunkBytes, retryDelay: 5 };

const worker = (req, res) => sendFile(req, res, `${repository}tests/browser/store_worker.js`);

/** A test with a faulty file at /model.gguf, and `call` for what the worker can do.
 * options.size: of the file */
export function storeTest(name, body, options = {}) {
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
export function inWorker(page, call, ...args) {
    return page.evaluate(start, [call, args]).then(() => page.evaluate(() => window.last));
}

/** In the page: starts a call, remembers what comes in window.calls, and ends with its answer in
 * window.last. */
export function start([call, args]) {
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

export const stop = (page) => page.evaluate(() =>
    window.worker.postMessage({ id: window.seen.id, stop: true }));

/** Waits until a download of the page has got this far. */
export const reaches = (until, page, bytes) => until(`${bytes} bytes`, () =>
    page.evaluate((n) => (window.seen?.progress.at(-1)?.done ?? 0) >= n, bytes));

/** The stored bytes as they are. */
export async function storedDigest(page, name = "model.gguf") {
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
export const store = (page, name, ...args) => page.evaluate(async ([name, args]) => {
    const module = await import("/carat/store.js");
    try {
        return { value: await module[name](...args) };
    } catch ({ code, message }) {
        return { error: { code, message } };
    }
}, [name, args]);

export function assertError(answer, code, ...patterns) {
    assert.equal(answer.error?.name ?? "CaratError", "CaratError", answer.error?.message);
    assert.equal(answer.error?.code, code, answer.error?.message ?? "no error");
    for (const pattern of patterns) assert.match(answer.error.message, pattern);
}

export async function assertStored(page, file, answer) {
    assert.equal(answer.error, undefined, answer.error?.message);
    assert.equal(answer.value.complete, true);
    assert.equal(answer.value.size, file.bytes.length);
    assert.equal(await storedDigest(page), file.sha256);
}

/** Downloads a part of at least so many bytes, and not all of it; gives the last answer. What a
 * browser has not read yet when a connection breaks, it forgets, so this may take several. */
export async function getPart({ page, file, get }, least, given = {}) {
    file.cutAfter = (length) => Math.max(0, length - 100 * KB);
    for (let tries = 0; tries < 20; tries++) {
        const answer = await get({ retries: 0, ...given });
        assertError(answer, "network", /model\.gguf/);
        const [part] = (await store(page, "list")).value;
        if (!(part?.bytes >= least)) continue;
        file.cutAfter = () => Infinity;
        return answer;
    }
    throw new Error(`no part of ${least} bytes`);
}
