/** carat: Gemma 4 in the browser, on the user's own GPU.
 *
 *     import {Carat} from "carat";
 *     const carat = await Carat.load("https://example.com/gemma-4-e2b.gguf");
 *     for await (const part of carat.chat({messages: [{role: "user", content: "Hello"}]}))
 *         if (part.type === "text") show(part.text);
 *
 * The model runs in a dedicated worker; nothing is sent anywhere. Every error is a
 * {@link CaratError}.
 */

import type {Adapter, AdapterSource, AdapterUse, Kept, TrainOptions, Training} from "./train.js";
export type * from "./train.js";

/* ---- errors ---- */

export type CaratErrorCode =
    | "argument"       /* the caller passed something that cannot be meant */
    | "io"             /* a file could not be read or written */
    | "network"        /* a download failed; trying again goes on where it stopped */
    | "format"         /* a file or a message is damaged or not what it claims to be */
    | "unsupported"    /* well-formed, but not something carat runs */
    | "not-found"      /* no such model, file or session */
    | "memory"         /* out of host or device memory */
    | "quota"          /* the browser's storage is full */
    | "busy"           /* a stored model is in use: loaded or downloaded, perhaps in another tab */
    | "device"         /* no GPU, or it refused a command */
    | "device-lost"    /* the GPU went away, twice */
    | "context"        /* the conversation does not fit the context */
    | "aborted"        /* an AbortSignal ended it */
    | "closed"         /* carat.close() was called */
    | "internal";      /* the engine stopped at a fault of its own; load() again works */

export class CaratError extends Error {
    readonly name: "CaratError";
    readonly code: CaratErrorCode;
    constructor(code: CaratErrorCode, message: string);
}

/* ---- where a model comes from ---- */

/** A URL (string or URL; downloaded into the origin's private file system and resumed after an
 * interruption), a file the user picked (read in place, never copied), bytes, a model that is
 * already stored, or one of the local Ollama store through `carat serve`. */
export type Source =
    | string | URL | Blob | ArrayBuffer | Uint8Array
    | {opfs: string}
    | {ollama: string; server?: string};

export interface Progress {
    /** "download", "verify", "open": bytes of the file; "load": of weights; "prompt": tokens;
     * "encode": soft tokens of pictures and sounds; "step", "eval": of training, tokens */
    phase: "download" | "verify" | "open" | "load" | "prompt" | "encode" | "step" | "eval";
    done: number;
    total: number;
    /** bytes (tokens) a second, over the last seconds; 0 while unknown */
    rate: number;
}

export interface LoadOptions {
    onProgress?: (progress: Progress) => void;
    /** A lost device, turns dropped from a full context and the like: one sentence each. */
    onNotice?: (notice: string) => void;
    signal?: AbortSignal;
    /** tokens of context; default 8192, or what the model or the memory allows */
    contextLength?: number;
    /** "auto": the GPU, but the CPU rather than a software adapter; "gpu": a GPU or an error */
    device?: "auto" | "gpu" | "cpu";
    /** Which GPU on a machine with two. */
    powerPreference?: "high-performance" | "low-power";
    /** For URLs: false reads by range requests instead of storing the file. Default true. */
    store?: boolean;
    /** A second file with the vision and audio encoders (llama.cpp's mmproj-*.gguf), for a model
     * that has them there. `name`, `size` and `sha256` are of the model only. */
    projector?: Source;
    /** The name under which a downloaded file is stored; default: the last part of the URL. */
    name?: string;
    /** Expected sha256 of the file, 64 hex digits; checked after a download. */
    sha256?: string;
    /** Expected size of the file in bytes; checked before a download. */
    size?: number;
    /** Further request headers for URLs, such as an Authorization. */
    headers?: Record<string, string>;
    /** Where worker.js and carat.wasm are, when not beside carat.js. */
    base?: string | URL;
}

export interface Estimate {
    name: string;
    sizeLabel: string | null;
    quantisation: string | null;
    parameters: number;
    /** whether it understands pictures (and videos), and sounds */
    vision: boolean;
    audio: boolean;
    /** bytes of the file, and how many of them are not stored yet */
    fileBytes: number;
    downloadBytes: number;
    /** device memory for weights, encoders, KV cache and scratch at this context length, bytes */
    gpuBytes: number;
    /** of the worker's heap, in bytes */
    hostBytes: number;
    contextLength: number;
    /** the largest context length that the model was trained for */
    maxContextLength: number;
    /** Whether it can run here, and if not, why: one sentence. */
    fits: boolean;
    reason: string | null;
}

