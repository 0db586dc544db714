// models: the dialog in which a model is chosen, fetched, and deleted.
//
// Owns: the dialog's elements. What is stored is the package's (Carat.models), what is on its way
// is downloads.js's, what is loaded is model.js's.
// @ts-check

import {Carat} from "../../carat/carat.js";
import {announce, arrange, byId, el, fill, icon, iconButton} from "../dom.js";
import {downloads} from "../downloads.js";
import {bytes, parameters, percent, progress} from "../format.js";
import {isModel} from "../media.js";
import {deviceName, explain, model, sentence} from "../model.js";
import {confirmDialog, openDialog, prepareDialog} from "./dialog.js";
import {notice} from "./notices.js";

const dialog = byId("models");
const files = byId("model-file");
const address = byId("model-url");

/** @typedef {import("../model.js").Choice} Choice */

/** @param {Choice} choice */
function use(choice) {
    dialog.close();
    model.use(choice);
}

/** @param {Choice} choice */
function inUse({kind, name}) {
    return model.choice.kind === kind && model.choice.name === name && model.state !== "failed";
}

/** A line of a list. @param {string} name @param {string} about @param {...any} buttons */
function row(name, about, ...buttons) {
    return el("li", {class: "model"},
        el("div", {class: "model-text"}, el("strong", {}, name), el("span", {}, about)),
        el("div", {class: "row"}, buttons));
}

/** @param {Choice} choice @param {string} label */
function useButton(choice, label) {
    if (inUse(choice)) return el("span", {class: "in-use"}, icon("check"), "In use");
    return el("button", {type: "button", class: "button", "aria-label": `Use ${label}`,
        on: {click: () => use(choice)}}, "Use");
}

/* ---- the one that is loaded ---- */

async function showCurrent() {
    const {state, carat, name, progress: p, error} = model;
    const about = byId("model-current");
    if (state === "failed") return fill(about, el("p", {class: "problem"}, error));
    if (state === "loading" || !carat) {
        const bar = el("progress", {max: p?.total || 1, "aria-label": `Loading ${name}`});
        if (p?.total) bar.value = p.done;
        return fill(about, el("p", {}, `${name} is being loaded ` +
            (p ? percent(p.done, p.total) : "")), bar,
            model.choice.kind !== "nano" && el("button", {type: "button", class: "button",
                on: {click: () => model.use({kind: "nano"})}}, "Cancel"));
    }
    const {model: info, device} = carat;
    const facts = [info.quantisation, parameters(info.parameters), bytes(info.fileBytes),
        `context ${info.contextLength} of ${info.maxContextLength} tokens`];
    const memory = el("p", {class: "quiet"});
    fill(about, el("p", {}, el("strong", {}, name), ` runs on ${deviceName(device)}`),
        el("p", {class: "quiet"}, facts.filter(Boolean).join(" · ")), memory);
    const used = await carat.memory().catch(() => null);
    if (used) fill(memory, `Memory: ${bytes(used.heapBytes)} of this page` +
        (used.gpuPeakBytes ? `, ${bytes(used.gpuPeakBytes)} on the GPU` : ""));
}

/* ---- those on this device ---- */

/** @param {import("../../carat/carat.js").StoredModel} stored */
async function remove(stored) {
    const sure = await confirmDialog(`Delete ${stored.name}?`,
        `${bytes(stored.bytes)} become free. It can be downloaded again.`, "Delete");
    if (!sure) return;
    try {
        downloads.forget(stored.name);
        if (inUse({kind: "opfs", name: stored.name})) await model.use({kind: "nano"});
        await Carat.models.delete(stored.name);
        announce(`${stored.name} deleted`);
    } catch (error) {
        notice(sentence(error), {kind: "error"});
    }
    showStored();
}

/** @param {import("../../carat/carat.js").StoredModel} stored */
function storedRow(stored) {
    const {name, complete, bytes: have, size, url} = stored;
    const about = complete ? bytes(have)
        : `${progress({done: have, total: size ?? 0, rate: 0})}, not complete`;
    const resume = !complete && url && el("button", {type: "button", class: "button",
        "aria-label": `Resume ${name}`, on: {click: () => fetchModel(url, name)}}, "Resume");
    return row(name, about, complete ? useButton({kind: "opfs", name}, name) : resume,
        iconButton("trash", `Delete ${name}`, () => remove(stored)));
}

/** @param {import("../downloads.js").Download} d */
function downloadRow(d) {
    const button = d.state === "running"
        ? iconButton("pause", `Pause ${d.name}`, () => downloads.pause(d.name))
        : el("button", {type: "button", class: "button", "aria-label": `Try ${d.name} again`,
            on: {click: () => fetchModel(d.url, d.name)}}, "Try again");
    const line = row(d.name, "", button);
    if (d.state === "running")
        line.append(el("progress", {"aria-label": `Download of ${d.name}`}));
    return line;
}

/** @param {Element} line of downloadRow() @param {import("../downloads.js").Download} d */
function updateDownload(line, d) {
    const about = /** @type {Element} */ (line.querySelector(".model-text span"));
    const bar = line.querySelector("progress");
    if (bar) {
        bar.max = d.total || 1;
        bar.value = d.done;
        about.textContent = d.phase === "verify" ? "checking the file" : progress(d);
    } else about.textContent = d.error;
}

/** @type {Map<string, Element>} the rows that are shown, by what they depend on */
let rows = new Map();

