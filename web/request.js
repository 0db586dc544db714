// @ts-check
/* request: what a caller asks for -> what the engine is asked. Checks that every option exists and
 * has the right type (a misspelt one would silently change nothing), and brings messages into the
 * one shape that the engine reads, which is OpenAI's. What an option's value means is the engine's.
 *
 * Flow: carat.js and openai.js before; the result travels to worker.js. */
import {CaratError, jsonText} from "./errors.js";
import {checkMedium} from "./media.js";

/** @typedef {import("./carat.js").ChatOptions} ChatOptions */
/** @typedef {import("./carat.js").GenerateOptions} GenerateOptions */

/** @param {string} message @returns {never} */
function wrong(message) {
    throw new CaratError("argument", message);
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @param {unknown} value */
const isWhole = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
function isHeaders(value) {
    try {
        return isObject(value) && Object.values(value).every(isText) &&
            Boolean(new Headers(/** @type {Record<string, string>} */ (value)));
    } catch {
        return false;
    }
}

/** What an adapter can change. */
const TARGETS = ["q", "k", "v", "o", "gate", "up", "down", "embed", "head"];

/** @typedef {[test: (value: unknown) => boolean, expected: string]} Rule */
/** @type {Record<string, Rule>} */
const is = {
    flag: [(v) => typeof v === "boolean", "true or false"],
    number: [Number.isFinite, "a number"],
    amount: [(v) => Number.isFinite(v) && Number(v) >= 0, "a number that is not negative"],
    count: [isWhole, "a whole number that is not negative"],
    positive: [(v) => isWhole(v) && v !== 0, "a whole number above 0"],
    text: [isText, "text"],
    list: [Array.isArray, "a list"],
    object: [isObject, "an object"],
    some: [(v) => v !== null, "a source of a model"],
    call: [(v) => typeof v === "function", "a function"],
    stop: [(v) => [v].flat().every((s) => isText(s) && s !== ""), "text or a list of texts"],
    logprobs: [(v) => typeof v === "boolean" || (isWhole(v) && Number(v) <= 20),
        "true, false or a number up to 20"],
    device: [(v) => ["auto", "gpu", "cpu"].includes(String(v)), '"auto", "gpu" or "cpu"'],
    power: [(v) => ["high-performance", "low-power"].includes(String(v)),
        '"high-performance" or "low-power"'],
    url: [(v) => isText(v) || v instanceof URL, "a URL"],
    sha256: [(v) => isText(v) && /^[0-9a-fA-F]{64}$/.test(String(v)), "64 hex digits"],
    signal: [(v) => v instanceof AbortSignal, "an AbortSignal"],
    imageTokens: [(v) => [70, 140, 280, 560, 1120].includes(Number(v)) && typeof v === "number",
        "70, 140, 280, 560 or 1120"],
    headers: [isHeaders, "names and values of request headers"],
    context: [(v) => isWhole(v) && Number(v) > 0 && Number(v) < 2 ** 32,
        "a whole number above 0"],
    share: [(v) => Number.isFinite(v) && Number(v) >= 0 && Number(v) < 1,
        "a number from 0 to below 1"],
    targets: [(v) => Array.isArray(v) && v.length > 0 && v.every((t) => TARGETS.includes(t)),
        `a list of ${TARGETS.join(", ")}`],
    learn: [(v) => v === "replies" || v === "all", '"replies" or "all"'],
    badRows: [(v) => v === "skip" || v === "fail", '"skip" or "fail"'],
    longSamples: [(v) => v === "cut" || v === "drop", '"cut" or "drop"'],
    schedule: [(v) => ["cosine", "linear", "constant"].includes(String(v)),
        '"cosine", "linear" or "constant"'],
};

/** @type {Record<string, Rule>} */
const answerRules = {
    temperature: is.amount, topK: is.count, topP: is.amount, minP: is.amount,
    repeatPenalty: is.amount, repeatLastN: is.count, frequencyPenalty: is.number,
    presencePenalty: is.number, seed: is.count, maxTokens: is.positive, stop: is.stop,
    logprobs: is.logprobs, responseFormat: is.object, signal: is.signal, onProgress: is.call,
};
/** @type {Record<string, Rule>} */
const chatRules = {...answerRules, messages: is.list, tools: is.list, thinking: is.flag,
    dropOldest: is.flag, imageTokens: is.imageTokens};
/** @type {Record<string, Rule>} */
const generateRules = {...answerRules, specials: is.flag};
/** @type {Record<string, Rule>} */
const loadRules = {onProgress: is.call, onNotice: is.call, signal: is.signal,
    contextLength: is.context, device: is.device, powerPreference: is.power, store: is.flag,
    projector: is.some, name: is.text, sha256: is.sha256, size: is.count, headers: is.headers,
    base: is.url};

/** @type {Record<string, Rule>} */
const trainRules = {data: is.some, name: is.text, adapter: is.object, targets: is.targets,
    rank: is.positive, alpha: is.amount, rslora: is.flag, dropout: is.share, firstLayer: is.count,
    layers: is.positive, learn: is.learn, badRows: is.badRows, longSamples: is.longSamples,
    maxLength: is.positive, evalShare: is.share, learningRate: is.amount, weightDecay: is.amount,
    clip: is.amount, schedule: is.schedule, warmup: is.count, epochs: is.positive,
    steps: is.positive, batchTokens: is.positive, accumulate: is.positive, evalEvery: is.positive,
    patience: is.positive, seed: is.count, memory: is.positive, checkpoint: is.text,
    checkpointEvery: is.positive, resume: is.flag, paused: is.flag, signal: is.signal,
    onProgress: is.call};
/** @type {Record<string, Rule>} */
const adapterRules = {name: is.text, headers: is.headers, signal: is.signal};

/** Checks options by rules; undefined is absent.
 * @param {string} what @param {unknown} options @param {Record<string, Rule>} rules */
function check(what, options, rules) {
    if (!isObject(options)) wrong(`${what}: an object of options is expected`);
    for (const [name, value] of Object.entries(options)) {
        if (value === undefined) continue;
        if (!Object.hasOwn(rules, name)) wrong(`${what}: there is no option ${name}`);
        const [test, expected] = rules[name];
        if (!test(value)) wrong(`${what}: ${name} has to be ${expected}`);
    }
}

/** More than any context has. */
const MAX_IDS = 1 << 24;

/** What tokenize() and detokenize() are given beside the text or the ids.
 * @param {string} what @param {unknown} options */
export function checkSpecials(what, options) {
    check(what, options, {specials: is.flag});
}

/** @param {unknown} ids @returns {Int32Array} */
export function idsOf(ids) {
    const list = /** @type {any} */ (ids), length = list?.length;
    if (typeof ids !== "object" || !isWhole(length) || length > MAX_IDS)
        wrong("detokenize: a list of ids is expected");
    const given = Int32Array.from(list);
    if (!given.every((id, i) => id === list[i] && id >= 0))
        wrong("detokenize: an id has to be a whole number that is not negative");
    return given;
}

/** @param {unknown} url */
export function checkUrl(url) {
    if (!is.url[0](url)) wrong("download: a URL is expected");
}

/** @param {string} what @param {unknown} options */
export function checkLoad(what, options) {
    check(what, options, what === "download" ? {...loadRules, verify: is.flag} : loadRules);
}

/* ---- messages ---- */

/** @typedef {import("./media.js").Found[]} Media in order */

/** Text goes as it is; of a picture, a sound or a video a sign that it stands there.
 * @param {string} where @param {unknown} content @param {Media} [media] absent: only text may be */
function checkContent(where, content, media) {
    if (typeof content === "string") return content;
    if (!Array.isArray(content)) wrong(`${where}: content has to be text or a list of parts`);
    return content.map((part, i) => {
        const {type} = part ?? {}, place = `${where}: content[${i}]`;
        if (type === "text" && typeof part.text === "string") return part;
        if (type === "text") return wrong(`${place}: a part of type "text" has no text`);
        if (!["image", "audio", "video"].includes(type))
            throw new CaratError("unsupported", `${place}: there is no part of type "${type}"; ` +
                "text, image, audio and video are read");
        if (!media) return wrong(`${place}: only messages of the user and of tools have ${type}s`);
        checkMedium(place, part);
        const sign = {type};
        media.push({where: place, part, sign});
        return sign;
    });
}

/** @param {string} where @param {unknown} call */
function engineCall(where, call) {
    const c = /** @type {any} */ (call);
    if (!isObject(c) || typeof c.name !== "string") return wrong(`${where} has no name`);
    if (!isObject(c.arguments ?? {})) wrong(`${where}: arguments has to be an object`);
    return {id: c.id, type: "function",
        function: {name: c.name, arguments: c.arguments ?? {}}};
}

/** @param {unknown} message @param {number} i @param {Media} media grows */
function engineMessage(message, i, media) {
    const m = /** @type {any} */ (message), where = `messages[${i}]`;
    if (!isObject(m)) return wrong(`${where}: an object is expected`);
    if (m.role === "system" || m.role === "developer")
        return {role: m.role, content: checkContent(where, m.content)};
    if (m.role === "user") return {role: m.role, content: checkContent(where, m.content, media)};
    if (m.role === "tool")
        return {role: "tool", tool_call_id: m.toolCallId, name: m.name,
            content: isObject(m.content) ? m.content : checkContent(where, m.content, media)};
    if (m.role !== "assistant") return wrong(`${where}: there is no role "${m.role}"`);
    if (m.toolCalls !== undefined && !Array.isArray(m.toolCalls))
        wrong(`${where}: toolCalls has to be a list`);
    return {role: "assistant", content: checkContent(where, m.content ?? ""),
        reasoning: m.thinking,
        tool_calls: m.toolCalls?.length ? m.toolCalls.map((/** @type {unknown} */ c,
            /** @type {number} */ k) => engineCall(`${where}: toolCalls[${k}]`, c)) : undefined};
}

/** @param {unknown} tool @param {number} i */
function engineTool(tool, i) {
    const t = /** @type {any} */ (tool);
    if (!isObject(t) || (t.type !== undefined && t.type !== "function") ||
        !isObject(t.function) || typeof t.function.name !== "string")
        return wrong(`tools[${i}]: {type: "function", function: {name, ...}} is expected`);
    return {type: "function", function: t.function};
}

/* ---- the whole ---- */

/** @param {unknown} format @returns {string | null | undefined} a JSON schema as text */
function schemaOf(format) {
    const f = /** @type {any} */ (format);
    if (f === undefined || f.type === "text") return undefined;
    if (f.type === "json_object") return JSON.stringify({type: "object"});
    if (f.type !== "json_schema")
        return wrong('responseFormat: type has to be "text", "json_object" or "json_schema"');
    if (!isObject(f.schema)) wrong("responseFormat: schema has to be an object");
    return jsonText("responseFormat: schema", f.schema);
}

/** @param {GenerateOptions | ChatOptions} options */
function engineOptions(options) {
    const {temperature, topK, topP, minP, repeatPenalty, repeatLastN, frequencyPenalty,
        presencePenalty, seed, maxTokens, stop, logprobs, responseFormat} = options;
    return {temperature, topK, topP, minP, repeatPenalty, repeatLastN, frequencyPenalty,
        presencePenalty, seed, maxTokens, logprobs, schema: schemaOf(responseFormat),
        stop: typeof stop === "string" ? [stop] : stop};
}

/** The conversation of a chat or of countTokens(); media.js makes of `media` what can be posted.
 * @param {Pick<ChatOptions, "messages" | "tools" | "thinking" | "imageTokens">} options */
export function conversationOf(options) {
    const {messages, tools, thinking, imageTokens} = options;
    if (!Array.isArray(messages) || messages.length === 0)
        wrong("messages: a list of at least one message is expected");
    /** @type {Media} */
    const media = [];
    return {messages: messages.map((m, i) => engineMessage(m, i, media)), media,
        tools: tools?.length ? tools.map(engineTool) : undefined, thinking, imageTokens};
}

/** @param {ChatOptions} options */
export function chatRequest(options) {
    check("chat", options, chatRules);
    return {...engineOptions(options), ...conversationOf(options), dropOldest: options.dropOldest};
}

/** @param {string} prompt @param {GenerateOptions} options */
export function generateRequest(prompt, options) {
    if (typeof prompt !== "string") wrong("generate: the prompt has to be text");
    check("generate", options, generateRules);
    return {...engineOptions(options), prompt, specials: options.specials ?? false};
}

/** @param {Parameters<import("./carat.js").Carat["countTokens"]>[0]} input */
export function countRequest(input) {
    if (typeof input === "string") return {text: input};
    check("countTokens", input, {messages: is.list, tools: is.list, thinking: is.flag,
        imageTokens: is.imageTokens});
    return conversationOf(input);
}

/* ---- adapters and training ---- */

/** @param {unknown} options */
export function checkAdapter(options) {
    check("loadAdapter", options, adapterRules);
}

/** @param {unknown} uses @returns {{adapter: unknown, scale: number}[]} */
export function usesOf(uses) {
    if (!Array.isArray(uses)) wrong("setAdapters: a list is expected");
    return uses.map((use) => {
        const {adapter, scale = 1} = use && "adapter" in Object(use) ? use : {adapter: use};
        if (!Number.isFinite(scale)) wrong("setAdapters: scale has to be a number");
        return {adapter, scale};
    });
}

/** Rows as the text of a file, or a file whose name says what is in it.
 * @param {unknown} data @returns {Promise<File>} */
async function datasetOf(data) {
    if (Array.isArray(data))
        return new File([data.map((row) => `${jsonText("data", row)}\n`).join("")], "data.jsonl");
    if (!isText(data) && !(data instanceof Blob))
        wrong("train: data is text, a file or a list of rows");
    const file = data instanceof Blob ? data : new Blob([/** @type {string} */ (data)]);
    const name = file instanceof File ? file.name : "data";
    if (/\.(jsonl|json|csv)$/i.test(name))
        return new File([file], name.replace(/\.\w+$/, (end) => end.toLowerCase()));
    if (/\bcsv\b/.test(file.type)) return new File([file], `${name}.csv`);
    const start = (await file.slice(0, 1000).text()).trimStart();
    return new File([file], `${name}.${start.startsWith("[") ? "json" : "jsonl"}`);
}

/** What train() is given, as the worker takes it; but the adapter, which is the caller's.
 * @param {any} options */
export function trainRequest(options) {
    check("train", options, trainRules);
    const {data, targets, clip, badRows, longSamples, checkpoint = null, checkpointEvery = 100,
        resume = false, paused = false, name, adapter, signal, onProgress, ...rest} = options;
    if (resume && checkpoint === null)
        wrong("train: resume needs the name of a checkpoint");
    return async () => ({data: await datasetOf(data), checkpoint, checkpointEvery, resume, paused,
        options: {...rest, targets: targets?.join(" "), clip: clip === 0 ? -1 : clip,
            stopAtBad: badRows === "fail", dropLong: longSamples === "drop"}});
}