export interface DeviceInfo {
    /** e.g. "NVIDIA GeForce RTX 4070", "SwiftShader (software)", "CPU" */
    name: string;
    kind: "gpu" | "software" | "cpu";
    backend: string;
    features: string[];
}

export interface ModelInfo {
    name: string;
    sizeLabel: string | null;
    quantisation: string | null;
    parameters: number;
    /** whether it understands pictures (and videos), and sounds */
    vision: boolean;
    audio: boolean;
    fileBytes: number;
    weightBytes: number;
    /** on the device once a picture or a sound was given */
    encoderBytes: number;
    contextLength: number;
    maxContextLength: number;
    layers: number;
    vocabulary: number;
    /** what decides where a call says nothing */
    sampling: {temperature: number; topK: number; topP: number; minP: number};
}

export interface StoredModel {
    name: string;
    /** bytes stored so far, and of the whole file (null when the server did not say) */
    bytes: number;
    size: number | null;
    complete: boolean;
    url: string | null;
    sha256: string | null;
    modified: Date;
}

export interface Storage {
    used: number;
    /** free for this origin, an estimate by the browser */
    free: number;
    /** whether the browser promised not to delete it by itself */
    persistent: boolean;
}

export interface Models {
    list(): Promise<StoredModel[]>;
    /** Downloads or resumes without loading. With `verify` a model that is complete is read again,
     * and what is damaged of it is fetched again. */
    download(url: string | URL, options?: {verify?: boolean} & Pick<LoadOptions, "onProgress" |
        "onNotice" | "signal" | "name" | "sha256" | "size" | "headers" | "base">):
        Promise<StoredModel>;
    delete(name: string): Promise<void>;
    storage(): Promise<Storage>;
    /** Asks the browser to keep the models; true when it promised. */
    persist(): Promise<boolean>;
    /** What `carat serve` offers: its index of the local Ollama store and of given files. */
    ollama(server?: string): Promise<{name: string; size: number; url: string}[]>;
}

/* ---- chat ---- */

export interface ToolCall {
    id: string;
    name: string;
    arguments: Record<string, unknown>;
}

export interface TextPart {
    type: "text";
    text: string;
}

/** A file that the browser can decode, pixels, or a URL (data: URLs too). Transparent is white. */
export interface ImagePart {
    type: "image";
    image: Blob | ImageBitmap | ImageData | URL | string;
}

/** A file that the browser can decode, or samples in -1 .. 1: those of a moment beside each other,
 * `sampleRate` moments a second. Longer than 30 s: several clips; at most 10 minutes. */
export type AudioPart =
    | {type: "audio"; audio: Blob | AudioBuffer}
    | {type: "audio"; audio: Float32Array; sampleRate: number; channels?: number};

/** A file or a <video>, of which up to 32 frames are taken (Blobs: where the page's policy allows
 * media from blob:), or frames and their seconds. Its sound is not heard: give it as audio. */
export interface VideoPart {
    type: "video";
    video: Blob | HTMLVideoElement | {frames: (ImageBitmap | ImageData | Blob)[]; times: number[]};
}

export type MediaPart = ImagePart | AudioPart | VideoPart;
export type ContentPart = TextPart | MediaPart;

/** Text, whole or in parts. */
export type TextContent = string | TextPart[];
/** Text, or parts in their order. */
export type Content = string | ContentPart[];

export type Message =
    | {role: "system" | "developer"; content: TextContent}
    | {role: "user"; content: Content}
    | {role: "assistant"; content?: TextContent | null; thinking?: string; toolCalls?: ToolCall[]}
    /** The result of a call: text or parts, or an object as it is. */
    | {role: "tool"; content: Content | Record<string, unknown>; toolCallId?: string;
        name?: string};

export interface Tool {
    type?: "function";
    function: {name: string; description?: string; parameters?: object};
}

