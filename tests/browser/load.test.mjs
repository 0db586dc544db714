// Carat.load(): every kind of source, what it tells while it runs, and what ends it early. How
// downloads survive bad servers and lost connections is in store.test.mjs.

import assert from "node:assert/strict";
import {browserTest, repository, sendFile} from "./lib.mjs";
import {sum} from "./nano.mjs";

const nano = `${repository}models/nano.gguf`;
const SIZE = 18284448;

browserTest("from a URL: stored once, then read from there", async ({inCarat, site}) => {
    const r = await inCarat(async ({Carat}, messages) => {
        const run = async (source, options) => {
            const seen = [];
            const carat = await Carat.load(source, {device: "cpu", ...options,
                onProgress: (p) => seen.push(p)});
            const {text} = await carat.chat({messages, temperature: 0}).result();
            const held = await Carat.models.delete("nano.gguf").catch((e) => e.code);
            await carat.close();
            return {seen, text, held};
        };
        const first = await run("/models/nano.gguf");
        const list = await Carat.models.list();
        const estimate = await Carat.estimate("/models/nano.gguf", {device: "cpu"});
        const second = await run("/models/nano.gguf");
        const third = await run({opfs: "nano.gguf"});
        await Carat.models.delete("nano.gguf");
        return {first, second, third, list, estimate, left: await Carat.models.list()};
    }, sum);
    for (const {text, held} of [r.first, r.second, r.third])
        assert.deepEqual([text, held], ["23 + 45 = 68.", "busy"]);
    const phases = ({seen}) => [...new Set(seen.map((p) => p.phase))];
    assert.deepEqual(phases(r.first), ["download", "open", "load"]);
    assert.deepEqual(phases(r.second), ["open", "load"]);
    assert.deepEqual(phases(r.third), ["open", "load"]);
    for (const phase of ["download", "load"]) {
        const steps = r.first.seen.filter((p) => p.phase === phase);
        assert.ok(steps.every((p, i) => p.done <= p.total && p.rate >= 0 &&
            (i === 0 || p.done >= steps[i - 1].done)), JSON.stringify(steps));
        assert.equal(steps.at(-1).done, steps.at(-1).total);
    }
    const [{name, bytes, size, complete, url}] = r.list;
    assert.deepEqual([name, bytes, size, complete, url],
        ["nano.gguf", SIZE, SIZE, true, `${site.origin}/models/nano.gguf`]);
    assert.equal(r.estimate.downloadBytes, 0);
    assert.deepEqual(r.left, []);
});

browserTest("from a picked file, bytes, ranges and carat serve", async ({inCarat, page}) => {
    await page.evaluate(() => document.body.append(Object.assign(document.createElement("input"),
        {type: "file"})));
    await page.setInputFiles("input", nano);
    const r = await inCarat(async ({Carat}, messages) => {
        const [file] = document.querySelector("input").files;
        const bytes = new Uint8Array(await file.arrayBuffer());
        const sources = [file, file.slice(), bytes, bytes.buffer, {ollama: "nano"},
            new URL("/models/nano.gguf", location.href)];
        const texts = [];
        for (const source of sources) {
            const carat = await Carat.load(source, {device: "cpu", store: false});
            texts.push((await carat.chat({messages, temperature: 0}).result()).text);
            await carat.close();
        }
        return {texts, kept: bytes.length, stored: await Carat.models.list(),
            index: await Carat.models.ollama(),
            missing: await Carat.load({ollama: "other"}).catch((e) => [e.code, e.message])};
    }, sum);
    assert.deepEqual(r.texts, Array(6).fill("23 + 45 = 68."));
    assert.equal(r.kept, SIZE); // the caller's bytes are still the caller's
    assert.deepEqual(r.stored, []);
    assert.deepEqual(r.index.map((m) => [m.name, m.size]), [["nano:latest", SIZE]]);
    assert.equal(r.missing[0], "not-found");
    assert.match(r.missing[1], /other/);
}, {routes: {
    "/models": (req, res) => res.writeHead(200, {"content-type": "application/json"})
        .end(JSON.stringify({models: [{name: "nano:latest", size: SIZE,
            digest: `sha256:${"0".repeat(64)}`, url: "/models/blob/nano"}]})),
    "/models/blob/nano": (req, res) => sendFile(req, res, nano),
}});

