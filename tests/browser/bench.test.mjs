// The benchmark's page works: on the CPU, with a few tokens; the figures are not judged.

import assert from "node:assert/strict";
import { browserTest } from "./lib.mjs";

const small = "run&device=cpu&pp=16,32&tg=0&generate=8&train=16&reps=1";

const figures = (page) => page.evaluate(() => globalThis.benchResult);

browserTest("the benchmark's page measures nano", async ({ page, until }) => {
    const result = await until("the figures", () => figures(page), 60);
    assert.equal(result.error, undefined);
    assert.deepEqual(result.tests.map((t) => t.test), ["pp16", "pp32", "tg@0",
        "train16/16r16"]);
    for (const t of result.tests) assert.ok(t.tokensPerSecond > 0, t.test);
    assert.ok(result.warm.firstTokenSeconds > 0);
    const lines = (await page.inputValue("#csv")).split("\n");
    assert.equal(lines.length, 4);
    const columns = /^\d{4}-\d\d-\d\d,[\d.]+,"CPU, Chrome \d+","carat nano","Q4_K_M",[pt]/;
    for (const line of lines) assert.match(line, columns);
    assert.equal(await page.locator("#rows tr").count(), 4 + 6);
}, { path: `/bench/?${small}` });

browserTest("the benchmark's page says what is wrong", async ({ page, until }) => {
    const result = await until("the end", () => figures(page), 60);
    assert.match(result.error, /nothing\.gguf/);
    assert.match(await page.textContent("#status"), /^It failed: /);
    assert.equal(await page.isEnabled("#start"), true);
}, { path: `/bench/?${small}&url=/models/nothing.gguf`, allow: [/404/] });
