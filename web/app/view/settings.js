// settings: the dialog with the system prompt, the sampling, the device, and the conversations'
// export and import.
//
// Owns: the dialog's elements. The values are ../settings.js's. What changes the loaded model
// (context length, device) takes effect when the dialog closes.
// @ts-check

import {chat} from "../chat.js";
import {announce, byId, copyText, el, fill} from "../dom.js";
import {model, sentence} from "../model.js";
import {numbers, settings} from "../settings.js";
import {version} from "../version.js";
import {confirmDialog, openDialog, prepareDialog} from "./dialog.js";
import {notice} from "./notices.js";

const dialog = byId("settings");
const form = byId("settings-form");
const gemma = {temperature: 1, topK: 64, topP: 0.95, minP: 0};
const needsReload = ["device", "contextLength"];
let before = "";

/** What holds where nothing was chosen. @param {string} name */
function defaultOf(name) {
    const own = model.carat?.model.sampling ?? {};
    if (name in gemma) return String(own[name] ?? /** @type {any} */ (gemma)[name]);
    if (name === "contextLength") return String(model.carat?.model.contextLength ?? "automatic");
    return name === "seed" ? "a new one" : "until it ends";
}

/** @param {string} name @param {any} rule */
function numberField(name, {label, min, max, step, help}) {
    const input = el("input", {class: "input", type: "number", id: `set-${name}`, min, max, step,
        inputmode: "decimal", "aria-describedby": `help-${name}`,
        value: /** @type {any} */ (settings.values)[name] ?? "", placeholder: defaultOf(name)});
    input.addEventListener("input", () => {
        const value = input.value.trim() === "" ? null : Number(input.value);
        const good = value === null || (input.validity.valid && Number.isFinite(value));
        input.setAttribute("aria-invalid", String(!good));
        if (good) settings.set({[name]: value});
        else announce(`${label}: between ${min} and ${max}`);
    });
    return el("div", {class: "field"}, el("label", {for: input.id}, label), input,
        el("p", {class: "help", id: `help-${name}`}, help,
            name in gemma ? ` Default: ${defaultOf(name)}.` : ""));
}

/** @param {"thinking" | "tools"} name @param {string} label @param {string} help */
function switchField(name, label, help) {
    const input = el("input", {type: "checkbox", role: "switch", id: `set-${name}`,
        "aria-describedby": `help-${name}`});
    input.checked = settings.values[name];
    input.addEventListener("change", () => settings.set({[name]: input.checked}));
    return el("div", {class: "field switch"}, input, el("label", {for: input.id}, label),
        el("p", {class: "help", id: `help-${name}`}, help));
}

/** @param {"device" | "theme" | "imageTokens"} name @param {string} label
 * @param {[string, string][]} options @param {string} help
 * @param {(value: string) => any} [read] what is kept of an option's value */
function choiceField(name, label, options, help, read = (value) => value) {
    const select = el("select", {class: "input", id: `set-${name}`},
        options.map(([value, text]) => el("option", {value}, text)));
    select.value = settings.values[name] ?? "";
    select.addEventListener("change", () => settings.set({[name]: read(select.value)}));
    return el("div", {class: "field"}, el("label", {for: select.id}, label), select,
        help && el("p", {class: "help"}, help));
}

function systemField() {
    const area = el("textarea", {class: "input", id: "set-system", rows: 3,
        placeholder: "For example: Answer in one sentence."});
    area.value = settings.values.system;
    area.addEventListener("input", () => settings.set({system: area.value}));
    return el("div", {class: "field wide"}, el("label", {for: area.id}, "System prompt"), area,
        el("p", {class: "help"}, "How the model should behave. It stands before every " +
            "conversation."));
}

async function exportAll() {
    const picker = /** @type {any} */ (globalThis).showSaveFilePicker;
    if (picker) {
        try {
            const handle = await picker({suggestedName: "carat-conversations.json"});
            const file = await handle.createWritable();
            await file.write(await chat.exportText());
            await file.close();
            notice(`Exported ${chat.list.length} conversations.`);
        } catch (error) {
            if (/** @type {any} */ (error).name !== "AbortError")
                notice(`The export failed: ${sentence(error)}`, {kind: "error"});
        }
    } else if (await copyText(await chat.exportText())) {
        notice("The conversations are in the clipboard, as JSON: paste them into a file.");
    } else notice("This browser lets no page save a file or use the clipboard.", {kind: "error"});
    dialog.close();
}

