/** carat: LoRA adapters and training. A part of carat.d.ts, which exports all of this. */
import type {Progress} from "./carat.js";

/* ---- adapters ---- */

/** A LoRA adapter: the URL of a GGUF file, of a PEFT folder (with / at its end) or of its
 * adapter_model.safetensors; a GGUF file or its bytes; both files of a PEFT folder; or one that
 * save() stored. */
export type AdapterSource = string | URL | Blob | File[] | ArrayBuffer | Uint8Array
    | {opfs: string};

/** What an adapter changes: projections of the layers, the embedding, the head. */
export type AdapterTarget = "q" | "k" | "v" | "o" | "gate" | "up" | "down" | "embed" | "head";

export interface AdapterInfo {
    /** the largest */
    rank: number;
    alpha: number;
    rslora: boolean;
    targets: AdapterTarget[];
    firstLayer: number;
    layers: number;
    parameters: number;
}

export interface Adapter {
    readonly name: string;
    readonly info: AdapterInfo;
    /** "gguf" (the default): llama.cpp's one file; "peft": adapter_model.safetensors and
     * adapter_config.json. */
    export(format?: "gguf" | "peft"): Promise<File[]>;
    /** Into the origin's private file system, under its name: loadAdapter({opfs: name}). */
    save(name?: string): Promise<void>;
    /** One that is in use is added until others are set. */
    close(): Promise<void>;
}

/** scale: 1 (the default) is as it was trained. */
export type AdapterUse = Adapter | {adapter: Adapter; scale?: number};

/** Files of a kind in the origin's private file system, the newest first. */
export interface Kept {
    list(): Promise<{name: string; bytes: number; modified: Date}[]>;
    delete(name: string): Promise<void>;
}

/* ---- training ---- */

/** As OpenAI, Alpaca and Hugging Face have them. What is learned: the assistant's messages, the
 * completion, the output, or a text whole. */
export type TrainRow =
    | {messages: object[]; tools?: object[]}
    | {prompt: string; completion: string}
    | {instruction: string; input?: string; output: string}
    | {text: string};

export interface TrainOptions {
    /** Rows, or a file of them or its text: JSONL, a JSON list, CSV (by the file's name). */
    data: string | Blob | TrainRow[];
    /** of the adapter; default "adapter" */
    name?: string;
    /** Goes on from this one, which then decides its shape. */
    adapter?: Adapter;

    /** default: q, k, v, o, gate, up, down */
    targets?: AdapterTarget[];
    /** default 16 */
    rank?: number;
    /** default: twice the rank */
    alpha?: number;
    rslora?: boolean;
    dropout?: number;
    /** layers that learn; default: all */
    firstLayer?: number;
    layers?: number;

    /** "all": also what users say. Default "replies" */
    learn?: "replies" | "all";
    /** a row that cannot be read: left out and counted (the default), or an error */
    badRows?: "skip" | "fail";
    /** a sample longer than maxLength (default 2048 tokens): cut, or left out */
    longSamples?: "cut" | "drop";
    maxLength?: number;
    /** of the samples, held out to measure by */
    evalShare?: number;

    /** default 2e-4 */
    learningRate?: number;
    weightDecay?: number;
    /** of the gradient's norm; default 1; 0: none */
    clip?: number;
    schedule?: "cosine" | "linear" | "constant";
    /** steps in which the rate rises */
    warmup?: number;
    /** default 3, or as many as `steps` takes */
    epochs?: number;
    /** at most */
    steps?: number;
    /** tokens of a batch, into which short samples are packed; default 512, or an eighth of the
     * data where that is less; 1: each sample by itself */
    batchTokens?: number;
    /** batches a step; default 1, or without batchTokens as many as make 2048 tokens or an eighth
     * of the data */
    accumulate?: number;
    /** steps between measurements */
    evalEvery?: number;
    /** measurements without progress before it stops */
    patience?: number;
    seed?: number;
    /** bytes beside the weights, which decide how much is computed twice; default 4 GiB */
    memory?: number;

    /** Name of a file in the origin's private file system, written every `checkpointEvery` steps
     * (default 100), at a pause, a stop and the end. */
    checkpoint?: string;
    checkpointEvery?: number;
    /** Goes on from that checkpoint, bit for bit: model, data and options have to be the same. */
    resume?: boolean;
    /** Rests once it has reported, until resume(). */
    paused?: boolean;

    /** stops the run */
    signal?: AbortSignal;
    /** within a step ("step"), a measurement ("eval"), and while weights are loaded ("load") */
    onProgress?: (progress: Progress) => void;
}

/** What will be done. */
export interface TrainReport {
    model: string;
    data: string;
    /** of the data; how many of them cannot be read, and what is wrong with the first of these */
    rows: number;
    bad: number;
    firstBad?: string;
    /** samples that were too long, and rows in which nothing would be learned */
    cut: number;
    dropped: number;
    nothingLearned: number;
    samples: number;
    trainSamples: number;
    evalSamples: number;
    tokens: number;
    learnedTokens: number;
    lengths: {shortest: number; median: number; longest: number};
    steps: number;
    epochs: number;
    batchTokens: number;
    accumulate: number;
    adapter: AdapterInfo;
    /** bytes: of the weights, and for the run beside them (an estimate) */
    memory: {weights: number; run: number};
}

export type TrainPart =
    /** Always the first one. sample: the first as it is trained, control tokens spelled out, what
     * is learned between [[ and ]]; step: taken before, where it goes on from a checkpoint. */
    | {type: "report"; report: TrainReport; sample: string; step: number}
    | {type: "step"; step: number; steps: number; epoch: number; loss: number;
        learningRate: number; gradNorm: number; tokens: number; seconds: number;
        tokensPerSecond: number}
    /** loss: of the samples held out, a token, natural logarithm; best: so far */
    | {type: "eval"; step: number; loss: number; best: number}
    | {type: "checkpoint"; name: string; step: number}
    /** Always the last one. "patience": it got no better; "stopped": by stop(), its signal, or
     * because the loop over it was left. */
    | {type: "done"; finishReason: "finished" | "patience" | "stopped"; step: number;
        steps: number; loss: number | null; evalLoss: number | null; tokens: number;
        seconds: number};

/** A run on its way: it starts by itself. Iterate it, or await its result(); leaving the loop stops
 * it. Chats that come meanwhile are answered between two batches. */
export interface Training extends AsyncIterable<TrainPart> {
    /** Runs to the end and gives the last part. */
    result(): Promise<Extract<TrainPart, {type: "done"}>>;
    /** Resolves when the run has come to rest. */
    pause(): Promise<void>;
    resume(): Promise<void>;
    /** Ends it within a batch; what was learned stays usable. */
    stop(): void;

    /** What has been learned so far, while it runs or afterwards; for setAdapters(). */
    adapter(name?: string): Promise<Adapter>;
    export(format?: "gguf" | "peft"): Promise<File[]>;
    /** Writes a checkpoint now. */
    checkpoint(name: string): Promise<void>;
    /** Sample i as it is trained. */
    sample(i: number): Promise<string>;
    /** Ends it and gives its memory back; adapters that it gave stay. */
    close(): Promise<void>;
}