export type ResponseFormat =
    | {type: "text"}
    | {type: "json_object"}
    /** The subset that is understood is in docs/structured.md; anything else is an "unsupported"
     * error. */
    | {type: "json_schema"; schema: object};

export interface Sampling {
    /** 0: greedy. Defaults of all of these: the model's, then Gemma's (1, 64, 0.95). */
    temperature?: number;
    topK?: number;
    topP?: number;
    minP?: number;
    repeatPenalty?: number;
    repeatLastN?: number;
    frequencyPenalty?: number;
    presencePenalty?: number;
    /** 0 or absent: a new one every time */
    seed?: number;
}

export interface AnswerOptions extends Sampling {
    stop?: string | string[];
    /** absent: until the model ends or the context is full */
    maxTokens?: number;
    /** true: each token's log-probability; a number: and this many alternatives, at most 20 */
    logprobs?: boolean | number;
    responseFormat?: ResponseFormat;
    signal?: AbortSignal;
    /** progress of a long prompt (phase "prompt") and of media (phase "encode") */
    onProgress?: (progress: Progress) => void;
}

export interface ChatOptions extends AnswerOptions {
    messages: Message[];
    tools?: Tool[];
    thinking?: boolean;
    /** drop the oldest turns instead of failing when the context is full */
    dropOldest?: boolean;
    /** soft tokens of a picture at most: more see more of it. Default 280; a video's frame: 70 */
    imageTokens?: 70 | 140 | 280 | 560 | 1120;
}

export interface GenerateOptions extends AnswerOptions {
    /** Texts of control tokens in the prompt become these tokens: only for your own text. */
    specials?: boolean;
}

export interface TokenLogprob {
    token: string;
    id: number;
    logprob: number;
    top: {token: string; id: number; logprob: number}[];
}

export interface Usage {
    promptTokens: number;
    /** of these, found in the session from an earlier call */
    cachedTokens: number;
    completionTokens: number;
    promptSeconds: number;
    completionSeconds: number;
    tokensPerSecond: number;
}

/** "aborted": by its signal, by stop() or because the loop over it was left. */
export type FinishReason = "stop" | "length" | "tool_calls" | "aborted";

export type Part =
    | {type: "text"; text: string; logprobs?: TokenLogprob[]}
    | {type: "thinking"; text: string; logprobs?: TokenLogprob[]}
    | {type: "toolCall"; toolCall: ToolCall}
    | {type: "notice"; text: string}
    /** Always the last one, also after an abort. */
    | {type: "usage"; usage: Usage; finishReason: FinishReason};

export interface AnswerResult {
    text: string;
    thinking: string;
    toolCalls: ToolCall[];
    usage: Usage;
    finishReason: FinishReason;
    /** of every token, those of thinking and of tool calls included */
    logprobs?: TokenLogprob[];
}

/** An answer on its way: it starts by itself, in its turn. Iterate it, or await its result(), or
 * first the one and then the other; leaving the loop stops it. Parts wait for a slow reader. */
export interface Answer extends AsyncIterable<Part> {
    /** Runs to the end and gives the whole. An abort is no error: what was said so far is given. */
    result(): Promise<AnswerResult>;
    /** Ends it within one token; what was said so far stays usable. */
    stop(): void;
}

/* ---- the OpenAI shapes ---- */

export interface ChatCompletions {
    /** As `openai.chat.completions.create()` of the npm package openai: request and response have
     * its shapes, with `stream: true` an async iterable of chunks. `model` is ignored. A field
     * that would change the answer and is not understood is an "unsupported" error. Pictures
     * (image_url, with data: URLs too) are seen with `image_tokens`, whatever their detail. */
    create(request: {stream: true} & CompletionRequest, options?: {signal?: AbortSignal}):
        Promise<AsyncIterable<CompletionChunk>>;
    create(request: {stream?: false | null} & CompletionRequest, options?: {signal?: AbortSignal}):
        Promise<Completion>;
}

/* eslint-disable @typescript-eslint/no-explicit-any */
export interface CompletionRequest {
    model?: string;
    messages: {role: string; content?: any; [key: string]: any}[];
    [key: string]: any;
}

