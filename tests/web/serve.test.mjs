// `carat serve` from outside, by the clients that people have: npm `openai` and `ollama`, and bare
// sockets for what no client does. Every test has nano on the CPU; CARAT names another program.
//
// Owns: the HTTP APIs' shapes, and how the server bears slow and vanishing clients. Files, ranges
// and refusals are in tests/test_serve.sh.

import assert from "node:assert/strict";
import {spawn} from "node:child_process";
import {existsSync} from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import {after, before, test} from "node:test";
import {setTimeout as sleep} from "node:timers/promises";
import {fileURLToPath} from "node:url";
import OpenAI from "openai";
import {Ollama} from "ollama";

const root = fileURLToPath(new URL("../../", import.meta.url));
const carat = process.env.CARAT || path.join(root, "build/carat");
const sum = [{role: "user", content: "What is 23 + 45?"}];
const weather = [{role: "user", content: "What is the weather in Paris?"}];
const tools = [{type: "function", function: {name: "get_weather", description: "Get weather",
    parameters: {type: "object", properties: {city: {type: "string"}}, required: ["city"]}}}];
// At this temperature all tokens are equally likely: the answer goes on for long.
const endless = {model: "nano", prompt: "Once", temperature: 100, top_k: 0, top_p: 1, seed: 6,
    max_tokens: 4000, stream: true};

/** Starts a server; {url, port, stop(signal) -> exit code, errors()}. */
async function serve(...args) {
    const child = spawn(carat, ["serve", "--port", "0", "--device", "cpu", ...args], {
        cwd: root, stdio: ["ignore", "pipe", "pipe"],
        env: {...process.env, OMP_WAIT_POLICY: "passive", OLLAMA_MODELS: "/nowhere",
            HOME: "/nowhere"},
    });
    let out = "", errors = "";
    const ended = new Promise((resolve) => child.on("exit", (code) => resolve(code)));
    child.stderr.on("data", (data) => errors += data);
    const url = await new Promise((resolve, reject) => {
        child.stdout.on("data", (data) => {
            out += data;
            const found = /http:\S+/.exec(out);
            if (found) resolve(found[0]);
        });
        ended.then((code) => reject(new Error(`carat serve ended with ${code}: ${errors}`)));
    });
    return {
        url, port: Number(new URL(url).port), errors: () => errors,
        stop(signal = "SIGINT") {
            child.kill(signal);
            return ended;
        },
    };
}

/** POSTs and gives {status, headers, text} of the whole response. */
async function post(server, route, body, headers = {}) {
    const response = await fetch(new URL(route, server.url), {
        method: "POST", body: typeof body === "string" ? body : JSON.stringify(body),
        headers: {"content-type": "application/json", ...headers},
    });
    return {status: response.status, headers: response.headers, text: await response.text()};
}

/** Starts a streaming request and resolves with its first bytes; {socket, request}. */
function begin(server, route, body) {
    return new Promise((resolve, reject) => {
        const request = http.request(new URL(route, server.url), {method: "POST", agent: false},
            (response) => response.once("data", () => {
                response.pause();
                resolve({request, response});
            }));
        request.on("error", reject);
        request.end(JSON.stringify(body));
    });
}

async function collect(stream) {
    const all = [];
    for await (const item of stream) all.push(item);
    return all;
}

