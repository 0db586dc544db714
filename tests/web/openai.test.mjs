/* openai.js without a browser: requests in OpenAI's shapes become options of chat(), answers become
 * completions and chunks. */
import assert from "node:assert/strict";
import {webcrypto} from "node:crypto";
import {test} from "node:test";
import {Answer} from "../../web/answer.js";
import {chatOptions, completionsOf} from "../../web/openai.js";
import {chatRequest} from "../../web/request.js";

globalThis.crypto ??= webcrypto; // node 18 has no global one
const user = [{role: "user", content: "Hello"}];
const usage = {promptTokens: 5, cachedTokens: 2, completionTokens: 3, promptSeconds: 1,
    completionSeconds: 1, tokensPerSecond: 2};

/** Without the options that were not given. */
function options(request) {
    return JSON.parse(JSON.stringify(chatOptions({messages: user, ...request})));
}

/** completions whose answers have these parts; asked: what chat() was called with. */
function fake(parts) {
    const asked = [];
    const stopped = [];
    const {create} = completionsOf((request) => {
        asked.push(request);
        const answer = new Answer(() => {
            stopped.push(true);
            answer.add({type: "usage", usage, finishReason: "aborted"});
        });
        for (const part of parts) {
            if (part instanceof Error) answer.fail(part);
            else answer.add(part);
        }
        return answer;
    }, "Nano");
    return {create, asked, stopped};
}

async function all(stream) {
    const list = [];
    for await (const item of stream) list.push(item);
    return list;
}

const rejects = (request, code, message) =>
    assert.throws(() => chatRequest(chatOptions({messages: user, ...request})), (error) => {
        assert.equal(error.name, "CaratError");
        assert.equal(error.code, code);
        assert.match(error.message, message);
        return true;
    });

test("every field becomes its option", () => {
    assert.deepEqual(options({model: "any", temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.1,
        seed: 7, stop: ["a", "b"], frequency_penalty: 1, presence_penalty: -1, max_tokens: 9,
        logprobs: true, top_logprobs: 4, reasoning_effort: "low", user: "me", n: 1,
        parallel_tool_calls: true, logit_bias: {}, stream: true}), {
        messages: user, temperature: 0.5, topP: 0.9, topK: 40, minP: 0.1, seed: 7,
        stop: ["a", "b"], frequencyPenalty: 1, presencePenalty: -1, maxTokens: 9, logprobs: 4,
        thinking: true});
    assert.deepEqual(options({max_completion_tokens: 3, logprobs: true, temperature: null}),
        {messages: user, maxTokens: 3, logprobs: true});
    assert.equal(options({reasoning_effort: "none"}).thinking, false);
});

test("response formats", () => {
    const schema = {type: "object", properties: {a: {type: "integer"}}};
    const format = (response_format) => chatRequest(chatOptions({messages: user, response_format}));
    assert.equal(format({type: "json_schema", json_schema: {name: "a", strict: true, schema}})
        .schema, JSON.stringify(schema));
    assert.equal(format({type: "json_object"}).schema, '{"type":"object"}');
    assert.equal(format({type: "text"}).schema, undefined);
    rejects({response_format: {type: "json_schema"}}, "argument", /json_schema.schema is missing/);
    rejects({response_format: {type: "xml"}}, "argument", /responseFormat/);
});

test("a conversation with tools reaches the engine in its own shape", () => {
    const tools = [{type: "function", function: {name: "add", parameters: {type: "object"}}}];
    const messages = [
        {role: "developer", content: "Be brief."},
        {role: "user", content: [{type: "text", text: "23 + 45?"}], name: "me"},
        {role: "assistant", content: null, reasoning: "a sum", tool_calls: [
            {id: "c1", type: "function", function: {name: "add", arguments: '{"a":23,"b":45}'}}]},
        {role: "tool", tool_call_id: "c1", content: "68"},
    ];
    const request = chatRequest(chatOptions({messages, tools, tool_choice: "auto"}));
    assert.deepEqual(JSON.parse(JSON.stringify(request)), {tools, media: [], messages: [
        {role: "developer", content: "Be brief."},
        {role: "user", content: [{type: "text", text: "23 + 45?"}]},
        {role: "assistant", content: "", reasoning: "a sum", tool_calls: [
            {id: "c1", type: "function", function: {name: "add", arguments: {a: 23, b: 45}}}]},
        {role: "tool", tool_call_id: "c1", content: "68"}]});
    assert.equal(chatOptions({messages, tools, tool_choice: "none"}).tools, undefined);
});

