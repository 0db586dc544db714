// A model of real size, of which only the header exists: what the package says of it before
// anything is downloaded, and that it does not start what could not end.

import assert from "node:assert/strict";
import {execFileSync, spawnSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {after} from "node:test";
import {browserTest, repository, skipReason} from "./lib.mjs";
import {parseRange} from "./server.mjs";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "carat-large-"));
after(() => fs.rmSync(work, {recursive: true}));
const SIZE = 6_200_000_000;

/** The first 40 MB of E2B with random weights; tools/synth is stopped by a limit then. */
function makeHead() {
    execFileSync("sh", ["-c", `cc -O1 -o ${work}/synth tools/synth*.c`], {cwd: repository});
    spawnSync("sh", ["-c", `ulimit -f 40000; exec ${work}/synth --text-only e2b ${work}/e2b.gguf`]);
    return fs.readFileSync(`${work}/e2b.gguf.part`);
}
const head = skipReason ? null : makeHead();

/** The head, and 1.0 everywhere behind it. */
function serve(req, res) {
    const {start, end} = parseRange(req.headers.range, SIZE) || {start: 0, end: SIZE - 1};
    assert.ok(end - start < 64 << 20, `bytes ${start} to ${end} were asked for`);
    const body = Buffer.alloc(end - start + 1);
    for (let i = (4 - start % 4) % 4; i + 4 <= body.length; i += 4) body.writeFloatLE(1, i);
    if (start < head.length) head.copy(body, 0, start, Math.min(end + 1, head.length));
    res.writeHead(206, {"content-range": `bytes ${start}-${end}/${SIZE}`, etag: '"1"',
        "content-length": body.length});
    res.end(req.method === "HEAD" ? undefined : body);
}
const routes = {"/e2b.gguf": serve};

browserTest("without a GPU a large model is refused before it is downloaded", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => {
        const load = (options) => Carat.load("/e2b.gguf", options)
            .catch((e) => [e.code, e.message]);
        const start = performance.now();
        return {auto: await load({}), ranges: await load({store: false}),
            cpu: await load({device: "cpu", store: false, contextLength: 131072}),
            stored: await Carat.models.list(),
            seconds: (performance.now() - start) / 1000};
    });
    assert.equal(r.auto[0], "device");
    assert.match(r.auto[1], /E2B.* needs a GPU, with [\d.]+ GB of weights: /i);
    if (process.env.TEST_GPU !== "real") assert.match(r.auto[1], /a software adapter$/);
    assert.deepEqual(r.ranges, r.auto);
    assert.equal(r.cpu[0], "memory");
    assert.match(r.cpu[1], /4 GB$/);
    assert.deepEqual(r.stored, []);
    assert.ok(r.seconds < 30, `${r.seconds} s`);
}, {routes});

browserTest("an estimate of a large model", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => ({
        gpu: await Carat.estimate("/e2b.gguf", {device: "gpu", contextLength: 4096}),
        auto: await Carat.estimate("/e2b.gguf"),
        storage: await Carat.models.storage(),
    }));
    const {gpu, auto, storage} = r;
    assert.equal(gpu.sizeLabel, "E2B");
    assert.deepEqual([gpu.fileBytes, gpu.downloadBytes, gpu.contextLength], [SIZE, SIZE, 4096]);
    assert.ok(gpu.gpuBytes > 1e9 && gpu.gpuBytes < 3e9, `${gpu.gpuBytes} on the GPU`);
    assert.ok(gpu.hostBytes < 200e6, `${gpu.hostBytes} in the heap: weights do not belong there`);
    assert.equal(gpu.fits, storage.free >= SIZE, gpu.reason);
    assert.equal(gpu.maxContextLength, 131072);
    if (process.env.TEST_GPU === "real") return;
    assert.equal(auto.fits, false);
    assert.match(auto.reason, /needs a GPU/);
    assert.ok(auto.gpuBytes === 0 && auto.hostBytes > 1e9);
}, {routes});