/** @param {File | undefined} file */
async function importFile(file) {
    if (!file) return;
    dialog.close();
    try {
        const count = await chat.importText(await file.text());
        notice(`Imported ${count} ${count === 1 ? "conversation" : "conversations"}.`);
    } catch (error) {
        notice(sentence(error), {kind: "error"});
    }
}

async function deleteAll() {
    const count = chat.list.length;
    const sure = await confirmDialog("Delete all conversations?",
        `All ${count} are removed from this device. This cannot be undone.`, "Delete all");
    if (!sure) return;
    for (const conversation of [...chat.list]) await chat.remove(conversation);
    dialog.close();
    notice("All conversations are deleted.");
}

function conversationsField() {
    const input = el("input", {type: "file", accept: ".json,application/json", class: "sr-only",
        id: "import-file", tabindex: "-1", "aria-label": "A file of conversations"});
    input.addEventListener("change", () => importFile(input.files?.[0]));
    return el("div", {class: "row"},
        el("button", {type: "button", class: "button", disabled: chat.list.length === 0,
            on: {click: exportAll}}, "Export as JSON"),
        el("button", {type: "button", class: "button", on: {click: () => input.click()}},
            "Import"),
        el("button", {type: "button", class: "button danger", disabled: chat.list.length === 0,
            on: {click: deleteAll}}, "Delete all"), input);
}

function resetField() {
    return el("button", {type: "button", class: "button", on: {click: () => {
        settings.set(Object.fromEntries(Object.keys(numbers).map((name) => [name, null])));
        show();
    }}}, "Use the model's defaults");
}

function show() {
    const names = Object.entries(numbers);
    const sampling = names.filter(([name]) => name !== "contextLength");
    const context = names.filter(([name]) => name === "contextLength");
    const section = (/** @type {string} */ title, /** @type {any[]} */ ...children) =>
        el("section", {class: "fields"}, el("h3", {}, title), ...children);
    fill(form,
        section("Behaviour", systemField(),
            switchField("thinking", "Think before answering",
                "Slower, often better. The thoughts are folded away above the answer."),
            switchField("tools", "Let the model use a clock and a calculator",
                "Two functions that run in this page; calls are shown in the answer.")),
        section("Sampling", ...sampling.map(([name, rule]) => numberField(name, rule)),
            resetField()),
        section("Engine", ...context.map(([name, rule]) => numberField(name, rule)),
            choiceField("imageTokens", "Pictures", [["70", "At a glance"], ["140", "Quickly"],
                ["", "As usual"], ["560", "Closely"], ["1120", "Very closely"]],
            "Closer sees smaller things, takes longer and more of the context.",
            (value) => Number(value) || null),
            choiceField("device", "Device", [["auto", "Automatic"], ["gpu", "GPU"],
                ["cpu", "CPU"]], "Automatic: the GPU where there is a real one, or else the CPU.")),
        section("Appearance", choiceField("theme", "Colours", [["auto", "As the system"],
            ["light", "Light"], ["dark", "Dark"]], "")),
        section("Conversations", conversationsField()),
        el("p", {class: "help"}, `carat, version ${version}. Open source, Apache-2.0. ` +
            "Nothing that you write leaves this device."));
}

/** The engine's settings as text, to see whether they changed. */
function engineValues() {
    return JSON.stringify(needsReload.map((name) => /** @type {any} */ (settings.values)[name]));
}

export function openSettings() {
    before = engineValues();
    show();
    openDialog(dialog);
}

export function startSettings() {
    prepareDialog(dialog);
    form.addEventListener("submit", (/** @type {Event} */ e) => e.preventDefault());
    dialog.addEventListener("close", () => {
        if (engineValues() !== before) model.reload();
    });
    settings.addEventListener("change", () => {
        const {theme} = settings.values;
        if (theme === "auto") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = theme;
    });
}