test("pictures and sounds: a sign in the message, the data beside it", () => {
    const url = "data:text/plain;base64,QUJD";
    const content = [{type: "image_url", image_url: {url, detail: "high"}},
        {type: "text", text: "?"},
        {type: "input_audio", input_audio: {data: "QUJD", format: "wav"}}];
    const {messages, media, imageTokens} = chatRequest(chatOptions({image_tokens: 140,
        messages: [{role: "user", content}]}));
    assert.deepEqual(messages[0].content,
        [{type: "image"}, {type: "text", text: "?"}, {type: "audio"}]);
    assert.deepEqual(media.map((m) => m.where),
        ["messages[0]: content[0]", "messages[0]: content[2]"]);
    assert.equal(media[0].part.image, url);
    assert.deepEqual([media[1].part.audio.type, media[1].part.audio.size], ["audio/wav", 3]);
    assert.equal(imageTokens, 140);
});

test("what would change the answer and is not understood is refused", () => {
    rejects({n: 2}, "unsupported", /^n: 2 /);
    rejects({tool_choice: "required"}, "unsupported", /tool_choice/);
    rejects({tool_choice: {type: "function", function: {name: "a"}}}, "unsupported", /tool_choice/);
    rejects({logit_bias: {5: 1}}, "unsupported", /logit_bias/);
    rejects({functions: []}, "unsupported", /functions/);
    rejects({parallel_tool_calls: false}, "unsupported", /parallel_tool_calls/);
    rejects({modalities: ["text", "audio"]}, "unsupported", /modalities/);
    rejects({unheard_of: 1}, "unsupported", /unheard_of/);
    rejects({messages: [{role: "user", content: [{type: "file", file: {file_id: "x"}}]}]},
        "unsupported", /messages\[0\]: content\[0\]: type file/);
    rejects({messages: [{role: "system", content: [{type: "image_url", image_url: {url: "x"}}]}]},
        "argument", /messages\[0\]: content\[0\]/);
    rejects({messages: [{role: "assistant", function_call: {}}]}, "unsupported", /function_call/);
    assert.doesNotThrow(() => chatOptions({messages: user, n: null, functions: undefined}));
});

test("what is wrong is named", () => {
    rejects({messages: undefined}, "argument", /messages/);
    rejects({messages: []}, "argument", /messages/);
    rejects({messages: [{role: "robot", content: ""}]}, "argument", /messages\[0\].*robot/);
    rejects({messages: [{role: "user"}]}, "argument", /messages\[0\]/);
    rejects({messages: [null]}, "argument", /messages\[0\]/);
    rejects({messages: [{role: "assistant", tool_calls: [{type: "function", id: "1",
        function: {name: "a", arguments: "{"}}]}]}, "argument", /tool_calls\[0\].*JSON/);
    rejects({temperature: "hot"}, "argument", /temperature/);
    rejects({temperature: NaN}, "argument", /temperature/);
    rejects({temperature: -1}, "argument", /temperature.*not negative/); // not "the default"
    rejects({max_tokens: 0}, "argument", /maxTokens/);
    rejects({stop: [""]}, "argument", /stop/);
    rejects({logprobs: true, top_logprobs: 21}, "argument", /logprobs/);
    rejects({top_logprobs: 2}, "argument", /top_logprobs/);
    rejects({reasoning_effort: "very"}, "argument", /reasoning_effort/);
    rejects({tools: [{function: {}}]}, "argument", /tools\[0\]/);
});

