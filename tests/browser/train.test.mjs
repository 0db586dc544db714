// Training in the package, on nano: pausing, chats in between, checkpoints and going on from them
// after a reload, what cannot be trained. facts.test.mjs has a whole run.

import assert from "node:assert/strict";
import {browserTest} from "./lib.mjs";
import {inNano, options, routes} from "./train_lib.mjs";

browserTest("pause, chats in between, samples, stop", async ({inCarat}) => {
    const r = await inNano(inCarat, `
        const steps = [], run = carat.train({data, ...options, steps: 30, evalShare: 0.2,
            evalEvery: 2});
        const kinds = new Set(), over = (async () => {
            for await (const part of run) {
                kinds.add(part.type);
                if (part.type === "step") steps.push(part);
                if (part.type === "step" && part.step === 2) await pause();
            }
        })();
        const seen = {};
        async function pause() {
            await run.pause();
            seen.paused = steps.length;
            seen.told = await right([["What is the capital of Italy?",
                "The capital of Italy is Rome."]]);
            seen.sample = await run.sample(1);
            seen.none = await tell(run.sample(99));
            await new Promise((done) => setTimeout(done, 1500));
            seen.still = steps.length;
            await run.resume();
        }
        while (steps.length < 4) await new Promise((done) => setTimeout(done, 20));
        seen.between = await right([["What is 23 + 45?", "23 + 45 = 68."]]);
        seen.second = await tell(carat.train({data, ...options}).result());
        const adapter = await run.adapter();
        run.stop();
        const left = carat.train({data, ...options});
        await over;
        const result = await run.result();
        for await (const part of left) if (part.type === "step") break;
        seen.left = (await left.result()).finishReason;
        const aborted = new AbortController();
        aborted.abort();
        seen.aborted = await carat.train({data, signal: aborted.signal}).result();
        return {...seen, steps: steps.map((s) => s.step), kinds: [...kinds], result,
            info: adapter.info.rank};`);
    assert.deepEqual([r.paused, r.still, r.told, r.between], [2, 2, 1, 1]);
    assert.match(r.sample, /\[\[.*\]\]/);
    assert.match(r.none, /^argument: .*no sample 99/);
    assert.match(r.second, /^argument: train: another run/);
    assert.deepEqual(r.steps, r.steps.map((_, i) => i + 1));
    assert.ok(r.steps.length >= 4 && r.steps.length < 30);
    assert.deepEqual(r.kinds, ["report", "step", "eval", "done"]);
    assert.deepEqual([r.result.finishReason, r.left, r.info], ["stopped", "stopped", 16]);
    assert.ok(r.result.evalLoss > 0);
    assert.deepEqual([r.aborted.finishReason, r.aborted.step], ["stopped", 0]);
}, {routes});

browserTest("a checkpoint is gone on from after a reload, bit for bit", async ({inCarat, page}) => {
    const few = {...options, steps: 6, checkpoint: "my run", checkpointEvery: 2};
    const whole = await inNano(inCarat, `
        const parts = [];
        for await (const part of carat.train({data, ...options, steps: 6})) parts.push(part);
        return parts.filter((part) => part.type === "step").map((part) => part.loss);`);
    const first = await inNano(inCarat, `
        const parts = [], run = carat.train({data, ...few});
        for await (const part of run) {
            parts.push(part);
            if (part.type === "step" && part.step === 3) run.stop();
        }
        return parts;`, {few});
    const saved = first.filter((part) => part.type === "checkpoint");
    assert.ok(saved.length >= 2 && saved.every((part) => part.name === "my run"));
    assert.equal(saved[0].step, 2);
    await page.reload();
    const r = await inNano(inCarat, `
        const parts = [], kept = await Carat.checkpoints.list();
        for await (const part of carat.train({data, ...few, resume: true})) parts.push(part);
        const other = {...few, resume: true, rank: 8}, none = {...few, resume: true,
            checkpoint: "none"};
        const wrong = [await tell(carat.train({data, ...other}).result()),
            await tell(carat.train({data, ...none}).result())];
        await Carat.checkpoints.delete("my run");
        return {parts, names: kept.map((k) => k.name), wrong,
            left: (await Carat.checkpoints.list()).length};`, {few});
    const losses = (parts) => parts.filter((part) => part.type === "step").map((part) => part.loss);
    const {step} = r.parts[0];
    assert.ok(step >= 3 && step < 6, `gone on from step ${step}`);
    assert.deepEqual(losses(first).slice(0, step), whole.slice(0, step));
    assert.deepEqual(losses(r.parts), whole.slice(step));
    assert.equal(r.parts.at(-1).finishReason, "finished");
    assert.deepEqual([r.names, r.left], [["my run"], 0]);
    assert.match(r.wrong[0], /^argument: checkpoint: .*another model, data, adapter or options/);
    assert.equal(r.wrong[1], 'not-found: there is no checkpoint "none"');
}, {routes});

browserTest("what cannot be trained is said in a sentence; rows, CSV and a list can", async ({
    inCarat}) => {
    const r = await inNano(inCarat, `
        const train = (options) => carat.train({rank: 2, steps: 1, ...options});
        const said = [];
        for (const given of [{}, {data: ""}, {data: "{"}, {data: [{a: 1}]}, {data: 7},
            {data, rank: 5000}, {data, targets: ["x"]}, {data, learnign: 1}, {data, resume: true},
            {data, adapter: {}}, {data: '{"text": "a"}\\n{', badRows: "fail"},
            {data, firstLayer: 50}]) {
            let run = null;
            said.push(await tell((async () => {
                run = train(given);
                await run.result();
            })()));
            await run?.close();
        }
        const rows = [{prompt: "a", completion: "b"}, {text: "c"}, {instruction: "d", output: "e"},
            {messages: [{role: "user", content: "f"}, {role: "assistant", content: "g"}]}];
        const good = [];
        for (const given of [rows, JSON.stringify(rows), new Blob(["prompt,completion\\na,b\\n"],
            {type: "text/csv"}), new File(["prompt,completion\\na,b\\nc,d\\n"], "my.CSV")]) {
            const run = train({data: given});
            for await (const part of run)
                if (part.type === "report") good.push(part.report.samples);
            await run.close();
        }
        const from = train({data: rows}), adapter = (await from.result(), await from.adapter());
        const more = await carat.train({data: rows, adapter, steps: 1}).result();
        return {said, good, more: more.finishReason};`);
    const expected = [/^argument: train: data/, /^\w+: .*data\.jsonl/, /^\w+: .*data\.jsonl/,
        /^\w+: .*data\.jsonl/, /^argument: train: data/, /^argument: .*rank of 5000/,
        /^argument: train: targets/, /^argument: train: there is no option learnign/,
        /^argument: train: resume/, /^argument: an adapter/, /^format: data: line 2/,
        /^argument: .*layers/];
    for (const [i, text] of r.said.entries()) assert.match(text, expected[i]);
    assert.deepEqual([r.said.length, r.good, r.more], [expected.length, [4, 4, 1, 2], "finished"]);
}, {routes});
