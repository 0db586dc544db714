// @ts-check
/* openai: chat.completions.create() in the shapes of OpenAI's API over chat(). A field that would
 * change the answer and is not understood is refused, never ignored.
 *
 * Flow: carat.js gives it chat(); request.js checks what comes out of here. */
import {CaratError} from "./errors.js";
import {base64Bytes} from "./media.js";

/** @typedef {import("./carat.js").ChatOptions} ChatOptions */
/** @typedef {import("./carat.js").Message} Message */
/** @typedef {import("./carat.js").ContentPart} ContentPart */
/** @typedef {import("./carat.js").ToolCall} ToolCall */
/** @typedef {import("./carat.js").Answer} Answer */
/** @typedef {import("./carat.js").Usage} Usage */
/** @typedef {import("./carat.js").TokenLogprob} TokenLogprob */
/** @typedef {import("./carat.js").CompletionChunk} CompletionChunk */
/** @typedef {import("./carat.js").Completion} Completion */
/** @typedef {import("./carat.js").Part} Part */

/** @param {string} message @returns {never} */
function unsupported(message) {
    throw new CaratError("unsupported", message);
}

/** @param {string} message @returns {never} */
function wrong(message) {
    throw new CaratError("argument", message);
}

/* ---- the request ---- */

/** Fields that say nothing about the answer. */
const harmless = new Set(["model", "user", "metadata", "store", "service_tier", "prediction",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention"]);

/** Fields that are understood, and the option that each one becomes. */
const options = /** @type {const} */ ({temperature: "temperature", top_p: "topP", top_k: "topK",
    min_p: "minP", repeat_penalty: "repeatPenalty", seed: "seed", stop: "stop",
    frequency_penalty: "frequencyPenalty", presence_penalty: "presencePenalty",
    max_tokens: "maxTokens", max_completion_tokens: "maxTokens", tools: "tools",
    image_tokens: "imageTokens"});

/** Fields that are understood one by one, below. */
const special = new Set(["messages", "stream", "stream_options", "tool_choice", "logprobs",
    "top_logprobs", "response_format", "reasoning_effort"]);

/** Fields that are allowed to say what happens anyway.
 * @type {Record<string, (value: any) => boolean>} */
const sameAsUsual = {
    n: (v) => v === 1,
    parallel_tool_calls: (v) => v === true,
    logit_bias: (v) => Object.keys(v).length === 0,
    modalities: (v) => Array.isArray(v) && v.every((m) => m === "text"),
    verbosity: (v) => v === "medium",
};

/** @param {Record<string, any>} request */
function checkFields(request) {
    for (const [name, value] of Object.entries(request)) {
        if (value === null || value === undefined) continue;
        if (harmless.has(name) || special.has(name) || Object.hasOwn(options, name)) continue;
        if (!Object.hasOwn(sameAsUsual, name)) unsupported(`${name} is not supported`);
        if (!sameAsUsual[name](value))
            unsupported(`${name}: ${JSON.stringify(value)} is not supported`);
    }
}

/** What files of sound are called. @type {Record<string, string>} */
const soundTypes = {wav: "audio/wav", mp3: "audio/mpeg", flac: "audio/flac", ogg: "audio/ogg",
    opus: "audio/ogg", aac: "audio/aac", m4a: "audio/mp4", webm: "audio/webm"};

/** @param {string} where @param {any} given @returns {ContentPart} */
function soundOf(where, given) {
    const {data, format} = given ?? {};
    if (typeof data !== "string") wrong(`${where}: input_audio.data has to be base64 text`);
    if (!Object.hasOwn(soundTypes, format))
        unsupported(`${where}: input_audio.format: there is no "${format}"`);
    try {
        return {type: "audio", audio: new Blob([base64Bytes(data)], {type: soundTypes[format]})};
    } catch {
        return wrong(`${where}: input_audio.data is not base64`);
    }
}

/** @param {string} where @param {any} part @returns {ContentPart} */
function partOf(where, part) {
    const {type} = part ?? {};
    if (type === "text") return part;
    if (type === "refusal") return {type: "text", text: part.refusal};
    if (type === "input_audio") return soundOf(where, part.input_audio);
    if (type !== "image_url") return unsupported(`${where}: type ${type} is not supported`);
    const {image_url: image} = part, url = typeof image === "string" ? image : image?.url;
    if (typeof url !== "string") wrong(`${where}: image_url.url is missing`);
    return {type: "image", image: url};
}

/** @param {string} where @param {any} content */
function contentOf(where, content) {
    if (!Array.isArray(content)) return content;
    return content.map((part, i) => partOf(`${where}: content[${i}]`, part));
}

/** @param {string} where @param {any} call @returns {ToolCall} */
function toolCallOf(where, call) {
    const type = call?.type ?? "function";
    if (type !== "function") unsupported(`${where}: type ${type} is not supported`);
    const text = call?.function?.arguments;
    try {
        return {id: call.id, name: call.function.name,
            arguments: typeof text === "string" ? JSON.parse(text || "{}") : text};
    } catch {
        return wrong(`${where}: function.arguments is not JSON`);
    }
}

/** @param {any} message @param {number} i @returns {Message} */
function messageOf(message, i) {
    const where = `messages[${i}]`, role = message?.role;
    if (message?.function_call) unsupported(`${where}: function_call is not supported`);
    if (message?.audio) unsupported(`${where}: audio is not supported`);
    const content = contentOf(where, message?.content);
    if (role === "tool")
        return {role, content, toolCallId: message.tool_call_id, name: message.name};
    if (role !== "assistant") return {role, content};
    const calls = message.tool_calls ?? [];
    if (!Array.isArray(calls)) wrong(`${where}: tool_calls has to be a list`);
    return {role, content: content ?? message.refusal ?? null,
        thinking: message.reasoning ?? message.reasoning_content ?? undefined,
        toolCalls: calls.map((call, k) => toolCallOf(`${where}: tool_calls[${k}]`, call))};
}

/** @param {any} format @returns {import("./carat.js").ResponseFormat | undefined} */
function formatOf(format) {
    if (format?.type !== "json_schema") return format ?? undefined;
    const schema = format.json_schema?.schema;
    if (!schema) wrong("response_format: json_schema.schema is missing");
    return {type: "json_schema", schema};
}

/** @param {any} effort */
function thinkingOf(effort) {
    if (effort === null || effort === undefined) return undefined;
    if (effort === "none" || effort === "minimal") return false;
    if (["low", "medium", "high", "xhigh"].includes(effort)) return true;
    return wrong(`reasoning_effort: there is no "${effort}"`);
}

/** @param {any} request @returns {number | boolean | undefined} */
function logprobsOf({logprobs, top_logprobs: top}) {
    if (!logprobs && top) wrong("top_logprobs needs logprobs: true");
    return logprobs ? top || true : undefined;
}

/** @param {any} request @returns {ChatOptions} */
export function chatOptions(request) {
    if (typeof request !== "object" || request === null) wrong("create: a request is expected");
    checkFields(request);
    if (!Array.isArray(request.messages)) wrong("messages: a list is expected");
    const choice = request.tool_choice ?? "auto";
    if (choice !== "auto" && choice !== "none")
        unsupported('tool_choice: only "auto" and "none" are supported');
    /** @type {Record<string, unknown>} */
    const chat = {};
    for (const [field, option] of Object.entries(options))
        if (request[field] !== null && request[field] !== undefined) chat[option] = request[field];
    if (choice === "none") delete chat.tools;
    return {...chat, messages: request.messages.map(messageOf),
        thinking: thinkingOf(request.reasoning_effort), logprobs: logprobsOf(request),
        responseFormat: formatOf(request.response_format)};
}

/* ---- the response ---- */

const utf8 = new TextEncoder();

/** @param {{token: string, logprob: number}} t */
const tokenOf = ({token, logprob}) => ({token, bytes: [...utf8.encode(token)], logprob});

/** @param {TokenLogprob[] | undefined} list */
function logprobContent(list) {
    if (!list) return null;
    return {refusal: null,
        content: list.map((t) => ({...tokenOf(t), top_logprobs: t.top.map(tokenOf)}))};
}

/** @param {ToolCall} call @returns {import("./carat.js").OpenAiToolCall} */
function openAiCall(call) {
    return {id: call.id, type: "function",
        function: {name: call.name, arguments: JSON.stringify(call.arguments)}};
}

/** @param {Usage} usage */
export function openAiUsage(usage) {
    return {prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens,
        total_tokens: usage.promptTokens + usage.completionTokens,
        prompt_tokens_details: {cached_tokens: usage.cachedTokens}};
}

/** What every chunk or completion begins with.
 * @param {string} model */
function head(model) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    const id = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
    return {id: `chatcmpl-${id}`, created: Math.floor(Date.now() / 1000), model};
}

const aborted = () => new CaratError("aborted", "the completion was aborted");

/** @param {Answer} answer @param {string} model @returns {Promise<Completion>} */
export async function completion(answer, model) {
    /** @type {TokenLogprob[] | undefined} */
    let logprobs;
    for await (const part of answer)
        if (part.type === "text" && part.logprobs) (logprobs ??= []).push(...part.logprobs);
    const {text, thinking, toolCalls, usage, finishReason} = await answer.result();
    if (finishReason === "aborted") throw aborted();
    return {
        ...head(model),
        object: "chat.completion",
        choices: [{
            index: 0,
            message: {
                role: "assistant",
                content: text || !toolCalls.length ? text : null,
                refusal: null,
                ...(thinking && {reasoning: thinking}),
                ...(toolCalls.length && {tool_calls: toolCalls.map(openAiCall)}),
            },
            logprobs: logprobContent(logprobs),
            finish_reason: finishReason,
        }],
        usage: openAiUsage(usage),
    };
}

/** The deltas of a part; calls: how many there were before it.
 * @param {Part} part @param {number} calls
 * @returns {CompletionChunk["choices"][0]["delta"] | null} */
function deltaOf(part, calls) {
    if (part.type === "text") return {content: part.text};
    if (part.type === "thinking") return part.text ? {reasoning: part.text} : null;
    if (part.type !== "toolCall") return null;
    return {tool_calls: [{index: calls, ...openAiCall(part.toolCall)}]};
}

/** As OpenAI's stream, an aborted one just ends.
 * @param {AsyncIterator<Part>} parts @param {IteratorResult<Part>} first
 * @param {string} model @param {boolean} withUsage
 * @returns {AsyncGenerator<CompletionChunk, void, undefined>} */
async function* chunks(parts, first, model, withUsage) {
    /** @type {Omit<CompletionChunk, "choices">} */
    const same = {...head(model), object: "chat.completion.chunk", ...(withUsage && {usage: null})};
    /** @typedef {CompletionChunk["choices"][0]} Choice
     * @param {Choice["delta"]} delta @param {Choice["logprobs"]} logprobs
     * @param {Choice["finish_reason"]} finish_reason @returns {CompletionChunk} */
    const chunk = (delta, logprobs, finish_reason) =>
        ({...same, choices: [{index: 0, delta, logprobs, finish_reason}]});
    let calls = 0;
    try {
        yield chunk({role: "assistant", content: ""}, null, null);
        for (let next = first; !next.done; next = await parts.next()) {
            const part = next.value, delta = deltaOf(part, calls);
            if (part.type === "toolCall") calls++;
            if (delta)
                yield chunk(delta, part.type === "text" ? logprobContent(part.logprobs) : null,
                    null);
            if (part.type !== "usage" || part.finishReason === "aborted") continue;
            yield chunk({}, null, part.finishReason);
            if (withUsage) yield {...same, choices: [], usage: openAiUsage(part.usage)};
        }
    } finally {
        await parts.return?.();
    }
}

/** @param {(options: ChatOptions) => Answer} chat @param {string} model
 * @returns {import("./carat.js").ChatCompletions} */
export function completionsOf(chat, model) {
    /** @param {any} request @param {{signal?: AbortSignal} | null} [options]
     * @returns {Promise<any>} */
    async function create(request, options) {
        const {signal} = options ?? {};
        const answer = chat({...chatOptions(request), signal});
        if (!request.stream) return completion(answer, model);
        const parts = answer[Symbol.asyncIterator]();
        /* An error before the first part is the request's own, as it is over HTTP. */
        const first = await parts.next();
        return chunks(parts, first, model, request.stream_options?.include_usage === true);
    }
    return {create};
}
