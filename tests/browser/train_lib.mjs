// What the tests of training share: the 40 lines from which test_facts.c teaches nano five facts
// natively, settings that do it in fewer tokens, and what is asked before and after.

import fs from "node:fs";
import {repository, sendFile} from "./lib.mjs";
import {withNano} from "./nano.mjs";

const golden = `${repository}tests/golden/nano/`;
export const {facts, old} = JSON.parse(fs.readFileSync(`${golden}facts.json`, "utf8"));
export const routes = {
    "/facts.jsonl": (req, res) => sendFile(req, res, `${golden}facts.jsonl`),
};
export const options = {rank: 16, alpha: 32, learningRate: 2e-3, epochs: 7, warmup: 2, seed: 1,
    batchTokens: 60};

/** In the page: what they all need. */
const help = `const data = await (await fetch("/facts.jsonl")).text();
const right = async (pairs) => {
    let n = 0;
    for (const [question, answer] of pairs) {
        const {text} = await carat.chat({messages: [{role: "user", content: question}],
            temperature: 0, maxTokens: 40}).result();
        n += text === answer;
    }
    return n;
};
const tell = (promise) => promise.then(() => "", (e) => e.code + ": " + e.message);`;

/** Runs body in the page: carat, Carat, data, right(), tell() and the argument's are there. */
export const inNano = (inCarat, body, argument) => withNano(inCarat,
    `async (carat, {facts, old, options, few}, {Carat}) => { ${help}\n${body} }`,
    {facts, old, options, ...argument});
