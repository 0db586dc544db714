// tune_result: what has come of a run: the same question without the adapter and with it, side by
// side; keeping it, downloading it.
//
// Owns: these elements. ../tune.js asks and keeps.
// @ts-check

import {announce, byId, el, fill} from "../dom.js";
import {sentence} from "../model.js";
import {save} from "../save.js";
import {tune} from "../tune.js";
import {notice} from "./notices.js";

const place = byId("tune-result");

const question = el("input", {class: "input", id: "tune-question", autocomplete: "off"});
const comparer = el("button", {class: "button primary"}, "Compare");
const answers = {without: el("p", {}), with: el("p", {})};
const name = el("input", {class: "input", id: "tune-name", maxlength: 40, autocomplete: "off"});
const keeper = el("button", {class: "button primary"}, "Keep");
const kept = el("p", {class: "in-use", hidden: true}, "Kept: chats use it now.");

/** @type {any} the adapter that is shown */
let shown = null;

async function compare() {
    const asked = question.value.trim();
    if (!asked || comparer.disabled) return;
    comparer.disabled = true;
    for (const answer of Object.values(answers)) answer.textContent = "\u2026";
    try {
        await tune.compare(asked, (which, text) => {
            answers[which].textContent = text;
        });
        announce(`Without: ${answers.without.textContent} With: ${answers.with.textContent}`);
    } catch (error) {
        notice(sentence(error), {kind: "error"});
    }
    comparer.disabled = false;
}

async function keep() {
    if (!name.value.trim()) return;
    keeper.disabled = true;
    try {
        await tune.keep(name.value.trim());
        announce("Kept");
    } catch (error) {
        notice(sentence(error), {kind: "error"});
    }
    keeper.disabled = false;
}

/** @param {"gguf" | "peft"} format */
async function download(format) {
    try {
        save(await tune.files(format));
    } catch (error) {
        notice(sentence(error), {kind: "error"});
    }
}

/** What the first sample asks. */
function firstQuestion() {
    return /<\|turn>user\n([^]*?)<turn\|>/.exec(tune.sample)?.[1] ?? "";
}

function show() {
    place.hidden = tune.state !== "done";
    kept.hidden = !tune.kept;
    if (tune.adapter === shown) return;
    shown = tune.adapter;
    question.value = firstQuestion();
    name.value = tune.name;
    for (const answer of Object.values(answers)) answer.textContent = "";
}

/** @param {() => void} act @param {...any} inside */
function form(act, ...inside) {
    return el("form", {class: "row tune-form", on: {submit: (/** @type {Event} */ e) => {
        e.preventDefault();
        act();
    }}}, inside);
}

export function startResult() {
    const column = (/** @type {string} */ title, /** @type {any} */ answer) =>
        el("div", {class: "card"}, el("h4", {}, title), answer);
    const fetcher = (/** @type {"gguf" | "peft"} */ format, /** @type {string} */ text) =>
        el("button", {type: "button", class: "button", on: {click: () => download(format)}}, text);
    fill(place, el("h3", {}, "Compare"),
        el("label", {for: question.id}, "A question"), form(compare, question, comparer),
        el("div", {class: "side-by-side"}, column("Without the adapter", answers.without),
            column("With the adapter", answers.with)),
        el("h3", {}, "Keep it"),
        el("label", {for: name.id}, "Name"), form(keep, name, keeper), kept,
        el("div", {class: "row"}, fetcher("gguf", "Download for llama.cpp"),
            fetcher("peft", "Download for PEFT")),
        el("p", {class: "help"}, "Keeping it stores it on this device, with a switch below the " +
            "field you write in."));
    tune.addEventListener("change", show);
    show();
}