const logprob = {token: "é", id: 3, logprob: -0.5, top: [{token: "e", id: 4, logprob: -1}]};
const call = {id: "call_1", name: "add", arguments: {a: 1}};
const parts = [
    {type: "thinking", text: "hm", logprobs: [{...logprob, token: "hm"}]},
    {type: "text", text: "", logprobs: [logprob]},
    {type: "text", text: "Yes"},
    {type: "toolCall", toolCall: call},
    {type: "usage", usage, finishReason: "tool_calls"},
];
const openAiLogprob = {token: "é", bytes: [0xc3, 0xa9], logprob: -0.5,
    top_logprobs: [{token: "e", bytes: [0x65], logprob: -1}]};
const openAiCall = {id: "call_1", type: "function", function: {name: "add", arguments: '{"a":1}'}};
const openAiUsage = {prompt_tokens: 5, completion_tokens: 3, total_tokens: 8,
    prompt_tokens_details: {cached_tokens: 2}};

test("options of the call may be null, as in openai", async () => {
    const {create} = fake(parts);
    assert.equal((await create({messages: user}, null)).choices.length, 1);
});

test("a completion", async () => {
    const {id, created, ...rest} = await fake(parts).create({messages: user});
    assert.match(id, /^chatcmpl-[0-9a-f]{24}$/);
    assert.ok(Math.abs(created - Date.now() / 1000) < 10);
    const choice = {index: 0, finish_reason: "tool_calls",
        logprobs: {content: [openAiLogprob], refusal: null},
        message: {role: "assistant", content: "Yes", refusal: null, reasoning: "hm",
            tool_calls: [openAiCall]}};
    assert.deepEqual(rest, {object: "chat.completion", model: "Nano", usage: openAiUsage,
        choices: [choice]});
    const bare = await fake([parts[3], parts[4]]).create({messages: user, stream: null});
    assert.equal(bare.choices[0].message.content, null);
    assert.equal(bare.choices[0].logprobs, null);
});

test("a stream says the same in pieces", async () => {
    const stream = await fake(parts).create({messages: user, stream: true,
        stream_options: {include_usage: true}});
    const chunks = await all(stream);
    assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
    assert.ok(chunks.every((c) => c.object === "chat.completion.chunk" && c.model === "Nano"));
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.deepEqual(chunks.at(-1).usage, openAiUsage);
    assert.deepEqual(chunks.slice(0, -1).map((c) => [c.choices[0].delta,
        c.choices[0].finish_reason, c.usage]), [
        [{role: "assistant", content: ""}, null, null],
        [{reasoning: "hm"}, null, null],
        [{content: ""}, null, null],
        [{content: "Yes"}, null, null],
        [{tool_calls: [{index: 0, ...openAiCall}]}, null, null],
        [{}, "tool_calls", null],
    ]);
    assert.deepEqual(chunks[2].choices[0].logprobs,
        {content: [openAiLogprob], refusal: null});
    const without = await all(await fake(parts).create({messages: user, stream: true}));
    assert.equal(without.length, chunks.length - 1);
    assert.ok(!("usage" in without[0]));
});

test("errors before the first part reject create(), later ones the stream", async () => {
    const broken = new Error("broken");
    await assert.rejects(fake([broken]).create({messages: user, stream: true}), /broken/);
    await assert.rejects(fake([parts[2], broken]).create({messages: user}), /broken/);
    const stream = await fake([parts[2], broken]).create({messages: user, stream: true});
    await assert.rejects(all(stream), /broken/);
    await assert.rejects(fake(parts).create({messages: user, n: 2}), /^CaratError: n: 2/);
});

test("an aborted completion is an error, an aborted stream ends", async () => {
    const aborted = [parts[2], {type: "usage", usage, finishReason: "aborted"}];
    await assert.rejects(fake(aborted).create({messages: user}),
        (error) => error.code === "aborted");
    const chunks = await all(await fake(aborted).create({messages: user, stream: true}));
    assert.deepEqual(chunks.map((c) => c.choices[0].finish_reason), [null, null]);
    const {signal} = new AbortController();
    const {create, asked} = fake(parts);
    await create({messages: user}, {signal});
    assert.equal(asked[0].signal, signal);
});

test("leaving a stream stops the answer", async () => {
    const {create, stopped} = fake(parts.slice(0, 3));
    for await (const chunk of await create({messages: user, stream: true}))
        if (chunk.choices[0].delta.content) break;
    assert.equal(stopped.length, 1);
});
