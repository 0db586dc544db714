// The harness itself: a page has a GPU and the policy of carat, and what goes wrong in it is seen.

import assert from "node:assert/strict";
import { browserTest } from "./lib.mjs";

browserTest("a page has WebGPU, OPFS and no isolation", async ({ page }) => {
    const seen = await page.evaluate(async () => {
        const adapter = await navigator.gpu?.requestAdapter();
        const root = await navigator.storage.getDirectory();
        await root.getFileHandle("x", { create: true });
        return {
            vendor: adapter?.info.vendor ?? null,
            subgroups: adapter?.features.has("subgroups"),
            isolated: crossOriginIsolated,
            secure: isSecureContext,
        };
    });
    assert.notEqual(seen.vendor, null, "no WebGPU adapter");
    assert.equal(seen.isolated, false);
    assert.equal(seen.secure, true);
});

browserTest("the policy holds, and what it blocks is seen", async ({ page, until, site }) => {
    await page.evaluate(() => {
        document.body.append(Object.assign(document.createElement("img"), { src: "data:,x" }));
        const style = document.createElement("style");
        style.textContent = "body { color: red }";
        document.head.append(style);
    });
    await until("two reports of the policy", () => site.violations.length >= 2);
}, { allow: [/img-src/, /style-src/, /Content Security Policy/] });

browserTest("ranges", async ({ page }) => {
    const get = (range) => page.evaluate(async (range) => {
        const r = await fetch("/models/nano.gguf", { headers: range ? { range } : {} });
        const bytes = new Uint8Array(await r.arrayBuffer());
        return [r.status, bytes.length, r.headers.get("content-range"), [...bytes.slice(0, 4)]];
    }, range);
    const [status, size, , magic] = await get(null);
    assert.deepEqual([status, String.fromCharCode(...magic)], [200, "GGUF"]);
    assert.deepEqual(await get("bytes=1-2"), [206, 2, `bytes 1-2/${size}`, [71, 85]]);
    assert.equal((await get(`bytes=${size - 5}-`))[1], 5);
    assert.equal((await get("bytes=-7"))[1], 7);
    assert.equal((await get(`bytes=${size}-`))[0], 416);
}, { allow: [/416/] });
