// The kernel table in the browser: the calls that `make test` recorded while the kernel tests ran
// natively (tests/gpu_record.h) run on Chromium's WebGPU, and the same native tests judge what was
// read, by the same bounds and guards, against the same CPU twins.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { browserTest, repository, sendFile } from "./lib.mjs";

const folder = process.env.KT_RECORD || path.join(repository, "build/kernels");
const programs = path.dirname(fs.realpathSync(
    process.env.CARAT || path.join(repository, "build/carat")));
const recordings = fs.existsSync(folder)
    ? fs.readdirSync(folder).filter((f) => f.endsWith(".calls")).sort() : [];
const names = [...new Set(recordings.map((f) => f.replace(/-\d+\.calls$/, "")))];

/** Plays recordings in the page, and keeps the results beside them. Gives counts. */
async function play(page, files) {
    return page.evaluate(async (files) => {
        const { openPlayer } = await import("/replay.js");
        const player = await openPlayer();
        const total = { nPipeline: 0, nDispatch: 0, nRead: 0 };
        for (const file of files) {
            const recording = await (await fetch(`/calls/${file}`)).arrayBuffer();
            const { blob, ...counts } = await player(recording);
            const to = `/results/${file.replace(/calls$/, "results")}`;
            await fetch(to, { method: "POST", body: blob });
            for (const key in total) total[key] += counts[key];
        }
        return total;
    }, files);
}

async function saveBody(req, res, url) {
    const file = fs.createWriteStream(path.join(folder, path.basename(url.pathname)));
    for await (const part of req) file.write(part);
    await new Promise((done) => file.end(done));
    res.writeHead(204).end();
}

/** Runs the native tests on the browser's results; gives how many passed. */
async function judge(name) {
    const program = path.join(programs, name);
    const env = { ...process.env, KT_REPLAY: folder, KT_RECORD: "" };
    const options = { cwd: repository, env, maxBuffer: 1 << 26 };
    const { stdout, stderr, code } = await promisify(execFile)(program, options).catch((e) => e);
    const output = `${stdout}${stderr}`;
    assert.ok(!code, `${name} on the browser's results:\n${output}`);
    const passed = [...output.matchAll(/\[ {2}PASSED {2}\] (\d+) test/g)];
    return passed.reduce((sum, m) => sum + Number(m[1]), 0);
}

const routes = {
    "/replay.js": (req, res) =>
        sendFile(req, res, path.join(repository, "tests/browser/replay.js")),
    "/calls/*": (req, res, url) =>
        sendFile(req, res, path.join(folder, path.basename(url.pathname))),
    "/results/*": saveBody,
};

if (!names.length)
    test("kernels", { skip: "NO RECORDING of the kernel tests (make test, on a GPU)" }, () => {});

for (const name of names) {
    browserTest(name, async ({ page, t }) => {
        const files = recordings.filter((f) => f.startsWith(`${name}-`));
        const total = await play(page, files);
        const passed = await judge(name);
        assert.ok(passed > 0, `${name}: no test ran`);
        t.diagnostic(`${passed} tests over ${total.nPipeline} pipelines, ` +
            `${total.nDispatch} dispatches, ${total.nRead} reads`);
    }, { routes, seconds: 240 });
}
