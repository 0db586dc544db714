// run.js by itself, with jobs and a GPU that only pretend: what a lost GPU costs, and when it is
// too much.

import assert from "node:assert/strict";
import test from "node:test";

/* One of node's would keep the program alive. */
globalThis.MessageChannel = class {
    port1 = {onmessage() {}};
    port2 = {postMessage: () => setTimeout(() => this.port1.onmessage())};
};
const {run} = await import("../../web/run.js");

/** A job of some steps, before each of which the GPU is lost if its number is listed. */
function pretend({lostAt, others}) {
    const gpu = {lost: false, reopened: 0, async settled() {}, async reopen() {
        this.lost = false;
        return ++this.reopened <= others;
    }};
    const job = {step: 0, freed: false, cancel() {}, free() { this.freed = true; },
        stats: () => ({}),
        advance() {
            this.step++;
            if (lostAt.includes(this.step)) gpu.lost = true;
            return {kind: this.step === 6 ? "done" : "pending", finish: "stop"};
        }};
    return {gpu, job};
}

/** How a run of it ends: its finish, or the error's code and message. */
async function end(lostAt, others, cpuWillDo) {
    const {gpu, job} = pretend({lostAt, others});
    const how = {gpu, cpuWillDo, signal: new AbortController().signal, onEvent() {}};
    const result = await run(job, how).then(({finish}) => finish,
        ({code, message}) => `${code}: ${message}`);
    assert.ok(job.freed);
    return result;
}

test("a lost GPU is replaced once", async () => {
    assert.equal(await end([], 0, false), "stop");
    assert.equal(await end([2], 1, false), "stop");
    assert.match(await end([2, 4], 2, false), /^device-lost: the GPU was lost twice/);
    assert.match(await end([2], 0, false), /^device-lost: .* there is no other/);
});

test("a small model goes on with the CPU, however often", async () => {
    assert.equal(await end([2], 0, true), "stop");
    assert.equal(await end([2, 4], 2, true), "stop");
});
