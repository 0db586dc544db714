// The engine on WebGPU in a worker, without the package around it: golden answers, a device that
// goes away in the middle of one, and what happens when there is no other.

import assert from "node:assert/strict";
import fs from "node:fs";
import { browserTest, repository, sendFile } from "./lib.mjs";

const golden = JSON.parse(fs.readFileSync(`${repository}tests/golden/nano/text.json`, "utf8"));
const add = golden.find((c) => c.name === "add");

const routes = {
    "/gpu_worker.js": (req, res) =>
        sendFile(req, res, `${repository}tests/browser/gpu_worker.js`),
};

/** A worker in the page: call(name, args) gives what it answers. */
async function startWorker(page) {
    await page.evaluate(() => {
        const worker = new Worker("/gpu_worker.js", { type: "module" });
        const waiting = new Map();
        let n = 0;
        worker.onmessage = ({ data: { id, value, error } }) => {
            const [done, failed] = waiting.get(id);
            if (error) failed(Object.assign(new Error(error.message), error));
            else done(value);
        };
        worker.onerror = (e) => waiting.forEach(([, failed]) => failed(new Error(e.message)));
        window.call = (call, args) => new Promise((done, failed) => {
            waiting.set(++n, [done, failed]);
            worker.postMessage({ id: n, call, args });
        });
    });
    return (call, args) => page.evaluate(([c, a]) => window.call(c, a), [call, args]);
}

const greedy = (content, more) => ({
    messages: [{ role: "user", content }], temperature: 0, logprobs: true, ...more });

browserTest("nano on the GPU: golden ids, also after the device was destroyed twice", async (t) => {
    const call = await startWorker(t.page);
    const { device, info } = await call("open", { model: "/models/nano.gguf" });
    assert.equal(device.isGpu, true);
    if (process.env.TEST_GPU !== "real") {
        assert.equal(info.kind, "software");
        assert.equal(info.name, "SwiftShader (software)");
        assert.equal(device.name, "SwiftShader (WebGPU)");
    }
    const question = add.messages[0].content;
    const first = await call("chat", { request: greedy(question, { maxTokens: 3 }) });
    assert.deepEqual(first.tokens, add.greedy_ids.slice(0, 3));
    assert.deepEqual(first.notices, []);
    assert.ok(first.stats.dispatches > 0 && device.peakBytes > 1e6);
    assert.ok(first.heap < 64e6, `${first.heap} bytes of heap`);

    // Destroyed in the middle of an answer, which goes on on a new device.
    const second = await call("chat",
        { request: greedy(question, { maxTokens: 6 }), destroyAt: 2 });
    assert.deepEqual(second.tokens, add.greedy_ids.slice(0, 6));
    assert.deepEqual(second.notices,
        [`the GPU was lost; carrying on with ${device.name}`]);
    assert.equal(second.device.isGpu, true);

    // And where there is no other device: the CPU.
    await call("refuse");
    const third = await call("chat", { request: greedy(question), destroyAt: 1 });
    assert.deepEqual(third.tokens, add.greedy_ids.slice(0, -1));
    assert.equal(third.device.isGpu, false);
    assert.match(third.notices[0], /the GPU was lost; carrying on with CPU reference/);
    await call("close");
}, { routes, seconds: 280 });
