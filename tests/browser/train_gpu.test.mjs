// Training on a GPU in the browser: the losses are those of the CPU, and what was learned comes
// back. (That every number of it is right, test_train_gpu.c shows natively.)

import assert from "node:assert/strict";
import {browserTest} from "./lib.mjs";
import {onCpu, withNano} from "./nano.mjs";

browserTest("two steps on the GPU are two steps on the CPU", async ({inCarat}) => {
    const train = (device) => withNano(inCarat, async (carat) => {
        const data = [{prompt: "Where does Ada live?", completion: "Ada lives in Turin."}];
        const run = carat.train({data, rank: 4, targets: ["q", "v"], firstLayer: 8, steps: 2,
            learningRate: 0.01, seed: 1});
        const losses = [];
        for await (const part of run) if (part.type === "step") losses.push(part.loss);
        const [, config] = await run.export("peft");
        return {losses, kind: carat.device.kind, config: JSON.parse(await config.text())};
    }, undefined, {...onCpu, device});
    const gpu = await train("gpu"), cpu = await train("cpu");
    assert.deepEqual([gpu.kind === "cpu", cpu.kind, gpu.losses.length], [false, "cpu", 2]);
    for (const [i, loss] of gpu.losses.entries())
        assert.ok(Math.abs(loss - cpu.losses[i]) < 0.01 * cpu.losses[i],
            `${gpu.losses} on the GPU, ${cpu.losses} on the CPU`);
    assert.ok(gpu.losses[1] < gpu.losses[0]);
    assert.deepEqual([gpu.config.r, gpu.config], [4, cpu.config]);
}, {seconds: 300});
