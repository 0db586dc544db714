/* The package's types as a caller meets them: what has to be accepted, and what has not. Checked by
 * tsc only, never run. */
import Default, {Carat, CaratError} from "carat";
import type OpenAI from "openai";
import type {Adapter, Answer, Completion, CompletionChunk, Estimate, Message, Part, TrainPart,
    Usage} from "carat";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2)
    ? true : false;
function same<A, B>(_: Same<A, B>): void {}

same<typeof Default, typeof Carat>(true);

async function sources(file: File, bytes: ArrayBuffer): Promise<void> {
    const signal = new AbortController().signal;
    await Carat.load("/models/nano.gguf");
    await Carat.load(new URL("https://example.com/a.gguf"),
        {signal, store: false, headers: {a: "b"}});
    await Carat.load(file, {contextLength: 2048, device: "cpu", onNotice: (s) => s.trim()});
    await Carat.load(bytes, {powerPreference: "low-power", base: "/carat/"});
    await Carat.load(new Uint8Array(bytes));
    await Carat.load({opfs: "nano.gguf"}, {onProgress: ({phase, done, total, rate}) => {
        same<typeof phase, "download" | "verify" | "open" | "load" | "prompt" | "encode" |
            "step" | "eval">(true);
        return done / total + rate;
    }});
    await Carat.load({ollama: "gemma4:e2b", server: "http://127.0.0.1:8080"});
    // @ts-expect-error no such source
    await Carat.load({path: "/nano.gguf"});
    // @ts-expect-error no such device
    await Carat.load("/nano.gguf", {device: "tpu"});
    // @ts-expect-error made by load() only
    new Carat();

    const estimate: Estimate = await Carat.estimate("/models/nano.gguf", {contextLength: 512});
    const why: string | null = estimate.fits ? null : estimate.reason;
    const {name, kind} = await Carat.device();
    const stored = await Carat.models.download("/models/nano.gguf",
        {sha256: "00", signal, verify: true});
    const free: number = (await Carat.models.storage()).free;
    await Carat.models.delete(stored.name);
    void [why, name, kind, free];
}

async function chats(carat: Carat): Promise<void> {
    const messages: Message[] = [
        {role: "system", content: "Be brief."},
        {role: "user", content: [{type: "text", text: "What is 23 + 45?"}]},
        {role: "assistant", toolCalls: [{id: "1", name: "add", arguments: {a: 23, b: 45}}]},
        {role: "tool", toolCallId: "1", content: "68"},
    ];
    const answer: Answer = carat.chat({messages, temperature: 0, logprobs: 3,
        responseFormat: {type: "json_schema", schema: {type: "object"}},
        tools: [{function: {name: "add", parameters: {type: "object"}}}]});
    for await (const part of answer) {
        same<typeof part, Part>(true);
        if (part.type === "text") part.text.trim();
        else if (part.type === "toolCall") part.toolCall.arguments.a;
        else if (part.type === "usage") part.usage satisfies Usage;
        // @ts-expect-error not every part has a text
        part.text;
    }
    const {text, finishReason, logprobs} = await carat.generate("Once", {maxTokens: 5}).result();
    same<typeof finishReason, "stop" | "length" | "tool_calls" | "aborted">(true);
    void [text, logprobs?.[0].top[0].id];
    answer.stop();
    // @ts-expect-error a misspelt option
    carat.chat({messages, max_tokens: 5});
    // @ts-expect-error messages are needed
    carat.chat({});
    // @ts-expect-error no such role
    carat.chat({messages: [{role: "robot", content: ""}]});
}

async function completions(carat: Carat): Promise<void> {
    const {create} = carat.chat.completions;
    const messages = [{role: "user", content: "Hello"}];
    const whole = await create({model: "any", messages, max_tokens: 5});
    same<typeof whole, Completion>(true);
    const stream = await create({messages, stream: true, stream_options: {include_usage: true}});
    for await (const chunk of stream) {
        same<typeof chunk, CompletionChunk>(true);
        chunk.choices[0]?.delta.content?.trim();
    }
}

/* Code that was written for the npm package openai keeps its types. */
async function openAi(carat: Carat, request: OpenAI.ChatCompletionCreateParamsNonStreaming,
    streaming: OpenAI.ChatCompletionCreateParamsStreaming): Promise<void> {
    const whole: OpenAI.ChatCompletion = await carat.chat.completions.create(request);
    for await (const chunk of await carat.chat.completions.create(streaming))
        chunk satisfies OpenAI.ChatCompletionChunk;
    void whole;
}

async function rest(carat: Carat): Promise<void> {
    const ids: Int32Array = await carat.tokenize("text", {specials: true});
    const text: string = await carat.detokenize(ids);
    const n: number = await carat.countTokens(text) +
        await carat.countTokens({messages: [{role: "user", content: "Hello"}]});
    await carat.saveSession("a");
    await carat.restoreSession("a");
    const [session] = await carat.listSessions();
    const changed: Date = session.modified;
    await carat.deleteSession(session.name);
    const {heapBytes} = await carat.memory();
    void [n, changed, heapBytes, carat.model.sampling.topK, carat.device.name, Carat.version];
    await carat.close().catch((error: unknown) => {
        if (error instanceof CaratError && error.code === "closed") error.message.trim();
        // @ts-expect-error no such code
        if (error instanceof CaratError && error.code === "close") return;
    });
}

void [sources, chats, completions, openAi, rest];

async function adapters(carat: Carat, files: File[]): Promise<void> {
    const one: Adapter = await carat.loadAdapter("/lora/", {name: "one"});
    const two = await carat.loadAdapter(files);
    await carat.setAdapters([one, {adapter: two, scale: 0.5}, {adapter: one}]);
    const [file]: File[] = await one.export("peft");
    const rank: number = one.info.rank;
    for (const {name, bytes} of await Carat.adapters.list()) void [name, bytes];
    // @ts-expect-error made by loadAdapter() and train() only
    await carat.setAdapters([{name: "one"}]);
    void [file, rank];
}

async function training(carat: Carat, file: File): Promise<void> {
    const run = carat.train({data: file, rank: 8, targets: ["q", "v"], checkpoint: "run",
        resume: true, onProgress: ({done, total}) => done / total});
    for await (const part of run) {
        same<typeof part, TrainPart>(true);
        if (part.type === "report") void [part.report.samples, part.sample];
        else if (part.type === "step") void [part.loss, part.tokensPerSecond];
        else if (part.type === "done") same<typeof part.loss, number | null>(true);
    }
    await run.pause();
    const {finishReason} = await run.result();
    same<typeof finishReason, "finished" | "patience" | "stopped">(true);
    await (await run.adapter("facts")).save();
    carat.train({data: [{prompt: "a", completion: "b"}, {text: "c"}]});
    // @ts-expect-error no such target
    carat.train({data: "", targets: ["x"]});
    // @ts-expect-error there has to be something to learn
    carat.train({rank: 8});
}

void [adapters, training];
