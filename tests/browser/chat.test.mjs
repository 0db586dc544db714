// The package in a browser, on nano: answers, their parts and their ends, the queue, OpenAI's
// shapes, sessions. All on the engine's CPU: what is tested here is the way from the page to the
// engine and back, which is the same for a GPU (gpu.test.mjs and lost.test.mjs run on one).

import assert from "node:assert/strict";
import fs from "node:fs";
import {browserTest, repository} from "./lib.mjs";
import {onCpu, story, sum, user, withNano} from "./nano.mjs";

const golden = JSON.parse(fs.readFileSync(`${repository}tests/golden/nano/text.json`, "utf8"));
const answerOf = Object.fromEntries(golden.map((c) => [c.name, c]));

// ---- answers ----

browserTest("the golden conversations, token by token", async ({inCarat}) => {
    /* Calls of earlier turns: in OpenAI's shape there, in the package's own here. */
    const ours = ({tool_calls: calls, reasoning, ...rest}) => ({...rest, thinking: reasoning,
        toolCalls: calls?.map((c, i) => ({id: `${i}`, name: c.function.name,
            arguments: c.function.arguments}))});
    const asked = golden.map(({messages, tools, thinking}) => ({messages: messages.map(ours),
        tools: tools ?? undefined, thinking, temperature: 0, logprobs: true}));
    const answers = await withNano(inCarat, async (carat, list) => {
        const all = [];
        for (const options of list) {
            const {logprobs, usage} = await carat.chat(options).result();
            all.push({ids: logprobs.map((t) => t.id), prompt: usage.promptTokens,
                counted: await carat.countTokens({messages: options.messages,
                    tools: options.tools, thinking: options.thinking})});
        }
        return all;
    }, asked);
    assert.equal(answers.length, 15);
    for (const [i, {ids, prompt, counted}] of answers.entries()) {
        const {name, greedy_ids: greedy, ids: promptIds} = golden[i];
        assert.deepEqual(ids, greedy.slice(0, -1), name); // the end token is not told
        assert.deepEqual([prompt, counted], [promptIds.length, promptIds.length], name);
    }
});

browserTest("parts come in order and sum up to the result", async ({inCarat}) => {
    const {parts, result, device, model} = await withNano(inCarat, async (carat, messages) => {
        const answer = carat.chat({messages, temperature: 0});
        const parts = [];
        for await (const part of answer) parts.push(part);
        return {parts, result: await answer.result(), device: carat.device, model: carat.model};
    }, sum);
    const texts = parts.slice(0, -1);
    assert.ok(texts.length > 5 && texts.every((p) => p.type === "text" && p.text));
    assert.equal(texts.map((p) => p.text).join(""), "23 + 45 = 68.");
    const {type, usage, finishReason} = parts.at(-1);
    assert.deepEqual([type, finishReason, usage.promptTokens, usage.cachedTokens],
        ["usage", "stop", 17, 0]);
    assert.equal(usage.completionTokens, texts.length + 1); // the end token
    assert.ok(usage.promptSeconds > 0 && usage.completionSeconds > 0 && usage.tokensPerSecond > 0);
    assert.deepEqual(result, {text: "23 + 45 = 68.", thinking: "", toolCalls: [], usage,
        finishReason});
    assert.deepEqual([device.kind, device.name], ["cpu", "CPU"]);
    assert.deepEqual([model.name, model.contextLength, model.maxContextLength, model.layers],
        ["carat nano", 1024, 8192, 10]);
    assert.deepEqual(model.sampling, {temperature: 1, topK: 64, topP: 0.95, minP: 0});
});

browserTest("thinking, and what it says", async ({inCarat}) => {
    const {seen, text, thinking} = await withNano(inCarat, async (carat, messages) => {
        const answer = carat.chat({messages, thinking: true, temperature: 0});
        const seen = [];
        for await (const part of answer) if (seen.at(-1) !== part.type) seen.push(part.type);
        return {seen, ...await answer.result()};
    }, [user("Reverse the word ember.")]);
    assert.deepEqual(seen, ["thinking", "text", "usage"]);
    assert.deepEqual([thinking, text], ["e-m-b-e-r backwards is r-e-b-m-e.", "rebme"]);
});

