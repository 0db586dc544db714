// The package on a GPU, and that GPU going away in the middle of an answer, or of learning: the
// page hears of it, and it goes on. (That it goes on on another GPU, gpu.test.mjs shows.)

import assert from "node:assert/strict";
import {browserTest} from "./lib.mjs";
import {sum} from "./nano.mjs";
import {options, routes as data} from "./train_lib.mjs";

/** carat's own worker with one adapter, whose device is destroyed n submits after {lose: n}. */
const worker = `
    import "/carat/worker.js";
    const channel = new BroadcastChannel("lose");
    const {submit} = GPUQueue.prototype, {requestAdapter} = GPU.prototype;
    const {requestDevice} = GPUAdapter.prototype;
    let device = null, left = Infinity;
    channel.onmessage = ({data}) => {
        left = data.lose;
        channel.postMessage("ready");
    };
    GPUAdapter.prototype.requestDevice = async function (...given) {
        return device = await requestDevice.apply(this, given);
    };
    GPU.prototype.requestAdapter = async function (...given) {
        return device ? null : requestAdapter.apply(this, given);
    };
    GPUQueue.prototype.submit = function (commands) {
        submit.call(this, commands);
        if (--left === 0) device.destroy();
    };`;
const routes = {"/lost/worker.js": (req, res) =>
    res.writeHead(200, {"content-type": "text/javascript"}).end(worker)};

browserTest("an answer on the GPU, and one whose GPU is lost", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}, messages) => {
        const notices = [], parts = [];
        const carat = await Carat.load("/models/nano.gguf", {device: "gpu", store: false,
            base: "/lost/", contextLength: 256, onNotice: (notice) => notices.push(notice)});
        const ask = (options) => carat.chat({messages, temperature: 0, ...options});
        const before = carat.device, first = await ask().result();
        const memory = await carat.memory();
        const channel = new BroadcastChannel("lose");
        await new Promise((resolve) => {
            channel.onmessage = resolve;
            channel.postMessage({lose: 4});
        });
        const answer = ask();
        for await (const part of answer) if (part.type === "notice") parts.push(part.text);
        const second = await answer.result(), third = await ask().result();
        await carat.close();
        return {before, memory, notices, parts, after: carat.device,
            texts: [first.text, second.text, third.text], cached: third.usage.cachedTokens};
    }, sum);
    assert.deepEqual(r.texts, Array(3).fill("23 + 45 = 68."));
    const real = process.env.TEST_GPU === "real";
    assert.equal(r.before.kind, real ? "gpu" : "software");
    assert.match(r.before.name, real ? /./ : /^SwiftShader \(software\)$/);
    assert.ok(r.memory.gpuPeakBytes > 5e6);
    assert.ok(r.memory.heapBytes <= 64 * 2 ** 20, `a heap of ${r.memory.heapBytes} bytes`);
    assert.equal(r.notices.length, 1);
    assert.match(r.notices[0], /the GPU was lost; carrying on with CPU/);
    assert.deepEqual(r.parts, r.notices);
    assert.equal(r.after.kind, "cpu");
    assert.equal(r.cached, 16);
}, {routes, seconds: 300});

browserTest("a training run whose GPU is lost goes on on the CPU", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}, {messages, options}) => {
        const notices = [];
        const carat = await Carat.load("/models/nano.gguf", {device: "gpu", store: false,
            base: "/lost/", contextLength: 256, onNotice: (notice) => notices.push(notice)});
        const data = await (await fetch("/facts.jsonl")).text();
        const learn = async () => {
            const run = carat.train({data, ...options, steps: 2}), losses = [];
            for await (const part of run) if (part.type === "step") losses.push(part.loss);
            await run.close();
            return losses;
        };
        const channel = new BroadcastChannel("lose");
        await new Promise((resolve) => {
            channel.onmessage = resolve;
            channel.postMessage({lose: 2});
        });
        const lost = await learn(), onCpu = await learn();
        const {text} = await carat.chat({messages, temperature: 0}).result();
        await carat.close();
        return {lost, onCpu, notices, text, after: carat.device.kind};
    }, {messages: sum, options});
    assert.deepEqual([r.lost.length, r.text, r.after], [2, "23 + 45 = 68.", "cpu"]);
    assert.deepEqual(r.lost, r.onCpu);
    assert.equal(r.notices.length, 1);
    assert.match(r.notices[0], /the GPU was lost; carrying on with CPU/);
}, {routes: {...routes, ...data}, seconds: 300});
