// tune: the view in which the model is taught: the examples, the settings, the run.
//
// Owns: these elements. What is going on is ../tune.js's; the outcome is tune_result.js's.
// @ts-check

import {announce, byId, el, fill, icon} from "../dom.js";
import {bytes, duration, speed} from "../format.js";
import {isModel} from "../media.js";
import {model} from "../model.js";
import {targetSets, tune} from "../tune.js";
import {Chart} from "./chart.js";
import {startResult} from "./tune_result.js";

const data = byId("tune-data");
const options = byId("tune-options");
const run = byId("tune-run");
const interrupted = byId("tune-interrupted");

/** @param {string} text @param {() => void} click @param {object} [more] */
export function button(text, click, more = {}) {
    return el("button", {type: "button", class: "button", on: {click}, ...more}, text);
}

/* ---- the examples ---- */

const input = el("input", {type: "file", id: "tune-file", class: "sr-only", tabindex: "-1",
    accept: ".jsonl,.json,.csv", "aria-label": "A file of examples"});
const picker = el("div", {class: "card drop"},
    el("p", {}, "A file of questions and answers, as JSONL, JSON or CSV: ",
        el("code", {}, '{"prompt": "...", "completion": "..."}'), ", ",
        el("code", {}, '{"messages": [...]}'), ", or the columns ", el("code", {},
            "instruction, output"), "."),
    el("div", {class: "row"},
        el("button", {type: "button", class: "button", on: {click: () => input.click()}},
            icon("file"), "Choose a file"),
        button("Try an example", () => tune.useExample().catch(() => {})), input),
    el("p", {class: "help"}, "Or drop it here. It stays on this device."));
const report = el("div", {class: "tune-report", "aria-live": "polite"});

/** @param {number} n @param {string} what */
const some = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/** The first sample: control tokens, and what is learned, stand out. @param {string} text */
function sampleElement(text) {
    let learned = false;
    const parts = text.trimEnd().split(/(\[\[|\]\]|<\|?\w+\|?>)/).map((part) => {
        if (part === "[[" || part === "]]") learned = part === "[[";
        else if (/^<.*>$/.test(part))
            return el(learned ? "mark" : "span", {class: "special"}, part);
        else return learned && part ? el("mark", {}, part) : part;
        return null;
    });
    return el("pre", {class: "sample", tabindex: "0", "aria-label": "The first sample"}, parts);
}

function showReport() {
    const {report: r, error, state, file} = tune;
    if (error) return fill(report, el("p", {class: "problem"}, error));
    if (!r) return fill(report, state === "reading" && el("p", {class: "quiet"},
        `Reading ${file?.name}\u2026`));
    const odd = [r.bad && `${some(r.bad, "row")} cannot be read (${r.firstBad})`,
        r.cut && `${some(r.cut, "sample")} too long, and cut`,
        r.nothingLearned && `${some(r.nothingLearned, "row")} with nothing to learn`];
    fill(report, el("p", {}, el("strong", {}, file?.name), `: ${some(r.samples, "sample")}, ${
        some(r.tokens, "token")}, ${Math.round(100 * r.learnedTokens / r.tokens)} % of them ` +
        "learned"),
    odd.filter(Boolean).map((text) => el("p", {class: "problem"}, text)),
    el("p", {class: "quiet"}, "The first sample as the model sees it; it learns to say what is ",
        el("mark", {}, "marked"), "."),
    sampleElement(tune.sample));
}

/** @param {DragEvent} e */
function dropped(e) {
    const file = e.dataTransfer?.files[0];
    if (!file || byId("tune").hidden || picker.hidden || isModel(file)) return;
    e.preventDefault();
    e.stopImmediatePropagation();
    byId("drop-hint").hidden = true;
    tune.choose(file);
}

/* ---- the settings ---- */

/** @param {string} id @param {string} label @param {string} help @param {any} control */
function field(id, label, help, control) {
    control.id = `tune-${id}`;
    return el("div", {class: "field"}, el("label", {for: control.id}, label), control,
        el("p", {class: "help"}, help));
}

/** @param {"rank" | "targets"} name @param {[string | number, string][]} choices */
function choice(name, choices) {
    const select = el("select", {class: "input", on: {change: () => tune.set({[name]:
        name === "rank" ? Number(select.value) : select.value})}},
    choices.map(([value, text]) => el("option", {value}, text)));
    return select;
}

/** @param {"epochs" | "learningRate" | "memory"} name @param {number} min @param {number} max
 * @param {string} step */
function number(name, min, max, step) {
    const box = el("input", {class: "input", type: "number", min, max, step, required: true,
        inputmode: "decimal"});
    box.addEventListener("change", () => {
        box.setAttribute("aria-invalid", String(!box.validity.valid));
        if (box.validity.valid) tune.set({[name]: Number(box.value)});
    });
    return box;
}

