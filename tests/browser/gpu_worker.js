// A worker for gpu.test.mjs: the engine on the GPU without the package around it. Messages are
// {id, call, args}; answers {id, value} or {id, error: {code, message}}.
/* global navigator, performance, postMessage, addEventListener */

import { Engine } from "/carat/engine.js";
import { Gpu } from "/carat/gpu.js";
import { Files } from "/carat/wasi.js";

const files = new Files();
let gpu, engine;

/** Runs a job to its end; onEvent sees every event. */
async function run(job, onEvent = () => {}) {
    const got = { text: "", tokens: [], notices: [] };
    try {
        for (;;) {
            if (gpu?.lost) await gpu.reopen();
            const event = job.advance();
            if (event.kind === "pending") await gpu.settled();
            if (event.kind === "text") got.text += event.text;
            if (event.kind === "notice") got.notices.push(event.text);
            if (event.token >= 0) got.tokens.push(event.token);
            await onEvent(event, job);
            if (event.kind === "done") return { ...got, finish: event.finish, stats: job.stats() };
        }
    } finally {
        job.free();
    }
}

const calls = {
    async open({ model, device = "gpu", nCtx = 512 }) {
        const bytes = new Uint8Array(await (await fetch(model)).arrayBuffer());
        const read = (at, to) => to.set(bytes.subarray(at, at + to.length));
        files.add("model.gguf", { size: bytes.length, read });
        gpu = await Gpu.open();
        engine = await Engine.create({ wasm: "/carat/carat.wasm", gpu, files });
        engine.openDevice(device);
        engine.openModel({ path: "/model.gguf" });
        await run(engine.load());
        engine.createSession(nCtx);
        return { device: engine.device(), info: gpu?.info };
    },

    /** destroyAt: after so many tokens the device is destroyed. */
    async chat({ request, destroyAt = 0, cancelAt = 0 }) {
        let n = 0;
        const answer = await run(engine.chat(request), (event, job) => {
            if (event.kind !== "text") return;
            n++;
            if (n === destroyAt) gpu.device.destroy();
            if (n === cancelAt) job.cancel();
        });
        answer.stats.logitsHash = String(answer.stats.logitsHash);
        return { ...answer, length: engine.length(), device: engine.device(),
            heap: engine.heapBytes() };
    },

    /** From now on the browser has no adapter. */
    refuse() {
        navigator.gpu.requestAdapter = async () => null;
    },

    close() {
        engine.close();
        gpu.close();
    },
};

addEventListener("message", async ({ data: { id, call, args } }) => {
    try {
        postMessage({ id, value: await calls[call](args ?? {}) });
    } catch (e) {
        postMessage({ id, error: { code: e.code, message: `${e.message}`, stack: e.stack } });
    }
});
