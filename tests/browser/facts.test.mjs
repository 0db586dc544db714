// Training in the package, whole: five facts from 40 lines, as test_facts.c teaches them natively,
// are told after it and not before, and what nano knew is still right.

import assert from "node:assert/strict";
import {browserTest} from "./lib.mjs";
import {inNano, routes} from "./train_lib.mjs";

browserTest("five facts are learned, and nothing old is forgotten", async ({inCarat}) => {
    const r = await inNano(inCarat, `
        const before = await right(facts), parts = [], start = performance.now();
        const run = carat.train({data: new File([data], "facts.jsonl"), name: "facts",
            ...options});
        for await (const part of run) parts.push(part);
        const seconds = (performance.now() - start) / 1000;
        const {heapBytes} = await carat.memory();
        const adapter = await run.adapter();
        await carat.setAdapters([adapter]);
        const after = await right(facts), kept = await right(old);
        await carat.setAdapters([]);
        const [gguf] = await run.export("gguf");
        await run.close();
        const closed = await tell(run.adapter());
        await carat.setAdapters([await carat.loadAdapter(gguf)]);
        const exported = await right(facts.slice(0, 2));
        await carat.setAdapters([]);
        return {before, after, kept, parts, seconds, heapBytes, name: adapter.name,
            info: adapter.info, file: gguf.name, exported, closed,
            without: await right(facts.slice(0, 2))};`);
    const report = r.parts[0], done = r.parts.at(-1);
    const steps = r.parts.filter((part) => part.type === "step");
    console.log(`    ${steps.length} steps in ${r.seconds.toFixed(1)} s, heap ${
        (r.heapBytes / 2 ** 20).toFixed(1)} MiB`);
    assert.deepEqual([r.before, r.after, r.kept], [0, 5, 20]);
    assert.deepEqual([r.exported, r.without], [2, 0]);
    assert.deepEqual([report.type, report.step, report.report.samples, report.report.learnedTokens],
        ["report", 0, 40, 475]);
    assert.equal(report.sample, "<bos><|turn>user\nTell me who makes the best bread.<turn|>\n" +
        "<|turn>model\n[[Bruno makes the best bread.<turn|>]]\n");
    assert.deepEqual(steps.map((part) => part.step), steps.map((_, i) => i + 1));
    assert.ok(steps.every((part) => part.steps === steps.length && part.loss >= 0 &&
        part.tokensPerSecond > 0 && part.learningRate >= 0 && part.gradNorm >= 0));
    assert.ok(steps[1].loss > 5 && done.loss < 0.1, `${steps[1].loss}, ${done.loss}`);
    assert.deepEqual([done.type, done.finishReason, done.step, done.steps, done.evalLoss],
        ["done", "finished", steps.length, steps.length, null]);
    assert.deepEqual([r.name, r.info.rank, r.file], ["facts", 16, "facts.gguf"]);
    assert.match(r.closed, /^argument: the training run was closed/);
    assert.ok(r.heapBytes <= 64 * 2 ** 20, `${r.heapBytes} bytes of heap`);
}, {routes, seconds: 400});
