// @ts-check
/* run: drives a job of the engine to its end without ever blocking the worker: between two steps
 * the worker hears its messages, so a stop is heard within one token.
 *
 * Flow: worker.js starts a job and hands it over; engine.js and gpu.js do the work. */
import {CaratError} from "./errors.js";

/** @typedef {import("./engine.js").Job} Job */
/** @typedef {import("./engine.js").Event} Event */
/** @typedef {import("./gpu.js").Gpu} Gpu */

const {port1, port2} = new MessageChannel();
/** @type {(() => void)[]} */
const resting = [];
port1.onmessage = () => resting.shift()?.();

/** Lets the messages that wait be heard; a timer would take 4 ms. @returns {Promise<void>} */
function rest() {
    return new Promise((resolve) => {
        resting.push(resolve);
        port2.postMessage(null);
    });
}

/** A device that was lost is opened again before the engine asks for it: the engine cannot wait.
 * The engine does with that once in a job, and then goes on with the CPU.
 * @param {Gpu} gpu @param {boolean} cpuWillDo @param {number} losses in this job */
async function replaceLost(gpu, cpuWillDo, losses) {
    const another = await gpu.reopen();
    if (cpuWillDo || (another && losses < 2)) return;
    throw new CaratError("device-lost", another
        ? "the GPU was lost twice, and the model is too large for the CPU"
        : "the GPU was lost and there is no other; the model is too large for the CPU");
}

/** @param {Job} job freed here
 * @param {{gpu: Gpu | null, cpuWillDo: boolean, signal: AbortSignal,
 *     onEvent: (event: Event) => void}} how
 * @returns {Promise<{finish: string | null, stats: ReturnType<Job["stats"]>}>} */
export async function run(job, {gpu, cpuWillDo, signal, onEvent}) {
    let losses = 0;
    try {
        for (;;) {
            if (signal.aborted) job.cancel();
            if (gpu?.lost) await replaceLost(gpu, cpuWillDo, ++losses);
            const event = job.advance();
            if (event.kind === "done") return {finish: event.finish, stats: job.stats()};
            if (event.kind !== "pending") onEvent(event);
            await (gpu && event.kind === "pending" ? gpu.settled() : rest());
        }
    } finally {
        job.free();
    }
}

/** Calls that need the session, one after the other. */
export class Line {
    #last = Promise.resolve();

    /** Runs it when those before have ended; when aborted before that, it is never run.
     * @template T @param {AbortSignal} signal @param {() => Promise<T>} work
     * @returns {Promise<T>} */
    wait(signal, work) {
        return new Promise((resolve, reject) => {
            let begun = false;
            const give = () => {
                if (!begun) reject(new CaratError("aborted", "it was aborted before it began"));
            };
            signal.addEventListener("abort", give);
            if (signal.aborted) give();
            this.#last = this.#last.then(async () => {
                if (signal.aborted) return;
                begun = true;
                await work().then(resolve, reject);
            });
        });
    }
}