browserTest("a tool is called, and its result is used", async ({inCarat}) => {
    const {messages, tools} = answerOf.tool_call;
    const [first, second] = await withNano(inCarat, async (carat, {messages, tools}) => {
        const first = await carat.chat({messages, tools, temperature: 0}).result();
        const [call] = first.toolCalls;
        const second = await carat.chat({tools, temperature: 0, messages: [...messages,
            {role: "assistant", toolCalls: first.toolCalls},
            {role: "tool", toolCallId: call.id, content: {time: "20:59"}}]}).result();
        return [first, second];
    }, {messages, tools});
    const [call] = first.toolCalls;
    assert.match(call.id, /^call_[0-9a-f]{16}$/);
    assert.deepEqual([call.name, call.arguments], ["get_time", {city: "Belgrade"}]);
    assert.deepEqual([first.finishReason, first.text], ["tool_calls", ""]);
    assert.equal(second.text, "It is 20:59 in Belgrade.");
    assert.ok(second.usage.cachedTokens > 200, `${second.usage.cachedTokens} cached`);
});

browserTest("a second turn finds the first one computed", async ({inCarat}) => {
    const [first, second, again] = await withNano(inCarat, async (carat, messages) => {
        const ask = (messages) => carat.chat({messages, temperature: 0}).result();
        const first = await ask(messages);
        const longer = [...messages, {role: "assistant", content: first.text},
            {role: "user", content: "What is 58 + 67?"}];
        return [first, await ask(longer), await ask(longer)];
    }, sum);
    assert.equal(first.usage.cachedTokens, 0);
    assert.ok(second.usage.cachedTokens >= first.usage.promptTokens);
    assert.equal(again.usage.cachedTokens, again.usage.promptTokens - 1);
    assert.equal(again.text, second.text);
});

browserTest("stop strings, limits, seeds, log-probabilities", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, messages) => {
        const ask = (options) => carat.chat({messages, temperature: 0, ...options}).result();
        return {
            stopped: await ask({stop: ["never", " lived near"]}),
            one: await ask({stop: " fox"}),
            cut: await ask({maxTokens: 4, logprobs: 3}),
            plain: await ask({maxTokens: 4, logprobs: true}),
            seeds: [await ask({temperature: 2, topK: 0, topP: 1, seed: 5, maxTokens: 12}),
                await ask({temperature: 2, topK: 0, topP: 1, seed: 5, maxTokens: 12}),
                await ask({temperature: 2, topK: 0, topP: 1, seed: 6, maxTokens: 12})]
                .map((a) => a.text),
        };
    }, story);
    assert.deepEqual([r.stopped.text, r.stopped.finishReason],
        ["Once upon a time, a fox named Grace", "stop"]);
    assert.equal(r.one.text, "Once upon a time, a");
    assert.deepEqual([r.cut.finishReason, r.cut.usage.completionTokens], ["length", 4]);
    assert.equal(r.cut.logprobs.length, 4);
    assert.equal(r.cut.logprobs.map((t) => t.token).join(""), r.cut.text);
    for (const {id, token, logprob, top} of r.cut.logprobs) {
        assert.equal(top.length, 3);
        assert.deepEqual(top[0], {id, token, logprob}); // greedy: the likeliest
        assert.ok(logprob <= 0 && logprob > top[1].logprob && top[1].logprob > top[2].logprob);
    }
    assert.ok(r.plain.logprobs.every((t) => t.top.length === 0));
    assert.equal(r.seeds[0], r.seeds[1]);
    assert.notEqual(r.seeds[0], r.seeds[2]);
});

browserTest("structured output parses and keeps to its schema", async ({inCarat}) => {
    const schema = {type: "object", additionalProperties: false, required: ["name", "legs", "kind"],
        properties: {name: {type: "string", maxLength: 12}, legs: {type: "integer"},
            kind: {enum: ["fox", "owl"]}}};
    const r = await withNano(inCarat, async (carat, {schema, messages}) => {
        const ask = async (responseFormat, temperature) => (await carat.chat({messages,
            responseFormat, temperature, seed: 3, maxTokens: 200}).result()).text;
        const {create} = carat.chat.completions;
        const response = await create({messages, temperature: 0, response_format: {
            type: "json_schema", json_schema: {name: "animal", strict: true, schema}}});
        const error = await ask({type: "json_schema", schema: {not: {}}}, 0)
            .catch((e) => [e.code, e.message]);
        return {greedy: await ask({type: "json_schema", schema}, 0),
            sampled: await ask({type: "json_schema", schema}, 1.5),
            object: await ask({type: "json_object"}, 0), error,
            create: response.choices[0].message.content};
    }, {schema, messages: [user("Describe a fox as JSON.")]});
    for (const text of [r.greedy, r.sampled, r.create]) {
        const value = JSON.parse(text);
        assert.deepEqual(Object.keys(value).sort(), ["kind", "legs", "name"]);
        assert.ok(Number.isInteger(value.legs) && value.name.length <= 12);
        assert.ok(["fox", "owl"].includes(value.kind));
    }
    assert.equal(r.create, r.greedy);
    assert.equal(JSON.parse(r.object).constructor, Object);
    assert.equal(r.error[0], "unsupported");
    assert.match(r.error[1], /"not"/);
});

