// A stand-in for web/carat.js with answers and models that a test chooses, for what the real
// engine and nano cannot be made to say: attacks, long code, failures, huge downloads. It has the
// interface of carat.d.ts as far as the app uses it. Served as /carat/carat.js (app_lib.mjs).
//
// globalThis.fake: {answers: {question: [part, ...]}, delay, device, models, ollama, fail, steps,
// ...}

const plan = globalThis.fake ??= {};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class CaratError extends Error {
    constructor(code, message) {
        super(message);
        this.name = "CaratError";
        this.code = code;
    }
}

const usage = {promptTokens: 12, cachedTokens: 0, completionTokens: 34, promptSeconds: 0.2,
    completionSeconds: 1, tokensPerSecond: 34.2};

function thrown(error) {
    return new CaratError(error.code, error.message);
}

/** Text comes in pieces, as tokens do. */
function* pieces(part) {
    const size = plan.piece ?? 7;
    if (part.type !== "text" && part.type !== "thinking") yield part;
    else for (let i = 0; i < part.text.length; i += size)
        yield {type: part.type, text: part.text.slice(i, i + size)};
}

const textOf = (content) => typeof content === "string" ? content
    : [content].flat().map((part) => (part.type === "text" ? part.text : "")).join("");

async function* chat({messages, signal, onProgress}) {
    const asked = messages.at(-1), said = textOf(asked.content);
    plan.asked = messages;
    const parts = plan.answers?.[asked.role === "tool" ? "tool" : said] ??
        [{type: "text", text: `You said: ${said}`}];
    for (let done = 0; done < (plan.encode ?? 0); done++) {
        onProgress({phase: "encode", done, total: plan.encode, rate: 1});
        await pause(plan.delay ?? 1);
    }
    for (const part of parts) {
        if (part.error) throw thrown(part.error);
        for (const piece of pieces(part)) {
            await pause(plan.delay ?? 1);
            if (signal?.aborted) {
                yield {type: "usage", usage, finishReason: "aborted"};
                return;
            }
            yield piece;
        }
    }
    const called = parts.some((part) => part.type === "toolCall");
    yield {type: "usage", usage, finishReason: called ? "tool_calls" : "stop"};
}

const sample = "<bos><|turn>user\nWhere does Ada live?<turn|>\n<|turn>model\n" +
    "[[Ada lives in Turin.<turn|>]]\n";

/** A run whose loss falls, as quickly as a test wants: fake.steps of it are taken. */
function train({data, paused}) {
    const steps = 60, adapter = {info: {}, close: async () => {}, save: async (name) => {
        (plan.adapters ??= []).unshift({name, bytes: 2.9e6, modified: new Date()});
    }, export: async (format) => [new File(["x"], `adapter.${format}`)]};
    let stopped = false;
    async function* parts() {
        if (plan.fail?.train) throw thrown(plan.fail.train);
        yield {type: "report", sample, step: 0, report: {samples: 40, tokens: 1204, bad: 1,
            firstBad: "line 7: it has no completion", cut: 0, dropped: 0, nothingLearned: 0,
            learnedTokens: 475, steps, data: data.name, memory: {weights: 1.5e9, run: 4.1e7}}};
        const part = (step) => ({step, steps, epoch: 0, loss: 3 / step + Math.sin(step) / 9 + 0.2,
            learningRate: 2e-4, gradNorm: 1, tokens: 500 * step, seconds: step,
            tokensPerSecond: 512});
        let step = 0;
        while (step < steps && !stopped) {
            await pause(10);
            if (paused || step >= (plan.steps ?? steps)) continue;
            yield {type: "step", ...part(++step)};
            if (step % 10 === 0) yield {type: "eval", step, loss: 3 / step + 0.6, best: 0.6};
        }
        yield {type: "done", finishReason: stopped ? "stopped" : "finished", ...part(step)};
    }
    return {[Symbol.asyncIterator]: () => parts(),
        pause: async () => { paused = true; },
        resume: async () => { paused = false; },
        stop: () => { stopped = true; },
        close: async () => { stopped = true; },
        adapter: async () => adapter};
}

const kept = () => ({list: async () => plan.adapters ?? [],
    delete: async (name) => {
        plan.adapters = plan.adapters.filter((a) => a.name !== name);
    }});

export class Carat {
    static version = "fake";
    static adapters = kept();
    static checkpoints = {list: async () => [], delete: async () => {}};
    static models = {
        list: async () => plan.models ?? [],
        storage: async () => plan.storage ?? {used: 3.2e9, free: 41e9, persistent: false},
        persist: async () => true,
        ollama: async () => plan.ollama ?? [],
        delete: async (name) => {
            plan.models = plan.models.filter((m) => m.name !== name);
        },
        download: async (url, {name, signal, onProgress}) => {
            if (plan.fail?.download) throw thrown(plan.fail.download);
            const total = 4e9;
            for (let done = 1e9; done < total; done += plan.step ?? 1e8) {
                onProgress({phase: "download", done, total, rate: 52e6});
                await pause(50);
                if (signal.aborted) throw new CaratError("aborted", "the download was stopped");
            }
            (plan.models ??= []).push({name, bytes: total, size: total, complete: true, url,
                sha256: null, modified: new Date()});
        },
    };
    static async estimate() {
        return plan.estimate ?? {name: "Gemma 4 E2B", downloadBytes: 3.1e9, gpuBytes: 2.4e9,
            hostBytes: 6e7, fits: true, reason: null};
    }
    static async frames() {
        const canvas = new OffscreenCanvas(320, 180);
        canvas.getContext("2d").fillRect(0, 0, 320, 180);
        return {frames: [canvas.transferToImageBitmap(), await createImageBitmap(canvas)],
            times: [0, 2]};
    }
    static async load(source, {onProgress, onNotice, projector}) {
        plan.projector = projector?.name;
        plan.loads = (plan.loads ?? 0) + 1;
        onProgress({phase: "load", done: 1, total: 2, rate: 1});
        await pause(plan.loading ?? 20);
        if (plan.fail?.load && !(source instanceof Uint8Array)) throw thrown(plan.fail.load);
        plan.notice = onNotice;
        return new Carat();
    }
    model = {name: "Fake", sizeLabel: "2B", quantisation: "Q4_K_M", parameters: 2.3e9,
        fileBytes: 3.1e9, weightBytes: 1.5e9, contextLength: 8192, maxContextLength: 131072,
        layers: 35, vocabulary: 262144, vision: plan.vision ?? true, audio: plan.audio ?? true};
    device = plan.device ?? {name: "NVIDIA GeForce RTX 4070", kind: "gpu", backend: "vulkan",
        features: []};
    chat = chat;
    train = train;
    async loadAdapter() {
        return {close: async () => {}};
    }
    async setAdapters(uses) {
        plan.used = uses.length;
    }
    async memory() {
        return {heapBytes: 52e6, gpuPeakBytes: 2.1e9};
    }
    async close() {}
}
export default Carat;
