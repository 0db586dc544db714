/* answer.js without a browser: readers fast and slow, ends of every kind. */
import assert from "node:assert/strict";
import {test} from "node:test";
import {setImmediate as turn} from "node:timers/promises";
import {Answer} from "../../web/answer.js";

const usage = {promptTokens: 1, cachedTokens: 0, completionTokens: 2, promptSeconds: 0,
    completionSeconds: 0, tokensPerSecond: 0};
const text = (s) => ({type: "text", text: s});
const end = (finishReason = "stop") => ({type: "usage", usage, finishReason});

test("a reader that waits gets every part as it comes", async () => {
    const answer = new Answer(() => {});
    const seen = [];
    const reading = (async () => {
        for await (const part of answer) seen.push(part.text ?? part.type);
    })();
    for (const s of ["a", "b"]) {
        answer.add(text(s));
        await turn();
        assert.equal(seen.at(-1), s);
    }
    answer.add(end());
    await reading;
    assert.deepEqual(seen, ["a", "b", "usage"]);
});

test("a slow reader loses nothing, and a second one reads it all again", async () => {
    const answer = new Answer(() => assert.fail("it was not left"));
    for (let i = 0; i < 1000; i++) answer.add(text(`${i} `));
    answer.add(end("length"));
    for (let round = 0; round < 2; round++) {
        let n = 0;
        for await (const part of answer) {
            if (part.type === "text") assert.equal(part.text, `${n++} `);
            if (n % 100 === 0) await turn();
        }
        assert.equal(n, 1000);
    }
    const {text: whole, finishReason} = await answer.result();
    assert.equal(whole.split(" ").length, 1001);
    assert.equal(finishReason, "length");
});

test("result() sums up", async () => {
    const answer = new Answer(() => {});
    const call = {id: "1", name: "f", arguments: {}};
    const logprob = {token: "a", id: 1, logprob: 0, top: []};
    for (const part of [{type: "thinking", text: "t", logprobs: [logprob]}, text("a"), text("b"),
        {type: "notice", text: "n"}, {type: "toolCall", toolCall: call}, end("tool_calls")])
        answer.add(part);
    assert.deepEqual(await answer.result(), {text: "ab", thinking: "t", toolCalls: [call], usage,
        finishReason: "tool_calls", logprobs: [logprob]});
});

test("an error comes after the parts before it, for every reader", async () => {
    const answer = new Answer(() => {});
    answer.add(text("a"));
    answer.fail(new Error("broken"));
    answer.add(text("too late"));
    const seen = [];
    await assert.rejects(async () => {
        for await (const part of answer) seen.push(part.text);
    }, /broken/);
    assert.deepEqual(seen, ["a"]);
    await assert.rejects(answer.result(), /broken/);
});

test("leaving the loop stops it, and waits until it has stopped", async () => {
    let stopped = 0;
    const answer = new Answer(async () => {
        stopped++;
        await turn();
        answer.add(end("aborted"));
    });
    answer.add(text("a"));
    answer.add(text("b"));
    for await (const part of answer) if (part.type === "text") break;
    const {text: said, finishReason} = await answer.result();
    assert.deepEqual([stopped, said, finishReason], [1, "ab", "aborted"]);
    answer.stop();
    assert.equal(stopped, 1, "what is over is not stopped again");
});

test("an answer that nobody reads, and that fails, is no unhandled rejection", async () => {
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on("unhandledRejection", note);
    new Answer(() => {}).fail(new Error("unread"));
    await turn();
    await turn();
    process.off("unhandledRejection", note);
    assert.deepEqual(unhandled, []);
});