browserTest("aborting a load, early and late, and loading again", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}, messages) => {
        const options = {device: "cpu"};
        const abortAt = async (phase, more) => {
            const controller = new AbortController();
            const error = await Carat.load("/models/nano.gguf", {...options, ...more,
                signal: controller.signal, onProgress: (p) => {
                    if (p.phase === phase) controller.abort();
                }}).catch((e) => e);
            return error.code;
        };
        const codes = [
            await Carat.load("/models/nano.gguf", {...options, signal: AbortSignal.abort()})
                .catch((e) => e.code),
            await abortAt("download"),
            await abortAt("open", {store: false}),
            await abortAt("load", {store: false}),
        ];
        const controller = new AbortController();
        const carat = await Carat.load("/models/nano.gguf",
            {...options, signal: controller.signal});
        controller.abort(); // too late to matter
        const {text} = await carat.chat({messages, temperature: 0}).result();
        await carat.close();
        return {codes, text};
    }, sum);
    assert.deepEqual(r.codes.slice(0, 3), ["aborted", "aborted", "aborted"]);
    /* nano's weights may be there before an abort arrives. */
    assert.ok([undefined, "aborted"].includes(r.codes[3]), r.codes[3]);
    assert.equal(r.text, "23 + 45 = 68.");
});

browserTest("a server that never answers does not hold up an abort", async ({inCarat, site}) => {
    /* The index, and the size of a file whose server hides it. */
    site.routes["/models"] = () => {};
    site.routes["/hidden.gguf"] = (req, res) => {
        if (req.method === "GET") res.writeHead(206).end("x".repeat(100));
    };
    /* Ranges that are promised and do not come: those are read synchronously. */
    site.routes["/drip.gguf"] = (req, res) => {
        res.writeHead(206, {"content-range": "bytes 0-65535/1000000000",
            "content-length": "65536"}).write("GGUF");
    };
    const codes = await inCarat(async ({Carat}) => {
        const code = async (source, options) => {
            try {
                await Carat.load(source, {device: "cpu", signal: AbortSignal.timeout(1500),
                    ...options});
            } catch (error) {
                return error.code;
            }
        };
        return Promise.race([Promise.all([code({ollama: "gemma4"}),
            code("/hidden.gguf", {store: false}), code("/drip.gguf", {store: false})]),
        new Promise((resolve) => setTimeout(resolve, 15000, "waited in vain"))]);
    });
    assert.deepEqual(codes, ["aborted", "aborted", "aborted"]);
});

browserTest("a long prompt tells how far it is; listeners may throw", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => {
        const errors = [];
        addEventListener("error", (event) => {
            errors.push(event.message);
            event.preventDefault();
        });
        const carat = await Carat.load("/models/nano.gguf", {device: "cpu", store: false,
            onProgress() {
                throw new Error("mine");
            }});
        const seen = [];
        const messages = [{role: "user", content: "word ".repeat(1500)}];
        const {usage} = await carat.chat({messages, maxTokens: 2,
            onProgress: (p) => seen.push(p)}).result();
        await carat.close();
        return {errors, seen, usage};
    });
    assert.ok(r.errors.length > 0 && r.errors.every((e) => /mine/.test(e)));
    assert.ok(r.seen.length >= 2, JSON.stringify(r.seen));
    assert.ok(r.seen.every((p) => p.phase === "prompt" && p.total === r.usage.promptTokens));
    assert.equal(r.seen.at(-1).done, r.usage.promptTokens);
});

browserTest("without WebGPU: the CPU, or an error that says why", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}, messages) => {
        const load = (device) => Carat.load("/models/nano.gguf", {device, base: "/without/",
            store: false, contextLength: 512});
        const refused = await load("gpu").catch((e) => [e.code, e.message]);
        const carat = await load("auto");
        const {text} = await carat.chat({messages, temperature: 0}).result();
        const {name, kind} = carat.device;
        await carat.close();
        const estimate = await Carat.estimate("/models/nano.gguf",
            {device: "gpu", base: "/without/"});
        return {refused, text, name, kind, estimate};
    }, sum);
    assert.equal(r.refused[0], "device");
    assert.match(r.refused[1], /this browser has no WebGPU$/);
    assert.deepEqual([r.text, r.name, r.kind],
        ["23 + 45 = 68.", "CPU (no GPU: this browser has no WebGPU)", "cpu"]);
    assert.deepEqual([r.estimate.fits, r.estimate.reason], [false, r.refused[1]]);
}, {routes: {"/without/worker.js": (req, res) =>
    res.writeHead(200, {"content-type": "text/javascript"})
        .end(`import "/carat/worker.js";
            Object.defineProperty(navigator, "gpu", {value: undefined});`)}});

browserTest("a worker elsewhere, and one that is not allowed", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => {
        const device = await Carat.device({device: "cpu", base: "/carat"});
        const other = await Carat.device({base: "https://example.com/carat/"})
            .catch((e) => [e.name, e.code]);
        return {device, other};
    });
    assert.equal(r.device.name, "CPU");
    assert.equal(r.other[0], "CaratError");
}, {allow: [/example.com/]});
