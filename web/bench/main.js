// @ts-check
/* main: the benchmark's page. Reads the form (or the address: ?url=…&device=gpu&pp=128&run), shows
 * the figures and the lines for bench/results/. What is measured, and how, is in measure.js.
 *
 * Flow: index.html before, measure.js after. A driver (tests/browser/bench.mjs) finds the figures
 * in globalThis.benchResult. */
import {measure} from "./measure.js";

/** @typedef {Awaited<ReturnType<typeof measure>>} Result */

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
    const found = document.getElementById(id);
    if (!(found instanceof kind)) throw new Error(`no #${id}`);
    return found;
}
const input = (/** @type {string} */ id) => element(id, HTMLInputElement);
const device = element("device", HTMLSelectElement);

const status = element("status", HTMLElement);
/** @param {string} text */
const say = (text) => void (status.textContent = text);

/** "128,512" -> [128, 512]
 * @param {string} text */
function numbers(text) {
    const all = text.split(",").filter((s) => s.trim()).map(Number);
    if (!all.every((n) => Number.isSafeInteger(n) && n >= 0))
        throw new Error(`"${text}" is no list of token counts`);
    return all;
}

function browserName() {
    const m = /(Firefox|Edg|Chrome|Version)\/(\d+)/.exec(navigator.userAgent);
    return m ? `${m[1] === "Version" ? "Safari" : m[1]} ${m[2]}` : "browser";
}

/** @param {Result} r @returns {[string, string][]} */
function figures(r) {
    const ms = (/** @type {number} */ s) => `${(s * 1e3).toFixed(0)} ms`;
    return [
        ...r.tests.map((t) => /** @type {[string, string]} */
            ([t.test, `${t.tokensPerSecond.toFixed(1)} tok/s`])),
        ["load, first", `${r.cold.loadSeconds.toFixed(2)} s`],
        ["load, again", `${r.warm.loadSeconds.toFixed(2)} s`],
        ["first token after the first load", ms(r.cold.firstTokenSeconds)],
        ["first token after a warm start", ms(r.warm.firstTokenSeconds)],
        ["heap", `${(r.memory.heapBytes / 1e6).toFixed(1)} MB`],
        ["device memory", `${(r.memory.gpuPeakBytes / 1e6).toFixed(1)} MB at most`],
    ];
}

/** Lines with the columns of bench/results/; those that only the native bench knows are empty.
 * @param {Result} r */
function csv(r) {
    const quoted = (/** @type {string} */ s) => `"${s.replaceAll('"', '""')}"`;
    const day = new Date().toISOString().slice(0, 10);
    const head = [day, r.version, quoted(`${r.device.name}, ${browserName()}`),
        quoted(r.model.name), quoted(r.model.quantisation ?? "")];
    const tail = ["", "", "", "", r.warm.loadSeconds.toFixed(3),
        (r.model.weightBytes * 1e-9 / r.warm.loadSeconds).toFixed(3),
        (r.memory.gpuPeakBytes * 1e-6).toFixed(1), (r.memory.heapBytes * 1e-6).toFixed(1),
        "", "", "", "", ""];
    return r.tests.map((t) => [...head, t.test, t.tokensPerSecond.toFixed(2), ...tail].join(","))
        .join("\n");
}

/** @param {Result} r */
function show(r) {
    element("caption", HTMLElement).textContent = `${r.model.name}, ${r.device.name}`;
    element("rows", HTMLElement).replaceChildren(...figures(r).map(([name, value]) => {
        const row = document.createElement("tr");
        for (const text of [name, value])
            row.append(Object.assign(document.createElement("td"), {textContent: text}));
        return row;
    }));
    element("csv", HTMLTextAreaElement).value = csv(r);
    element("table", HTMLElement).hidden = false;
    element("csv-label", HTMLElement).hidden = false;
}

async function run() {
    const button = element("start", HTMLButtonElement);
    button.disabled = true;
    try {
        const plan = {
            device: /** @type {"auto" | "gpu" | "cpu"} */ (device.value),
            pp: numbers(input("pp").value),
            tg: numbers(input("tg").value),
            generate: Number(input("generate").value),
            train: Number(input("train").value),
            reps: Number(input("reps").value),
        };
        const source = input("file").files?.[0] ?? new URL(input("url").value, location.href).href;
        const result = await measure(source, plan, say);
        show(result);
        Object.assign(globalThis, {benchResult: {...result, csv: csv(result)}});
    } catch (e) {
        const message = e instanceof Error ? e.message : String(e);
        say(`It failed: ${message}`);
        Object.assign(globalThis, {benchResult: {error: message}});
    } finally {
        button.disabled = false;
    }
}

element("form", HTMLFormElement).addEventListener("submit", (e) => {
    e.preventDefault();
    void run();
});
const address = new URLSearchParams(location.search);
for (const id of ["url", "pp", "tg", "generate", "train", "reps"])
    if (address.has(id)) input(id).value = address.get(id) ?? "";
if (address.has("device")) device.value = address.get("device") ?? "auto";
if (address.has("run")) void run();