browserTest("tokens: there, back, and counted", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat) => {
        const text = "café 💎 <turn|>";
        const plain = await carat.tokenize(text);
        const special = await carat.tokenize(text, {specials: true});
        const raw = await carat.generate("<bos><|turn>user\nWhat is 23 + 45?<turn|>\n" +
            "<|turn>model\n", {specials: true, temperature: 0}).result();
        return {kind: plain.constructor.name, back: await carat.detokenize(plain),
            specials: await carat.detokenize(special, {specials: true}),
            shorter: plain.length - special.length,
            same: await carat.countTokens(text) === plain.length, raw: raw.text};
    });
    assert.equal(r.kind, "Int32Array");
    assert.deepEqual([r.back, r.specials], ["café 💎 <turn|>", "café 💎 <turn|>"]);
    assert.ok(r.shorter > 0 && r.same);
    assert.equal(r.raw, "23 + 45 = 68.");
});

// ---- ends before the end ----

browserTest("an abort in the middle keeps what was said, and the session", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, {story, sum}) => {
        const controller = new AbortController();
        const answer = carat.chat({messages: story, temperature: 0, signal: controller.signal});
        const parts = [];
        let after = 0;
        for await (const part of answer) {
            parts.push(part);
            if (controller.signal.aborted && part.type === "text") after++;
            if (parts.length === 3) controller.abort();
        }
        const next = await carat.chat({messages: sum, temperature: 0}).result();
        const gone = await carat.chat({messages: sum, signal: AbortSignal.abort()}).result();
        return {parts, after, next, gone, result: await answer.result()};
    }, {story, sum});
    assert.equal(r.parts.at(-1).finishReason, "aborted");
    assert.ok(r.after <= 2, `${r.after} parts after the abort`);
    assert.match(r.result.text, /^Once upon a/);
    assert.ok(r.result.text.length < 60, r.result.text);
    assert.equal(r.result.usage.promptTokens, 20);
    assert.equal(r.next.text, "23 + 45 = 68.");
    assert.deepEqual([r.gone.finishReason, r.gone.text], ["aborted", ""]);
});

browserTest("leaving the loop stops the answer", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, {story, sum}) => {
        const answer = carat.chat({messages: story, temperature: 0});
        for await (const part of answer) if (part.type === "text") break;
        const left = await answer.result();
        const stopped = carat.chat({messages: story, temperature: 0});
        setTimeout(() => stopped.stop(), 100);
        return {left, stopped: await stopped.result(),
            next: (await carat.chat({messages: sum, temperature: 0}).result()).text};
    }, {story, sum});
    assert.equal(r.left.finishReason, "aborted");
    assert.ok(r.left.usage.completionTokens < 10);
    assert.equal(r.stopped.finishReason, "aborted");
    assert.equal(r.next, "23 + 45 = 68.");
});

browserTest("calls queue, and one that is aborted in the queue leaves the others alone",
    async ({inCarat}) => {
        const r = await withNano(inCarat, async (carat, {story, sum}) => {
            const order = [];
            const note = (name) => (result) => {
                order.push(name);
                return result;
            };
            const controller = new AbortController();
            const first = carat.chat({messages: story, temperature: 0});
            const second = carat.chat({messages: sum, signal: controller.signal});
            const third = carat.chat({messages: sum, temperature: 0});
            const fourth = carat.generate("The", {maxTokens: 3});
            setTimeout(() => controller.abort(), 50);
            const all = await Promise.all([first.result().then(note("first")),
                second.result().then(note("second")), third.result().then(note("third")),
                fourth.result().then(note("fourth"))]);
            return {order, all};
        }, {story, sum});
        assert.deepEqual(r.order, ["second", "first", "third", "fourth"]);
        const [first, second, third, fourth] = r.all;
        assert.equal(first.text, answerOf.story.greedy_text.replace("<turn|>", ""));
        assert.deepEqual([second.text, second.finishReason, second.usage.promptTokens],
            ["", "aborted", 0]);
        assert.equal(third.text, "23 + 45 = 68.");
        assert.equal(fourth.usage.completionTokens, 3);
    });