if (!existsSync(carat)) {
    test(`there is no ${carat}`, {skip: `NO PROGRAM: ${carat} is not built`}, () => {});
} else {
    let server, openai, ollama;
    before(async () => {
        server = await serve();
        openai = new OpenAI({baseURL: `${server.url}v1`, apiKey: "none", maxRetries: 0});
        ollama = new Ollama({host: server.url.replace(/\/$/, "")});
    });
    after(async () => server && assert.equal(await server.stop(), 130));

    // ---- OpenAI ----

    test("openai: a chat", async () => {
        const answer = await openai.chat.completions.create(
            {model: "nano", messages: sum, temperature: 0});
        assert.equal(answer.object, "chat.completion");
        assert.match(answer.id, /^chatcmpl-/);
        assert.equal(answer.choices[0].message.role, "assistant");
        assert.equal(answer.choices[0].message.content, "23 + 45 = 68.");
        assert.equal(answer.choices[0].finish_reason, "stop");
        const {prompt_tokens: p, completion_tokens: c, total_tokens: t} = answer.usage;
        assert.ok(p > 10 && c > 5 && t === p + c);
        assert.ok(Math.abs(answer.created - Date.now() / 1000) < 60);
    });

    test("openai: the same, streamed, is the same", async () => {
        const chunks = await collect(await openai.chat.completions.create({model: "nano",
            messages: sum, temperature: 0, stream: true, stream_options: {include_usage: true}}));
        const text = chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
        assert.equal(text, "23 + 45 = 68.");
        assert.equal(chunks[0].choices[0].delta.role, "assistant");
        assert.ok(chunks.length > 5, "it comes in pieces");
        assert.ok(chunks.every((c) => c.id === chunks[0].id));
        assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
        assert.deepEqual(chunks.at(-1).choices, []);
        assert.ok(chunks.at(-1).usage.prompt_tokens_details.cached_tokens > 10, "prefix reused");
        assert.equal(chunks.filter((c) => c.usage).length, 1);
    });

    test("openai: a limit, a stop text, a seed", async () => {
        const short = await openai.chat.completions.create(
            {model: "nano", messages: sum, temperature: 0, max_completion_tokens: 3});
        assert.equal(short.choices[0].finish_reason, "length");
        assert.equal(short.usage.completion_tokens, 3);
        const stopped = await openai.chat.completions.create(
            {model: "nano", messages: sum, temperature: 0, stop: [" ="]});
        assert.equal(stopped.choices[0].message.content, "23 + 45");
        assert.equal(stopped.choices[0].finish_reason, "stop");
        const seeded = () => openai.completions.create(
            {model: "nano", prompt: "Once", temperature: 5, top_p: 1, seed: 7, max_tokens: 12});
        const [a, b] = [await seeded(), await seeded()];
        assert.equal(a.choices[0].text, b.choices[0].text);
    });

    test("openai: thinking", async () => {
        const request = {model: "nano", messages: sum, temperature: 0, reasoning_effort: "low"};
        const {message} = (await openai.chat.completions.create(request)).choices[0];
        assert.equal(message.content, "23 + 45 = 68.");
        assert.match(message.reasoning, /tens/);
        assert.equal(message.reasoning_content, message.reasoning);
        const chunks = await collect(
            await openai.chat.completions.create({...request, stream: true}));
        const thought = chunks.map((c) => c.choices[0].delta.reasoning ?? "").join("");
        assert.equal(thought, message.reasoning);
        const off = await openai.chat.completions.create({...request, reasoning_effort: "none"});
        assert.equal(off.choices[0].message.reasoning, undefined);
    });

    test("openai: a tool's call and its result", async () => {
        const request = {model: "nano", messages: weather, tools, temperature: 0};
        const {usage, choices: [{message, finish_reason: finish}]} =
            await openai.chat.completions.create(request);
        assert.equal(finish, "tool_calls");
        assert.equal(message.content, null);
        const call = message.tool_calls[0];
        assert.equal(call.type, "function");
        assert.equal(call.function.name, "get_weather");
        assert.deepEqual(JSON.parse(call.function.arguments), {city: "Paris"});
        const chunks = await collect(
            await openai.chat.completions.create({...request, stream: true}));
        const streamed = chunks.flatMap((c) => c.choices[0].delta.tool_calls ?? []);
        assert.equal(streamed.length, 1);
        assert.equal(streamed[0].index, 0);
        assert.equal(streamed[0].function.arguments, call.function.arguments);
        assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
        const answer = await openai.chat.completions.create({...request, messages: [...weather,
            message, {role: "tool", tool_call_id: call.id, content: '{"degrees": 21}'}]});
        assert.match(answer.choices[0].message.content, /21 degrees/);
        const none = await openai.chat.completions.create({...request, tool_choice: "none"});
        assert.ok(none.usage.prompt_tokens < usage.prompt_tokens, "the tools are not declared");
    });

    test("openai: log-probabilities", async () => {
        const request = {model: "nano", messages: sum, temperature: 0, logprobs: true};
        const one = (await openai.chat.completions.create({...request, top_logprobs: 3}));
        const content = one.choices[0].logprobs.content;
        assert.equal(content.map((c) => c.token).join("").trim(), "23 + 45 = 68.");
        for (const c of content) {
            assert.ok(c.logprob <= 0);
            assert.equal(Buffer.from(c.bytes).toString(), c.token);
            assert.equal(c.top_logprobs.length, 3);
            assert.equal(c.top_logprobs[0].token, c.token, "greedy takes the best");
        }
        const chunks = await collect(
            await openai.chat.completions.create({...request, stream: true}));
        const streamed = chunks.flatMap((c) => c.choices[0].logprobs?.content ?? []);
        assert.deepEqual(streamed.map((c) => c.logprob), content.map((c) => c.logprob));
    });

    test("openai: answers of a JSON schema", async () => {
        const schema = {type: "object", properties: {sum: {type: "integer"}, exact:
            {type: "boolean"}}, required: ["sum", "exact"], additionalProperties: false};
        const answer = await openai.chat.completions.create({model: "nano", messages: sum,
            temperature: 0, max_tokens: 200,
            response_format: {type: "json_schema", json_schema: {name: "sum", schema}}});
        const value = JSON.parse(answer.choices[0].message.content);
        assert.ok(Number.isInteger(value.sum));
        assert.equal(typeof value.exact, "boolean");
        assert.deepEqual(Object.keys(value).sort(), ["exact", "sum"]);
    });

    test("openai: completions", async () => {
        const request = {model: "nano", prompt: "The capital of", temperature: 0, max_tokens: 6};
        const answer = await openai.completions.create({...request, logprobs: 2});
        assert.equal(answer.object, "text_completion");
        const {text, logprobs, finish_reason: finish} = answer.choices[0];
        assert.ok(text.length > 3);
        assert.equal(finish, "length");
        assert.equal(logprobs.tokens.join(""), text);
        assert.equal(logprobs.token_logprobs.length, 6);
        assert.equal(logprobs.text_offset[1], Buffer.from(logprobs.tokens[0]).length);
        assert.equal(Object.keys(logprobs.top_logprobs[0]).length, 2);
        const chunks = await collect(await openai.completions.create({...request, stream: true}));
        assert.equal(chunks.map((c) => c.choices[0].text).join(""), text);
    });

    test("openai: the models", async () => {
        const models = await collect(await openai.models.list());
        assert.deepEqual(models.map((m) => m.id), ["nano"]);
        assert.equal((await openai.models.retrieve("nano")).object, "model");
    });

    test("openai: errors have its shape", async () => {
        const messages = sum;
        const failing = (request) => openai.chat.completions.create({model: "nano", ...request})
            .then(() => assert.fail("it was accepted"), (error) => error);
        const missing = await failing({model: "gpt-4o", messages});
        assert.ok(missing instanceof OpenAI.NotFoundError);
        assert.equal(missing.code, "model_not_found");
        assert.match(missing.message, /gpt-4o/);
        for (const [request, what] of [[{}, /messages/], [{messages: "x"}, /messages/],
            [{messages: []}, /messages/],
            [{messages: [{role: "pope", content: "x"}]}, /role|pope/],
            [{messages, temperature: "hot"}, /temperature/], [{messages, top_p: 2}, /top_p/],
            [{messages, n: 3}, /n:/], [{messages, max_tokens: 0}, /max_tokens/],
            [{messages, stop: 7}, /stop/], [{messages, tools: {}}, /tools/],
            [{messages, tool_choice: "required", tools}, /tool_choice/],
            [{messages, response_format: {type: "xml"}}, /response_format/],
            [{messages, top_logprobs: 2}, /logprobs/],
            [{messages: [{role: "user", content: [{type: "image_url",
                image_url: {url: "data:image/png;base64,AAAA"}}]}]}, /text|image|picture/],
        ]) {
            const error = await failing(request);
            assert.ok(error instanceof OpenAI.BadRequestError, `${JSON.stringify(request)}: ` +
                error.message);
            assert.match(error.message, what);
            assert.equal(error.type, "invalid_request_error");
        }
        const long = await failing({messages: [{role: "user", content: "word ".repeat(20000)}]});
        assert.equal(long.code, "context_length_exceeded");
        for (const body of ["", "{", "[]", "\"x\"", '{"model":7}']) {
            const {status, text} = await post(server, "/v1/chat/completions", body);
            assert.equal(status, 400, body);
            assert.equal(JSON.parse(text).error.type, "invalid_request_error");
        }
    });

    // ---- Ollama ----

    test("ollama: a chat, whole and in lines", async () => {
        const request = {model: "nano", messages: sum, options: {temperature: 0}};
        const answer = await ollama.chat(request);
        assert.equal(answer.message.content, "23 + 45 = 68.");
        assert.equal(answer.message.role, "assistant");
        assert.equal(answer.done, true);
        assert.equal(answer.done_reason, "stop");
        assert.ok(Math.abs(new Date(answer.created_at) - Date.now()) < 60000);
        for (const key of ["total_duration", "prompt_eval_count", "prompt_eval_duration",
            "eval_count", "eval_duration"])
            assert.ok(Number.isInteger(answer[key]) && answer[key] > 0, key);
        assert.ok(answer.load_duration >= 0);
        assert.ok(answer.total_duration >= answer.eval_duration);
        const lines = await collect(await ollama.chat({...request, stream: true}));
        assert.equal(lines.map((l) => l.message.content).join(""), "23 + 45 = 68.");
        assert.ok(lines.slice(0, -1).every((l) => l.done === false));
        assert.equal(lines.at(-1).done_reason, "stop");
        assert.equal(lines.at(-1).eval_count, answer.eval_count);
        const raw = await post(server, "/api/chat", {model: "nano", messages: sum});
        assert.match(raw.headers.get("content-type"), /^application\/x-ndjson/);
        assert.ok(raw.text.trim().split("\n").length > 5, "streaming is the default");
    });

    test("ollama: thinking", async () => {
        const request = {model: "nano", messages: sum, options: {temperature: 0}};
        for (const think of [true, "high"]) {
            const {message} = await ollama.chat({...request, think});
            assert.match(message.thinking, /tens/);
            assert.equal(message.content, "23 + 45 = 68.");
        }
        assert.equal((await ollama.chat({...request, think: false})).message.thinking, undefined);
        const lines = await collect(await ollama.chat({...request, think: true, stream: true}));
        assert.match(lines.map((l) => l.message.thinking ?? "").join(""), /tens/);
    });

    test("ollama: a tool's call and its result", async () => {
        const request = {model: "nano", messages: weather, tools, options: {temperature: 0}};
        const {message} = await ollama.chat(request);
        assert.equal(message.tool_calls.length, 1);
        assert.equal(message.tool_calls[0].function.name, "get_weather");
        assert.deepEqual(message.tool_calls[0].function.arguments, {city: "Paris"});
        const lines = await collect(await ollama.chat({...request, stream: true}));
        assert.deepEqual(lines.flatMap((l) => l.message.tool_calls ?? [])[0].function.arguments,
            {city: "Paris"});
        const answer = await ollama.chat({...request, messages: [...weather, message,
            {role: "tool", tool_name: "get_weather", content: '{"degrees": 21}'}]});
        assert.match(answer.message.content, /21 degrees/);
    });

    test("ollama: generate, raw and not, and options", async () => {
        const options = {temperature: 0, num_predict: 6};
        const answer = await ollama.generate({model: "nano", prompt: sum[0].content, options});
        assert.match(answer.response, /^23 \+ 45/);
        assert.equal(answer.done_reason, "length");
        assert.equal(answer.eval_count, 6);
        const raw = await ollama.generate(
            {model: "nano", prompt: "The capital of", raw: true, options});
        assert.ok(raw.prompt_eval_count < answer.prompt_eval_count, "no template");
        const stopped = await ollama.generate({model: "nano", prompt: sum[0].content,
            options: {temperature: 0, stop: [" ="]}});
        assert.equal(stopped.response, "23 + 45");
        const seeded = () => ollama.generate({model: "nano", prompt: "Once", raw: true, options:
            {temperature: 5, top_k: -1, top_p: 1, seed: 0, num_predict: 12, repeat_last_n: -1}});
        assert.equal((await seeded()).response, (await seeded()).response);
        const lines = await collect(await ollama.generate(
            {model: "nano", prompt: sum[0].content, options, stream: true}));
        assert.equal(lines.map((l) => l.response).join(""), answer.response);
    });

    test("ollama: JSON, of a schema and any", async () => {
        const schema = {type: "object", properties: {sum: {type: "integer"}}, required: ["sum"],
            additionalProperties: false};
        const options = {temperature: 0, num_predict: 200};
        const answer = await ollama.chat({model: "nano", messages: sum, format: schema, options});
        assert.ok(Number.isInteger(JSON.parse(answer.message.content).sum));
        const any = await ollama.chat({model: "nano", messages: sum, format: "json", options});
        assert.match(any.message.content, /^\s*\{/);
    });

    test("ollama: the models, one model, the one in memory", async () => {
        const {models} = await ollama.list();
        assert.deepEqual(models.map((m) => m.name), ["nano"]);
        assert.ok(models[0].size > 1e6);
        const show = await ollama.show({model: "nano"});
        assert.equal(show.details.family, "gemma4");
        assert.match(show.details.parameter_size, /M$/);
        assert.equal(show.model_info["general.architecture"], "gemma4");
        assert.deepEqual(show.capabilities,
            ["completion", "tools", "thinking", "vision", "audio"]);
        const loaded = await ollama.chat({model: "nano", messages: []});
        assert.equal(loaded.done_reason, "load");
        assert.deepEqual((await ollama.ps()).models.map((m) => m.name), ["nano"]);
        const gone = await ollama.generate({model: "nano", prompt: "", keep_alive: 0});
        assert.equal(gone.done_reason, "unload");
        assert.deepEqual((await ollama.ps()).models, []);
        const again = await ollama.generate({model: "nano", prompt: sum[0].content,
            keep_alive: "300ms", options: {temperature: 0, num_predict: 2}});
        assert.ok(again.load_duration > 0);
        for (let i = 0; i < 100 && (await ollama.ps()).models.length; i++) await sleep(100);
        assert.deepEqual((await ollama.ps()).models, [], "it went when its time was over");
        assert.match((await ollama.version()).version, /^\d+\.\d+/);
    });

    test("ollama: errors are a sentence", async () => {
        const failing = (promise) => promise.then(() => assert.fail("it was accepted"),
            (error) => error);
        const missing = await failing(ollama.chat({model: "llama3", messages: sum}));
        assert.equal(missing.status_code, 404);
        assert.match(missing.message, /llama3/);
        for (const [extra, what] of [[{options: {top_p: 3}}, /top_p/], [{think: "a lot"}, /think/],
            [{options: 3}, /options/], [{format: "xml"}, /format/], [{keep_alive: "x"}, /keep_/],
            [{messages: [{role: "user", content: "x", images: ["AAAA"]}]}, /text|image|picture/]]) {
            const error = await failing(ollama.chat({model: "nano", messages: sum, ...extra}));
            assert.equal(error.status_code, 400, JSON.stringify(extra));
            assert.match(error.message, what);
        }
        assert.equal((await post(server, "/api/pull", {model: "nano"})).status, 404);
    });

    // ---- many clients ----

    test("conversations take turns and keep their prefixes", async () => {
        const talk = (name) => [{role: "user", content: `My name is ${name}. `.repeat(12)}];
        const ask = (messages) => openai.chat.completions.create(
            {model: "nano", messages, temperature: 0, max_tokens: 4});
        const names = ["Ada", "Grace", "Emmy"];
        const first = await Promise.all(names.map((name) => ask(talk(name))));
        assert.ok(first.every((a) => a.choices[0].message.content.length > 0));
        for (const [i, name] of names.entries()) {
            const again = await ask([...talk(name), first[i].choices[0].message,
                {role: "user", content: "And now?"}]);
            const {cached_tokens: cached} = again.usage.prompt_tokens_details;
            assert.ok(cached >= first[i].usage.prompt_tokens - 2, `${name}: ${cached} reused`);
        }
    });

    test("a client that does not read blocks nobody", async () => {
        const slow = await begin(server, "/v1/completions",
            {...endless, max_tokens: 300, logprobs: 20}); // it reads the first piece only
        const idle = net.connect(server.port, "127.0.0.1"); // sends half a request
        idle.write("POST /api/chat HTTP/1.1\r\nHost: localhost\r\n");
        const answer = await openai.chat.completions.create(
            {model: "nano", messages: sum, temperature: 0});
        assert.equal(answer.choices[0].message.content, "23 + 45 = 68.");
        let rest = "";
        for await (const data of slow.response) rest += data;
        assert.match(rest, /data: \[DONE\]/, "and nothing of its answer is lost");
        idle.destroy();
    });

    test("while it answers, everything else is served", async () => {
        const busy = await begin(server, "/v1/completions", endless);
        const start = Date.now();
        await ollama.list();
        await ollama.show({model: "nano"});
        const part = await fetch(new URL("/models/blob/nano", server.url),
            {headers: {range: "bytes=0-3"}});
        assert.equal(await part.text(), "GGUF");
        assert.ok(Date.now() - start < 5000);
        busy.request.destroy();
    });

    test("a client that leaves frees the worker, while it waits too", async () => {
        const long = "word ".repeat(7000); // seconds of reading before the first token
        const leave = new AbortController();
        const left = openai.chat.completions.create({model: "nano",
            messages: [{role: "user", content: long}]}, {signal: leave.signal});
        const waiting = openai.chat.completions.create({model: "nano",
            messages: [{role: "user", content: long}]}, {signal: leave.signal});
        await sleep(200);
        leave.abort();
        await assert.rejects(left);
        await assert.rejects(waiting);
        const start = Date.now();
        await openai.completions.create({model: "nano", prompt: "A", max_tokens: 1});
        assert.ok(Date.now() - start < 3000, `${Date.now() - start} ms`);
    });

    test("too many that wait are refused with a sentence", async () => {
        const small = await serve("--waiting", "1");
        const busy = await begin(small, "/v1/completions", endless);
        const next = begin(small, "/v1/completions", endless);
        next.catch(() => {});
        await sleep(300);
        const {status, headers, text} = await post(small, "/v1/completions",
            {model: "nano", prompt: "A"});
        assert.equal(status, 503);
        assert.equal(headers.get("retry-after"), "1");
        assert.match(JSON.parse(text).error.message, /waiting/);
        busy.request.destroy();
        (await next).request.destroy();
        assert.equal(await small.stop(), 130);
    });

    test("an idle connection is closed, one that waits for an answer is not", async () => {
        const brief = await serve("--idle", "1");
        const closed = (text) => new Promise((resolve) => {
            const start = Date.now();
            const socket = net.connect(brief.port, "127.0.0.1");
            socket.on("close", () => resolve(Date.now() - start)).on("error", () => {}).resume();
            socket.write(text);
        });
        for (const text of ["", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "]) {
            const ms = await closed(text);
            assert.ok(ms > 500 && ms < 10000, `closed after ${ms} ms`);
        }
        const answer = await post(brief, "/v1/chat/completions", {model: "nano", max_tokens: 2,
            messages: [{role: "user", content: "word ".repeat(5000)}]});
        assert.equal(answer.status, 200, answer.text);
        assert.equal(await brief.stop("SIGTERM"), 0);
    });

    test("more connections than it takes are closed, until others go", async () => {
        const version = () => fetch(new URL("/api/version", server.url)).then((r) => r.status);
        const sockets = await Promise.all(Array.from({length: 70}, () => new Promise((resolve) => {
            const socket = net.connect(server.port, "127.0.0.1", () => resolve(socket));
            socket.on("error", () => {});
        })));
        await sleep(300);
        await assert.rejects(version());
        for (const socket of sockets) socket.destroy();
        await sleep(300);
        assert.equal(await version(), 200);
    });

    test("Ctrl-C ends it in the middle of an answer", async () => {
        const other = await serve("--model", "nano", "--verbose");
        const busy = await begin(other, "/v1/completions", endless);
        busy.response.on("error", () => {});
        const start = Date.now();
        assert.equal(await other.stop(), 130);
        assert.ok(Date.now() - start < 5000);
        assert.match(other.errors(), /POST "\/v1\/completions" 200/);
        assert.doesNotMatch(other.errors(), /Once/, "no text of the conversation is logged");
        busy.request.destroy();
    });
}