export interface Completion {
    id: string;
    object: "chat.completion";
    created: number;
    model: string;
    choices: {
        index: number;
        message: {role: "assistant"; content: string | null; refusal: null; reasoning?: string;
            tool_calls?: OpenAiToolCall[]};
        logprobs: {content: OpenAiLogprob[]; refusal: null} | null;
        finish_reason: "stop" | "length" | "tool_calls";
    }[];
    usage: OpenAiUsage;
}

export interface CompletionChunk {
    id: string;
    object: "chat.completion.chunk";
    created: number;
    model: string;
    choices: {
        index: number;
        delta: {role?: "assistant"; content?: string | null; reasoning?: string;
            tool_calls?: (OpenAiToolCall & {index: number})[]};
        logprobs: {content: OpenAiLogprob[]; refusal: null} | null;
        finish_reason: "stop" | "length" | "tool_calls" | null;
    }[];
    usage?: OpenAiUsage | null;
}

export interface OpenAiToolCall {
    id: string;
    type: "function";
    function: {name: string; arguments: string};
}
export interface OpenAiLogprob {
    token: string;
    bytes: number[];
    logprob: number;
    top_logprobs: {token: string; bytes: number[]; logprob: number}[];
}
export interface OpenAiUsage {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details: {cached_tokens: number};
}

/* ---- the engine ---- */

export class Carat {
    private constructor();
    static readonly version: string;
    static readonly models: Models;
    /** Adapters that save() stored, and checkpoints of training. */
    static readonly adapters: Kept;
    static readonly checkpoints: Kept;

    static load(source: Source, options?: LoadOptions): Promise<Carat>;
    /** What loading would take; reads only the file's header. */
    static estimate(source: Source, options?: Pick<LoadOptions,
        "signal" | "projector" | "contextLength" | "device" | "powerPreference" | "store" |
        "headers" | "base" | "name">): Promise<Estimate>;
    /** The device that load() would use. */
    static device(options?: Pick<LoadOptions, "device" | "powerPreference" | "base">):
        Promise<DeviceInfo>;

    /** Frames of a video, evenly over its length, at most 32 of them; give them back as
     * {type: "video", video: frames}. For programs that show them or keep them. */
    static frames(video: Blob | HTMLVideoElement, options?: {count?: number;
        signal?: AbortSignal}): Promise<{frames: ImageBitmap[]; times: number[]}>;

    readonly model: ModelInfo;
    /** Changes when a lost device was replaced; see onNotice. */
    readonly device: DeviceInfo;
    /** bytes of the worker's heap, and the most device memory used so far */
    memory(): Promise<{heapBytes: number; gpuPeakBytes: number}>;

    /** Answers a conversation, given whole every time; what earlier calls computed of it is reused.
     * Calls made while another one runs wait for their turn. */
    readonly chat: {(options: ChatOptions): Answer; readonly completions: ChatCompletions};
    /** Continues raw text without a template. */
    generate(prompt: string, options?: GenerateOptions): Answer;

    /** With specials, the texts of control tokens become these tokens: only for your own text. */
    tokenize(text: string, options?: {specials?: boolean}): Promise<Int32Array>;
    detokenize(ids: ArrayLike<number>, options?: {specials?: boolean}): Promise<string>;
    countTokens(input: string | Pick<ChatOptions,
        "messages" | "tools" | "thinking" | "imageTokens">): Promise<number>;

    /** Writes the computed conversation (tokens and KV cache) to the origin's private file system,
     * and brings it back, also in a later visit: the next chat() of it starts at once. */
    saveSession(name: string): Promise<void>;
    restoreSession(name: string): Promise<void>;
    deleteSession(name: string): Promise<void>;
    listSessions(): Promise<{name: string; bytes: number; modified: Date}[]>;

    /** Reads a LoRA adapter for this model; nothing is changed until setAdapters(). */
    loadAdapter(source: AdapterSource, options?: {name?: string; headers?: Record<string, string>;
        signal?: AbortSignal}): Promise<Adapter>;
    /** From now on these are added to the model, and no others; at most 16. Takes no reloading, but
     * what was computed of the conversation is computed again. */
    setAdapters(uses: AdapterUse[]): Promise<void>;
    /** Teaches the model: an adapter learns from the data, on this device. One run at a time. */
    train(options: TrainOptions): Training;

    /** Frees the device and ends the worker. */
    close(): Promise<void>;
}

export default Carat;