browserTest("errors have a code, and the next call works", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, sum, {Carat, CaratError}) => {
        const code = async (work) => {
            try {
                await work();
                return "none";
            } catch (e) {
                return e instanceof CaratError && e.message ? e.code : `${e}`;
            }
        };
        const chat = (options) => code(() => carat.chat(options).result());
        const {create} = carat.chat.completions;
        const long = [{role: "user", content: "word ".repeat(1100)}], circle = {};
        circle.self = circle;
        const codes = {
            long: await chat({messages: long}),
            loop: await code(async () => {
                for await (const part of carat.chat({messages: long})) void part;
            }),
            empty: await chat({messages: []}),
            role: await chat({messages: [{role: "robot", content: "x"}]}),
            image: await chat({messages: [{role: "user", content: [{type: "image_url"}]}]}),
            option: await chat({messages: sum, max_tokens: 3}),
            top: await chat({messages: sum, topP: 7}),
            uncloneable: await chat({messages: sum,
                tools: [{function: {name: "f", parameters: {f: () => {}}}}]}),
            circle: await chat({messages: sum,
                tools: [{function: {name: "f", parameters: circle}}]}),
            bigint: await chat({messages: [...sum, {role: "tool", content: {n: 1n}}]}),
            schema: await chat({messages: sum,
                responseFormat: {type: "json_schema", schema: circle}}),
            headers: await code(() => Carat.load("/models/nano.gguf", {headers: {"a b": "c"}})),
            download: await code(() => Carat.models.download()),
            specials: await code(() => carat.tokenize("x", null)),
            ids: await Promise.all([undefined, "12", [-1], [0.5], {length: 1e12}]
                .map((ids) => code(() => carat.detokenize(ids)))),
            n: await code(() => create({messages: sum, n: 2})),
            stream: await code(() => create({messages: long, stream: true})),
            source: await code(() => Carat.load({path: "nano"})),
            missing: await code(() => Carat.load("/models/none.gguf", {store: false})),
            notStored: await code(() => Carat.load({opfs: "none.gguf"})),
            garbage: await code(() => Carat.load(new Uint8Array(5000), {device: "cpu"})),
            context: await code(() => Carat.load("/models/nano.gguf",
                {device: "cpu", store: false, contextLength: 1 << 20})),
            session: await code(() => carat.restoreSession("none")),
            name: await code(() => carat.saveSession("")),
            half: await code(() => carat.saveSession("a\ud800")),
        };
        const after = (await carat.chat({messages: sum, temperature: 0}).result()).text;
        const late = [carat.chat({messages: sum}).result(), carat.chat({messages: sum}).result(),
            carat.tokenize("x")].map((p) => code(() => p));
        await carat.close();
        return {...codes, after, late: await Promise.all(late),
            closed: await chat({messages: sum})};
    }, sum);
    assert.deepEqual(r, {long: "context", loop: "context", empty: "argument", role: "argument",
        image: "unsupported", option: "argument", top: "argument", uncloneable: "argument",
        circle: "argument", bigint: "argument", schema: "argument", headers: "argument",
        download: "argument", specials: "argument", ids: Array(5).fill("argument"),
        n: "unsupported", stream: "context", source: "argument", missing: "not-found",
        notStored: "not-found", garbage: "format", context: "argument", session: "not-found",
        name: "argument", half: "argument", after: "23 + 45 = 68.",
        late: ["closed", "closed", "closed"], closed: "closed"});
}, {allow: [/404/]});

browserTest("a full context: the oldest turns go, with a notice", async ({inCarat}) => {
    const {result, notices, parts} = await inCarat(async ({Carat}) => {
        const notices = [], parts = [];
        const carat = await Carat.load("/models/nano.gguf", {device: "cpu", store: false,
            contextLength: 128, onNotice: (n) => notices.push(n)});
        const messages = Array.from({length: 20}, (_, i) =>
            i % 2 ? {role: "assistant", content: "Yes."} : {role: "user", content: "A long word?"});
        const answer = carat.chat({messages: [...messages, {role: "user", content:
            "What is 23 + 45?"}], dropOldest: true, temperature: 0});
        for await (const part of answer) if (part.type === "notice") parts.push(part.text);
        const result = await answer.result();
        await carat.close();
        return {result, notices, parts};
    });
    assert.equal(notices.length, 1);
    assert.match(notices[0], /left out/);
    assert.deepEqual(parts, notices);
    assert.equal(result.finishReason, "stop");
});

