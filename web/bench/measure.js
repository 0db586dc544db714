// @ts-check
/* measure: loads a model and times it, through the same interface that every page uses. The tests
 * are those of `carat bench`: ppN reads a prompt of N tokens, tg@N generates behind N tokens,
 * trainN/Nr16 lets an adapter of rank 16 learn in steps of N tokens.
 *
 * It counts tokens and seconds as the engine's usage says, so that the figures compare with the
 * native ones; "first token" is what a user waits: from the call until text arrives here.
 *
 * Flow: main.js before; the package carat after. */
import {Carat} from "../carat/carat.js";

/**
 * @typedef {{device: "auto" | "gpu" | "cpu", pp: number[], tg: number[], generate: number,
 *     train: number, reps: number}} Plan train: tokens of a step; 0: nothing is learned
 * @typedef {{loadSeconds: number, firstTokenSeconds: number}} Start
 * @typedef {{test: string, tokensPerSecond: number}} Test
 */

const words = ("the of and to in is that for it as was with be by on not he this are or his " +
    "from at which but have an they you were there one all we can her has their if will each " +
    "about how up out then many some so these would other into more like him time see two no " +
    "make than first been its who now people my made over did down only way find use may water " +
    "long little very after words called just where most know").split(" ");

const now = () => performance.now() / 1000;

/** Text of n tokens (BOS not counted), another one for another seed.
 * @param {Carat} carat @param {number} n @param {number} seed */
async function makePrompt(carat, n, seed) {
    let state = seed * 2654435761 >>> 0, text = "";
    for (let size = n; ; size *= 2) {
        for (let i = 0; i < size; i++) {
            state = Math.imul(state, 1664525) + 1013904223 >>> 0;
            text += `${text && " "}${words[(state >>> 8) % words.length]}`;
        }
        const ids = await carat.tokenize(text);
        if (ids.length >= n) return carat.detokenize(ids.slice(0, n));
    }
}

/** @param {Carat} carat @param {string} prompt @param {number} maxTokens */
async function usageOf(carat, prompt, maxTokens) {
    return (await carat.generate(prompt, {maxTokens, temperature: 0}).result()).usage;
}

/** Tokens a second of one reading.
 * @param {Carat} carat @param {number} n @param {number} seed */
async function readOnce(carat, n, seed) {
    const usage = await usageOf(carat, await makePrompt(carat, n, seed), 1);
    return (usage.promptTokens - usage.cachedTokens) / usage.promptSeconds;
}

/** Tokens a second over n generated ones; a model that ends early is asked again. The first token
 * of an answer comes with its prompt and is not counted, as in `carat bench`.
 * @param {Carat} carat @param {number} depth @param {number} n */
async function generateOnce(carat, depth, n) {
    let tokens = 0, seconds = 0;
    for (let seed = 1; tokens < n - 1 && seed < 20; seed++) {
        const prompt = await makePrompt(carat, Math.max(depth, 4), seed);
        const usage = await usageOf(carat, prompt, n - tokens);
        tokens += Math.max(usage.completionTokens - 1, 0);
        seconds += usage.completionSeconds;
    }
    if (tokens < 1) throw new Error("the model ends its text at once: nothing was generated");
    return tokens / seconds;
}

/** Tokens a second in the median step of those behind the first one, which compiles. A step has one
 * sample, of which everything is learned.
 * @param {Carat} carat @param {number} n tokens of a step @param {number} reps
 * @param {(text: string) => void} say */
async function learn(carat, n, reps, say) {
    const data = [], rates = [];
    for (let i = 0; i <= reps; i++) data.push({text: await makePrompt(carat, n, 100 + i)});
    const run = carat.train({data, maxLength: n, batchTokens: n, epochs: 1});
    let tokens = 0, seconds = 0;
    for await (const part of run) {
        if (part.type !== "step") continue;
        rates.push((part.tokens - tokens) / (part.seconds - seconds));
        ({tokens, seconds} = part);
        say(`learning, ${part.step} of ${part.steps} steps`);
    }
    await run.close();
    return median(rates.slice(1));
}

/** @param {number[]} values */
function median(values) {
    const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Loads the model and waits for the first text of an answer.
 * @param {string | Blob} source @param {import("../carat/carat.js").LoadOptions} options
 * @returns {Promise<{carat: Carat, start: Start}>} */
async function start(source, options) {
    const begin = now();
    const carat = await Carat.load(source, options);
    const loaded = now();
    const messages = [{role: /** @type {const} */ ("user"), content: "Say hello."}];
    const answer = carat.chat({messages, maxTokens: 2, temperature: 0});
    let first = 0;
    for await (const part of answer) if (part.type !== "notice") first ||= now();
    return {carat, start: {loadSeconds: loaded - begin, firstTokenSeconds: first - loaded}};
}

/** Runs the plan. say: what is being done, for people.
 * @param {string | Blob} source @param {Plan} plan @param {(text: string) => void} say */
export async function measure(source, plan, say) {
    say("reading the header");
    const header = await Carat.estimate(source, {device: plan.device});
    if (!header.fits) throw new Error(header.reason ?? "the model does not fit here");
    const fits = (/** @type {number} */ n) => n + plan.generate + 16 <= header.maxContextLength;
    const pp = plan.pp.filter(fits), tg = plan.tg.filter(fits);
    const contextLength = Math.max(64, ...pp, ...tg) + plan.generate + 16;
    const onProgress = (/** @type {import("../carat/carat.js").Progress} */ p) =>
        say(`${p.phase}: ${(p.done / 1e6).toFixed(0)} of ${(p.total / 1e6).toFixed(0)} MB`);
    const options = {device: plan.device, contextLength, onProgress};

    const first = await start(source, options);
    const carat = first.carat;
    /** @type {Test[]} */
    const tests = [];
    /** @param {string} test @param {(rep: number) => Promise<number>} once */
    const run = async (test, once) => {
        const rates = [];
        for (let rep = 0; rep < plan.reps; rep++) {
            say(`${test}, run ${rep + 1} of ${plan.reps}`);
            rates.push(await once(rep));
        }
        tests.push({test, tokensPerSecond: median(rates)});
    };
    say("warming up");
    await usageOf(carat, await makePrompt(carat, 32, 1), 4); // compiles what is not yet compiled
    for (const n of pp) await run(`pp${n}`, (rep) => readOnce(carat, n, 2 + rep));
    for (const n of tg) await run(`tg@${n}`, () => generateOnce(carat, n, plan.generate));
    if (plan.train) {
        say("learning");
        tests.push({test: `train${plan.train}/${plan.train}r16`,
            tokensPerSecond: await learn(carat, plan.train, plan.reps, say)});
    }
    const {model, device} = carat, memory = await carat.memory();
    await carat.close();

    say("starting once more");
    const warm = await start(source, options);
    await warm.carat.close();
    say("");
    return {version: Carat.version, model, device, memory, tests, cold: first.start,
        warm: warm.start};
}