const controls = {
    rank: choice("rank", [4, 8, 16, 32, 64].map((n) => [n, String(n)])),
    targets: choice("targets", Object.entries(targetSets).map(([key, {label}]) => [key, label])),
    epochs: number("epochs", 1, 1000, "1"),
    learningRate: number("learningRate", 1e-6, 1, "any"),
    memory: number("memory", 0.1, 200, "any"),
};
const starter = el("button", {type: "button", class: "button primary",
    on: {click: () => tune.start()}}, "Start");
const plan = el("span", {class: "quiet"});

function buildOptions() {
    fill(options, el("h3", {}, "Settings"), el("div", {class: "fields"},
        field("rank", "Rank", "More can learn more, and takes more memory.", controls.rank),
        field("targets", "What is adapted", "Fewer are faster, and learn less.",
            controls.targets),
        field("epochs", "Epochs", "How often it sees every sample.", controls.epochs),
        field("rate", "Learning rate", "Too high, and it forgets; too low, and it learns nothing.",
            controls.learningRate),
        field("memory", "Memory, GB", "For training, beside the model. Less is slower.",
            controls.memory)),
    el("div", {class: "row tune-start"}, starter, plan));
}

function showOptions() {
    const {state, report: r} = tune;
    options.hidden = !["reading", "ready"].includes(state);
    for (const [name, control] of Object.entries(controls))
        if (document.activeElement !== control)
            control.value = /** @type {any} */ (tune.options)[name];
    plan.textContent = r ? `${some(r.steps, "step")}, about ${bytes(r.memory.run)} of memory` : "";
}

/* ---- the run ---- */

/** @type {Chart | null} made when it is first seen */
let chart = null;
const figures = el("dl", {class: "figures-list"});
const bar = el("progress", {"aria-label": "Steps"});
const actions = el("div", {class: "row"});

function showFigures() {
    const last = tune.steps.at(-1), measured = tune.evals.at(-1);
    const steps = last?.steps ?? tune.report?.steps ?? 0, step = last?.step ?? tune.from;
    bar.max = steps || 1;
    bar.value = step;
    const all = [["Step", `${step} of ${steps}`],
        ["Loss", last ? last.loss.toFixed(3) : "\u2013", "key colour-accent"],
        measured && ["Held out", measured.loss.toFixed(3), "key colour-danger"],
        ["Speed", last ? speed(last.tokensPerSecond) : "\u2013"],
        ["Left", tune.state === "running" && tune.left > 0 ? duration(tune.left) : "\u2013"]];
    fill(figures, all.filter(Boolean).map(([name, value, key]) =>
        el("div", {}, el("dt", {class: key}, name), el("dd", {}, value))));
    chart?.show(tune.steps, tune.evals);
}

const endings = {finished: "It has learned all samples.", stopped: "It was stopped.",
    patience: "It got no better, and ended."};

function showRun() {
    const {state, done} = tune, live = state === "running" || state === "paused";
    run.hidden = !live && !done;
    if (run.hidden) return;
    if (!chart) {
        chart = new Chart();
        fill(run, el("h3", {}, "Training"), bar, figures, chart.element, actions);
    }
    const what = state === "running" ? "Pause" : "Resume";
    if (live) {
        /* The button that was pressed keeps its place, and the focus. */
        const focused = actions.contains(document.activeElement);
        fill(actions, button(what, () => state === "running" ? tune.pause() : tune.resume()),
            button("Stop", () => tune.stop()),
            state === "paused" && el("span", {class: "quiet"}, "Paused: you can chat meanwhile."));
        if (focused) actions.firstChild.focus();
    } else {
        fill(actions, el("p", {}, endings[/** @type {keyof typeof endings} */ (
            done.finishReason)]), button("Start over", () => tune.discard()));
    }
    showFigures();
}

function showInterrupted() {
    const old = tune.interrupted;
    interrupted.hidden = !old;
    if (!old) return;
    const fits = old.model === model.name;
    fill(interrupted, el("p", {}, `The training of `, el("strong", {}, old.name), ` on ${
        old.file.name} was interrupted.`, fits ? "" : ` It belongs to ${old.model}.`),
    el("div", {class: "row"}, button("Go on", () => tune.goOn(), {disabled: !fits}),
        button("Discard", () => tune.discard())));
}

/** @type {string} */
let told = "";

function show() {
    const {state} = tune;
    fill(byId("tune-about"), `Teach ${model.name} from examples. An adapter learns them; the ` +
        "model stays as it is. Everything happens on this device.");
    picker.hidden = state === "running" || state === "paused" || state === "done";
    showInterrupted();
    showReport();
    showOptions();
    showRun();
    if (told !== state && ["ready", "paused", "done"].includes(state))
        announce({ready: "The examples were read", paused: "Paused", done: "Trained"}[
            /** @type {"ready" | "paused" | "done"} */ (state)]);
    told = state;
}

export function startTune() {
    fill(data, picker, report);
    buildOptions();
    input.addEventListener("change", () => {
        if (input.files?.[0]) tune.choose(input.files[0]);
        input.value = "";
    });
    addEventListener("drop", dropped, {capture: true});
    startResult();
    tune.addEventListener("change", show);
    tune.addEventListener("step", () => showFigures());
    model.addEventListener("change", show);
    show();
}