// ---- OpenAI's shapes ----

browserTest("completions: streamed and whole are the same", async ({inCarat}) => {
    const {messages, tools} = answerOf.tool_call;
    const r = await withNano(inCarat, async (carat, {sum, messages, tools}) => {
        const {create} = carat.chat.completions;
        const stream = async (request) => {
            const chunks = [];
            for await (const chunk of await create({...request, stream: true,
                stream_options: {include_usage: true}})) chunks.push(chunk);
            return chunks;
        };
        const plain = {model: "x", messages: sum, temperature: 0, logprobs: true, top_logprobs: 2};
        const called = {messages, tools, temperature: 0};
        return {whole: await create(plain), chunks: await stream(plain),
            call: await create(called), callChunks: await stream(called)};
    }, {sum, messages, tools});
    const text = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
    const [choice] = r.whole.choices;
    assert.equal(choice.message.content, "23 + 45 = 68.");
    assert.equal(text(r.chunks), "23 + 45 = 68.");
    assert.equal(r.whole.usage.completion_tokens, choice.logprobs.content.length + 1);
    assert.equal(r.chunks.at(-1).usage.completion_tokens, r.whole.usage.completion_tokens);
    const streamed = r.chunks.flatMap((c) => c.choices[0]?.logprobs?.content ?? []);
    assert.equal(streamed.length, choice.logprobs.content.length);
    for (const [i, token] of choice.logprobs.content.entries()) {
        assert.deepEqual([streamed[i].token, streamed[i].bytes], [token.token, token.bytes]);
        assert.ok(Math.abs(streamed[i].logprob - token.logprob) < 1e-3); // another batch size
        assert.equal(token.top_logprobs.length, 2);
    }
    const [call] = r.call.choices[0].message.tool_calls;
    assert.deepEqual(call.function, {name: "get_time", arguments: '{"city":"Belgrade"}'});
    const [delta] = r.callChunks.flatMap((c) => c.choices[0]?.delta.tool_calls ?? []);
    assert.deepEqual(delta.function, call.function);
    assert.equal(r.call.choices[0].finish_reason, "tool_calls");
    assert.equal(r.callChunks.at(-2).choices[0].finish_reason, "tool_calls");
});

// ---- sessions ----

browserTest("a session is saved, and restored after a reload", async ({inCarat, page}) => {
    const before = await withNano(inCarat, async (carat, {story}) => {
        const {text} = await carat.chat({messages: story, temperature: 0}).result();
        const name = "Ünï/Code 1";
        await carat.saveSession(name);
        await carat.saveSession(name); // replaces itself
        await carat.saveSession("other");
        return {text, list: await carat.listSessions()};
    }, {story});
    assert.deepEqual(before.list.map((s) => s.name).sort(), ["other", "Ünï/Code 1"]);
    assert.ok(before.list.every((s) => s.bytes > 10000));
    await page.reload();
    const after = await withNano(inCarat, async (carat, {story, text}) => {
        await carat.restoreSession("Ünï/Code 1");
        const {usage} = await carat.chat({temperature: 0, messages: [...story,
            {role: "assistant", content: text}, {role: "user", content: "Hello"}]}).result();
        await carat.deleteSession("Ünï/Code 1");
        const gone = await carat.deleteSession("Ünï/Code 1").catch((e) => e.code);
        return {usage, gone, left: (await carat.listSessions()).map((s) => s.name)};
    }, {story, text: before.text});
    assert.ok(after.usage.cachedTokens > 80, `${after.usage.cachedTokens} cached`);
    assert.deepEqual([after.gone, after.left], ["not-found", ["other"]]);
});

// ---- before loading ----

