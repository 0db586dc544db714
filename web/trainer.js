// @ts-check
/* trainer: a training run in the worker. Owns the one run of the engine: slices of it that take
 * their turn with the other calls, so that chats come in between, pausing, checkpoints.
 *
 * Learning ends a slice within one batch when it is cancelled; what has been learned is then on the
 * host, and the calls below are for that moment.
 *
 * Flow: worker.js before; engine.js computes, run.js drives, kept.js stores. */
import {adapterFolder, infoOf, keep} from "./adapters.js";
import {CaratError} from "./errors.js";
import {checkpoints} from "./kept.js";
import {openBlob} from "./source.js";

/** @typedef {import("./engine.js").Event} Event */
/** @typedef {import("./engine.js").Job} Job */
/** @typedef {import("./carat.js").TrainPart} TrainPart */
/** @typedef {import("./adapters.js").Host} Host */
/** @typedef {{id: number, signal: AbortSignal, onPart: (part: TrainPart) => void,
 *     onNotice: (notice: string) => void, meter: import("./progress.js").Meter}} Call */
/** @typedef {{line: import("./run.js").Line, host: Host, drive: (job: Job,
 *     call: {signal: AbortSignal}, onEvent: (event: Event) => void) => Promise<unknown>}} Shop */
/** @typedef {{data: File, adapter: number | null, options: object, checkpoint: string | null,
 *     checkpointEvery: number, resume: boolean, paused: boolean}} Request as carat.js posts it */

const never = new AbortController().signal;

/** @type {Run | null} the one whose trainer is open */
let current = null;

class Run {
    #shop;
    #call;
    #request;
    #hold = new AbortController();
    #paused = false;
    /** Ends a pause. */
    #wake = () => {};
    over = false;
    /** @type {Promise<void>} */
    ended = Promise.resolve();

    /** @param {Shop} shop @param {Request} request @param {Call} call */
    constructor(shop, request, call) {
        this.#shop = shop;
        this.#request = request;
        this.#call = call;
        this.#paused = request.paused;
        call.signal.addEventListener("abort", () => {
            this.#wake();
            this.yield();
        });
    }

    get id() {
        return this.#call.id;
    }

    get stopped() {
        return this.#call.signal.aborted;
    }

    /** Lets others have the engine; goes on behind them. */
    yield() {
        this.#hold.abort();
    }

    /** @param {boolean} paused */
    pause(paused) {
        this.#paused = paused;
        if (paused) this.yield();
        else this.#wake();
    }

    /** Does something while nothing runs. @template T @param {() => T | Promise<T>} work
     * @returns {Promise<T>} */
    between(work) {
        this.yield();
        return this.#shop.line.wait(never, async () => work());
    }

    /* ---- the run ---- */

    async begin() {
        const {host: {engine, files}} = this.#shop, {data, adapter, options} = this.#request;
        const {name} = data, from = "from.gguf";
        const learn = () => engine.openTrainer(`/${name}`, adapter === null ? null : `/${from}`,
            options);
        const file = openBlob(data);
        files.add(name, file);
        try {
            if (adapter === null) learn();
            else files.inside(adapterFolder(this.#shop.host, adapter, `/${from}`), learn);
        } finally {
            files.remove(name);
            file.close?.();
        }
        if (this.#request.resume) await this.#restore();
        this.#call.onPart({type: "report", report: reportOf(engine.trainingReport()),
            sample: engine.trainingSample(0), step: engine.trainingState().step});
    }

    async #restore() {
        const {host: {engine, files}} = this.#shop, name = this.#request.checkpoint ?? "";
        await checkpoints.read(name, (directory) => files.inside(directory,
            () => engine.resumeCheckpoint(checkpoints.path(name))));
    }

    /** @param {string} name */
    async save(name) {
        const {host: {engine, files}} = this.#shop;
        await checkpoints.write(name, (directory) => files.inside(directory,
            () => engine.saveCheckpoint(checkpoints.path(name))));
        this.#call.onPart({type: "checkpoint", name, step: engine.trainingState().step});
    }

