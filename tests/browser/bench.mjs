// Measures a model in Chromium beside the native `carat bench` on the same adapter:
//
//     node tests/browser/bench.mjs [--model FILE] [--device gpu|cpu] [--pp 128,512] [--tg 0]
//         [--generate N] [--train TOKENS] [--reps N] [--csv FILE]
//
// Needs `make` and `make web`. Without --model it is nano. On SwiftShader, a GPU in software; with
// TEST_GPU=real on the machine's own. Prints a table with ratios; --csv appends the browser's
// lines to a file as in bench/results/. See docs/speed.md.

import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { parseArgs, promisify } from "node:util";
import { launch, skipReason, until } from "./chromium.mjs";
import { repository, startServer, webRoot } from "./server.mjs";

const swiftshader = "/usr/lib/chromium/vk_swiftshader_icd.json";
const { values: options } = parseArgs({
    options: {
        model: { type: "string", default: path.join(repository, "models/nano.gguf") },
        device: { type: "string", default: "gpu" },
        pp: { type: "string", default: "128,512" },
        tg: { type: "string", default: "0" },
        generate: { type: "string", default: "64" },
        train: { type: "string", default: "0" }, // tokens of a step
        reps: { type: "string", default: "3" },
        csv: { type: "string" },
        seconds: { type: "string", default: "1800" },
    },
});

/** The native figures: {device, load_s, tests: [{test, tokens_per_s}], train: {the same}}. */
async function native() {
    const env = { ...process.env };
    if (env.TEST_GPU !== "real") env.VK_DRIVER_FILES = env.VK_ICD_FILENAMES = swiftshader;
    const program = process.env.CARAT || path.join(repository, "build/carat");
    const { model, device, pp, tg, generate, train, reps } = options;
    const args = ["bench", model, "--device", device, "--pp", pp || "none", "--tg", tg || "none",
        "--generate", generate, "--reps", reps, "--json"];
    if (Number(train)) args.push("--train", "--train-tokens", train);
    const { stdout } = await promisify(execFile)(program, args, { env, maxBuffer: 1 << 24 });
    return JSON.parse(stdout);
}

/** The figures of the page, as web/bench/main.js keeps them. */
async function inBrowser() {
    const site = await startServer();
    const browser = await launch();
    const page = await browser.newPage();
    if (process.env.TEST_VERBOSE) page.on("console", (m) => console.error(`    ${m.text()}`));
    try {
        await page.goto(`${site.origin}/bench/`);
        await page.setInputFiles("#file", options.model); // read in place, as a user's file is
        await page.selectOption("#device", options.device);
        for (const id of ["pp", "tg", "generate", "train", "reps"])
            await page.fill(`#${id}`, options[id]);
        await page.click("#start");
        const done = () => page.evaluate(() => globalThis.benchResult);
        const result = await until("the benchmark in the page", done, Number(options.seconds));
        if (result.error) throw new Error(`in the browser: ${result.error}`);
        return result;
    } finally {
        await browser.close();
        await site.stop();
    }
}

function print(here, there) {
    const features = there.device.features.join(", ") || "baseline";
    const wasm = fs.statSync(path.join(webRoot, "carat/carat.wasm")).size;
    console.log(`model    ${here.model}`);
    console.log(`native   ${here.device}`);
    console.log(`browser  ${there.device.name} (${features})`);
    console.log(`wasm     ${wasm} bytes, heap ${(there.memory.heapBytes / 1e6).toFixed(1)} MB\n`);
    const rows = [["test", "native", "browser", "ratio"]];
    const add = (name, a, b, digits, unit, ratio) => {
        const cells = [a, b].map((v) => `${v.toFixed(digits)} ${unit}`);
        rows.push([name, ...cells, `${(100 * ratio).toFixed(0)} %`]);
    };
    for (const { test, tokensPerSecond } of there.tests) {
        const rate = [...here.tests, here.train].find((t) => t?.test === test)?.tokens_per_s;
        if (rate) add(test, rate, tokensPerSecond, 1, "tok/s", tokensPerSecond / rate);
    }
    const load = there.warm.loadSeconds;
    add("load", here.load_s, load, 3, "s", here.load_s / load);
    for (const row of rows)
        console.log(row.map((cell, i) => (i ? cell.padStart(16) : cell.padEnd(14))).join(""));
    const ms = (start) => `${(start.firstTokenSeconds * 1e3).toFixed(0)} ms`;
    console.log(`\nfirst token: ${ms(there.cold)} after the first load (compiles), ` +
        `${ms(there.warm)} after a warm start (loads in ${load.toFixed(2)} s)`);
}

function appendCsv(file, lines) {
    const results = path.join(repository, "bench/results");
    const some = fs.readdirSync(results).find((f) => f.endsWith(".csv"));
    const [head] = fs.readFileSync(path.join(results, some), "utf8").split("\n");
    if (!fs.existsSync(file)) fs.writeFileSync(file, `${head}\n`);
    fs.appendFileSync(file, `${lines}\n`);
}

if (skipReason) throw new Error(skipReason);
const there = await inBrowser();
const here = await native();
print(here, there);
console.log(`\n${there.csv}`);
if (options.csv) appendCsv(options.csv, there.csv);