browserTest("estimate and device", async ({inCarat, site}) => {
    const r = await inCarat(async ({Carat}) => {
        const url = "/models/nano.gguf";
        const e = (source, options) => Carat.estimate(source, options);
        return {
            cpu: await e(url, {device: "cpu", contextLength: 512}),
            gpu: await e(url, {device: "gpu"}),
            long: await e(url, {device: "cpu", contextLength: 1e6}),
            bytes: await e(await (await fetch(url)).arrayBuffer(), {device: "cpu"}),
            device: await Carat.device({device: "cpu"}),
            gpuDevice: await Carat.device({device: "gpu"}),
            auto: await Carat.device(),
            version: Carat.version,
        };
    });
    const {cpu, gpu, long, bytes, device, gpuDevice, auto} = r;
    assert.deepEqual([cpu.name, cpu.sizeLabel, cpu.quantisation, cpu.fits, cpu.reason],
        ["carat nano", "15M", "Q4_K_M", true, null]);
    assert.deepEqual([cpu.fileBytes, cpu.downloadBytes, cpu.gpuBytes, cpu.contextLength],
        [18284448, 18284448, 0, 512]);
    assert.ok(cpu.hostBytes > 8e6 && cpu.hostBytes < 64 * 2 ** 20, `${cpu.hostBytes}`);
    assert.ok(gpu.fits && gpu.gpuBytes > 7e6 && gpu.gpuBytes < 200e6, `${gpu.gpuBytes}`);
    assert.equal(gpu.contextLength, 8192);
    assert.equal(long.fits, false);
    assert.match(long.reason, /8192/);
    assert.equal(bytes.downloadBytes, 0);
    assert.equal(device.kind, "cpu");
    const fetched = site.requests.filter((q) => q.url === "/models/nano.gguf" && q.bytes > 2e6);
    assert.ok(fetched.length <= 1, "only the header is read");
    assert.match(r.version, /^\d+\.\d+\.\d+$/);
    if (process.env.TEST_GPU === "real") return;
    assert.equal(gpuDevice.kind, "software");
    assert.match(auto.name, /^CPU \(no GPU: SwiftShader is a software adapter\)$/);
});

// ---- when the worker dies ----

browserTest("a trap in the engine is one error, and the next load works", async ({inCarat}) => {
    const r = await inCarat(async ({Carat, CaratError}) => {
        const options = {device: "cpu", store: false, contextLength: 512};
        const messages = [{role: "user", content: "What is 23 + 45?"}];
        const broken = await Carat.load("/models/nano.gguf", {...options, base: "/broken/"});
        const answers = [broken.chat({messages}), broken.chat({messages})];
        const errors = await Promise.all([...answers.map((a) => a.result()),
            broken.memory()].map((p) => p.catch((e) => e)));
        const late = await broken.tokenize("x").catch((e) => e);
        await broken.close();
        const next = await Carat.load("/models/nano.gguf", options);
        const {text} = await next.chat({messages, temperature: 0}).result();
        await next.close();
        return {codes: [...errors, late].map((e) => e instanceof CaratError && e.code),
            message: late.message, text};
    });
    assert.deepEqual(r.codes, ["internal", "internal", "internal", "internal"]);
    assert.match(r.message, /RuntimeError/);
    assert.equal(r.text, "23 + 45 = 68.");
    const crash = await inCarat(async ({Carat}) => {
        const carat = await Carat.load("/models/nano.gguf",
            {device: "cpu", store: false, base: "/crash/"});
        return Promise.all([carat.chat({messages: [{role: "user", content: "Hello"}]}).result(),
            carat.listSessions(), carat.countTokens("x")].map((p) => p.catch((e) => e.code)));
    });
    assert.deepEqual(crash, ["internal", "internal", "internal"]);
    const noWorker = await inCarat(({Carat}) => Carat.load("/models/nano.gguf",
        {base: "/nowhere/"}).catch((e) => [e.code, e.message]));
    assert.equal(noWorker[0], "internal");
    assert.match(noWorker[1], /could not be started/);
}, {
    allow: [/404/, /nowhere/],
    routes: {
        "/crash/worker.js": (req, res) => res.writeHead(200, {"content-type": "text/javascript"})
            .end(`import "/carat/worker.js";
                addEventListener("message", ({data}) => {
                    if (data.op === "chat") throw new Error("crashed");
                }, true);`),
        "/broken/worker.js": (req, res) => res.writeHead(200, {"content-type": "text/javascript"})
            .end(`import "/carat/worker.js";
                import {Engine} from "/carat/engine.js";
                Engine.prototype.chat = () => {
                    throw new WebAssembly.RuntimeError("unreachable");
                };`),
    },
});