    /** What was learned matters more than a full disk. @param {string} name */
    async #saveIfPossible(name) {
        try {
            await this.save(name);
        } catch (error) {
            if (!(error instanceof CaratError)) throw error;
            this.#call.onNotice(`${error.message}; training goes on without this checkpoint`);
        }
    }

    /** @param {Event} event */
    #tell({kind, text, done, total}) {
        const {meter, onPart} = this.#call;
        if (kind === "progress") /* no text: weights */
            meter.report(text === "step" || text === "eval" ? text : "load", done, total);
        if (kind !== "step" && kind !== "eval") return;
        const {step, steps, epoch, loss, learningRate, gradNorm, tokens, seconds, evalLoss,
            bestEval} = this.#shop.host.engine.trainingState();
        onPart(kind === "eval" ? {type: "eval", step, loss: evalLoss, best: bestEval}
            : {type: "step", step, steps, epoch, loss, learningRate, gradNorm, tokens, seconds,
                tokensPerSecond: seconds > 0 ? tokens / seconds : 0});
    }

    /** Some steps, until it is cancelled or something is to be kept. */
    async #slice() {
        if (this.stopped || this.#paused) return;
        const {drive, host: {engine}} = this.#shop, {checkpoint, checkpointEvery} = this.#request;
        this.#hold = new AbortController();
        await drive(engine.train(checkpoint ? checkpointEvery : 0), this.#hold,
            (event) => this.#tell(event));
    }

    /** Runs until all is learned, or it is stopped. */
    async run() {
        const {line, host: {engine}} = this.#shop, {checkpoint} = this.#request;
        let saved = engine.trainingState().step;
        for (;;) {
            await line.wait(never, async () => {
                await this.#slice();
                const {step, finished} = engine.trainingState();
                if (!checkpoint || step === saved) return;
                if (!finished && !this.stopped && !this.#paused &&
                    step - saved < this.#request.checkpointEvery) return;
                await this.#saveIfPossible(checkpoint);
                saved = step;
            });
            if (engine.trainingState().finished || this.stopped) break;
            if (this.#paused)
                await new Promise((resolve) => {
                    this.#wake = () => resolve(undefined);
                });
        }
        const {step, steps, loss, evalLoss, tokens, seconds, finished} = engine.trainingState();
        const finishReason = !finished ? "stopped" : step < steps ? "patience" : "finished";
        this.#call.onPart({type: "done", finishReason, step, steps, loss, evalLoss, tokens,
            seconds});
    }
}

/** @param {any} report in the core's words @returns {import("./carat.js").TrainReport} */
function reportOf({adapter, ...report}) {
    const ours = Object.entries(report).map(([key, value]) =>
        [key.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), value]);
    return {...Object.fromEntries(ours), adapter: infoOf(adapter)};
}

/** @param {Shop} shop @param {Request} request @param {Call} call */
export async function train(shop, request, call) {
    while (current && !current.over) {
        if (!current.stopped)
            throw new CaratError("argument", "train: another run is under way; stop that first");
        await current.ended.catch(() => {});
    }
    const run = new Run(shop, request, call);
    current = run;
    run.ended = (async () => {
        try {
            await shop.line.wait(never, () => run.begin());
            await run.run();
        } finally {
            run.over = true;
        }
    })();
    await run.ended;
}

/** Those who need the engine come first. */
export function makeWay() {
    if (current && !current.over) current.yield();
}

/** @param {number} id */
function found(id) {
    if (current?.id === id) return current;
    throw new CaratError("argument", "the training run was closed, or another one has begun");
}

/** @type {Record<string, (shop: Shop, args: any) => unknown>} */
export const trainingOps = {
    pauseTraining: (shop, {run}) => {
        found(run).pause(true);
        return found(run).between(() => {});
    },
    resumeTraining: (shop, {run}) => found(run).pause(false),
    saveCheckpoint: (shop, {run, name}) => found(run).between(() => found(run).save(name)),
    trainingSample: ({host}, {run, i}) => found(run).between(() => host.engine.trainingSample(i)),
    trainingAdapter: ({host}, {run}) => found(run).between(() =>
        keep(host, host.engine.openAdapter(null))),
    closeTraining: ({host}, {run}) => current?.id === run && found(run).between(() => {
        if (current?.id !== run) return; // it was closed meanwhile
        current = null;
        host.engine.closeTrainer();
    }),
};