async function showStored() {
    const stored = await Carat.models.list().catch(() => []);
    const next = /** @type {typeof rows} */ (new Map());
    const keep = (/** @type {any} */ about, /** @type {() => Element} */ make) => {
        const key = JSON.stringify(about);
        const line = rows.get(key) ?? make();
        next.set(key, line);
        return line;
    };
    /** @type {Choice} */
    const nano = {kind: "nano"};
    keep([nano, inUse(nano)], () => row("nano",
        "18 MB, part of this app: a tiny demonstration model", useButton(nano, "nano")));
    for (const d of downloads.all.values())
        updateDownload(keep([d.name, d.url, d.state], () => downloadRow(d)), d);
    for (const s of stored) {
        if (downloads.all.has(s.name)) continue;
        keep([s, inUse({kind: "opfs", name: s.name})], () => storedRow(s));
    }
    const {choice} = model;
    if (choice.kind === "file") keep([choice, model.state], () => row(model.name,
        "a file, read in place", useButton(choice, model.name)));
    rows = next;
    arrange(byId("model-stored"), [...rows.values()]);
    await showStorage();
}

async function showStorage() {
    const space = await Carat.models.storage().catch(() => null);
    const about = byId("model-storage");
    if (!space) return fill(about, "This browser has no storage for models.");
    const keep = !space.persistent && el("button", {type: "button", class: "link",
        on: {click: keepModels}}, "Ask the browser to keep the models");
    fill(about, `${bytes(space.used)} used, ${bytes(space.free)} free. `,
        space.persistent ? "The browser keeps the models." : keep);
}

async function keepModels() {
    const kept = await Carat.models.persist().catch(() => false);
    announce(kept ? "The browser keeps the models." : "The browser did not promise.");
    await showStorage();
    if (!kept) byId("model-storage").append(" It did not promise: installing this app helps.");
}

/* ---- those of Ollama, through `carat serve` ---- */

async function showOllama() {
    const section = byId("ollama");
    const found = await Carat.models.ollama().catch(() => []);
    section.hidden = found.length === 0;
    fill(byId("model-ollama"), found.map(({name, size}) =>
        row(name, bytes(size), useButton({kind: "ollama", name}, name))));
}

/* ---- adding one ---- */

/** @param {string} url @param {string} [name] */
async function fetchModel(url, name) {
    const stored = name ?? downloads.nameFor(url);
    const whole = await downloads.start(url, stored);
    if (dialog.open) await showStored();
    if (!whole) return;
    notice(`${stored} is stored on this device.`, {action: "Use it", stays: true,
        act: () => use({kind: "opfs", name: stored})});
}

/** @param {string} text @returns {string} what Hugging Face calls a blob is a page about a file */
function addressOf(text) {
    const url = new URL(text.trim());
    if (url.hostname === "huggingface.co")
        url.pathname = url.pathname.replace("/blob/", "/resolve/");
    return url.href;
}

/** Reads the header of a remote file, and says what it takes before it is downloaded. */
async function checkAddress() {
    const verdict = byId("model-verdict");
    let url;
    try {
        url = addressOf(address.value);
    } catch {
        return fill(verdict, el("p", {class: "problem"}, "This is not an address: it should " +
            "begin with https:// and end with .gguf."));
    }
    fill(verdict, el("p", {class: "quiet"}, "Reading the file's header\u2026"));
    try {
        const e = await Carat.estimate(url);
        fill(verdict,
            el("p", {}, `${e.name}: ${bytes(e.downloadBytes)} to download, ` +
                `${bytes(e.gpuBytes || e.hostBytes)} of memory.`),
            !e.fits && el("p", {class: "problem"}, sentence(e.reason)),
            el("button", {type: "button", class: "button primary", on: {click: () => {
                fill(verdict);
                address.value = "";
                fetchModel(url);
            }}}, e.fits ? "Download" : "Download anyway"));
        verdict.scrollIntoView({block: "nearest"});
    } catch (error) {
        fill(verdict, el("p", {class: "problem"}, explain(error)));
    }
}

/** A model, and if it has its encoders in a second file, that one, too. @param {File[]} given */
function useFiles(given) {
    const projector = given.length > 1 && given.find((f) => /mmproj|projector/i.test(f.name));
    const file = given.find((f) => f !== projector);
    if (file) use({kind: "file", name: file.name, file, projector: projector || undefined});
}

/** Other files than models are attachments.js's. */
function acceptDrops() {
    addEventListener("drop", (e) => {
        const models = [...(e.dataTransfer?.files ?? [])].filter((f) => isModel(f));
        if (models.length) useFiles(models);
    });
}

export function openModels() {
    openDialog(dialog);
    showCurrent();
    showStored();
    showOllama();
}

export function startModels() {
    prepareDialog(dialog);
    byId("pick-file").addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
        useFiles([...(files.files ?? [])]);
        files.value = "";
    });
    byId("url-form").addEventListener("submit", (/** @type {Event} */ e) => {
        e.preventDefault();
        checkAddress();
    });
    acceptDrops();
    model.addEventListener("change", () => {
        if (dialog.open) showCurrent();
    });
    let pending = false; // progress comes many times a second
    downloads.addEventListener("change", () => {
        const running = downloads.running();
        byId("models-progress").textContent = running ? percent(running.done, running.total) : "";
        if (!dialog.open || pending) return;
        pending = true;
        setTimeout(() => {
            pending = false;
            showStored();
        }, 300);
    });
}
