// attachments: what is to go with the next question, above the field to write in.
//
// Owns: attaching by button, drop, paste, camera and microphone; the list of what is attached, with
// a button to remove each. What the loaded model has no encoder for is not offered. composer.js
// takes the list when it sends.
// @ts-check

import {announce, byId, el, fill, icon, iconButton} from "../dom.js";
import {isModel, kindOf, readMedium} from "../media.js";
import {model, sentence} from "../model.js";
import {mediumElement} from "./medium.js";
import {hasCamera, takePicture} from "./camera.js";
import {notice} from "./notices.js";
import {hasMicrophone, isRecording, record} from "./recorder.js";

/** @typedef {import("../tree.js").Medium} Medium */

const list = byId("attached");
const buttons = byId("attach-buttons");
const hint = byId("drop-hint");
const main = byId("main");
const field = byId("ask");
const most = 10;

/** @type {{file: File, medium: Medium | null}[]} medium null: it is being read */
let attached = [];
let changed = () => {};
let drawn = "";

const input = el("input", {type: "file", id: "attach-file", class: "sr-only", tabindex: "-1",
    multiple: true, "aria-label": "Files to attach"});

/** What the model that is loaded, or was last, understands. */
function senses() {
    const {vision = false, audio = false} = model.carat?.model ?? {};
    return {vision, audio};
}

/* ---- what is attached ---- */

export const pending = () => attached.some((a) => !a.medium) || isRecording();

/** @returns {number} */
export const count = () => attached.length;

/** Gives what is attached to a question, and begins anew. @returns {Medium[]} */
export function takeAttached() {
    const media = attached.map((a) => /** @type {Medium} */ (a.medium));
    attached = [];
    show();
    return media;
}

/** @param {typeof attached[number]} one */
function remove(one) {
    const at = attached.indexOf(one);
    attached = attached.filter((a) => a !== one);
    show();
    announce(`${one.file.name} removed`);
    const rest = list.querySelectorAll(".remove");
    (rest[Math.min(at, rest.length - 1)] ?? field).focus();
}

function show() {
    list.hidden = !attached.length;
    fill(list, attached.map((one) => el("li", {},
        one.medium ? mediumElement(one.medium)
            : el("div", {class: "sound quiet"}, `Reading ${one.file.name}\u2026`),
        iconButton("close", `Remove ${one.file.name}`, () => remove(one), "icon-button remove"))));
    changed();
}

/** Why the model cannot be given it, or null. @param {File} file */
function refusal(file) {
    const kind = kindOf(file), {vision, audio} = senses();
    if (!kind) return `${file.name} is no picture, sound, video or GGUF file.`;
    if (!model.carat) return "Wait until the model is loaded.";
    if (kind === "audio" ? audio : vision) return null;
    const what = {image: "see pictures", audio: "hear", video: "see videos"}[kind];
    return `${model.name} cannot ${what}: choose a model that can.`;
}

/** @param {Iterable<File>} files */
export async function attach(files) {
    for (const file of files) {
        const why = attached.length < most ? refusal(file)
            : `At most ${most} things can be attached to one question.`;
        if (why) {
            notice(why, {kind: "error"});
            continue;
        }
        const one = {file, medium: /** @type {Medium | null} */ (null)};
        attached.push(one);
        show();
        try {
            one.medium = await readMedium(file, /** @type {Medium["kind"]} */ (kindOf(file)));
            announce(`${file.name} attached`);
        } catch (error) {
            attached = attached.filter((a) => a !== one);
            notice(sentence(error), {kind: "error"});
        }
        show();
    }
}

/* ---- the ways in ---- */

function showButtons() {
    const {vision, audio} = senses(), key = `${vision} ${audio}`;
    if (!model.carat || key === drawn) return; // while another is loaded they stay
    drawn = key;
    input.accept = [vision && "image/*,video/*", audio && "audio/*"].filter(Boolean).join();
    buttons.hidden = !vision && !audio;
    fill(buttons, iconButton("attach", "Attach files", () => input.click()),
        vision && hasCamera() && iconButton("camera", "Take a picture", fromCamera),
        audio && hasMicrophone() && iconButton("microphone", "Record", fromMicrophone));
}

async function fromCamera() {
    const file = await takePicture();
    if (file) await attach([file]);
    field.focus();
}

async function fromMicrophone() {
    const recording = record();
    changed();
    const file = await recording;
    changed();
    if (file) await attach([file]);
    field.focus();
}

/** @param {DragEvent} e whether it brings files */
const brings = (e) => Boolean(e.dataTransfer?.types.includes("Files"));

/** Models that are dropped are models.js's. */
function listenToDrops() {
    addEventListener("dragover", (e) => {
        if (!brings(e)) return;
        e.preventDefault(); // or else the browser would leave the page for the file
        hint.hidden = false;
    });
    addEventListener("dragleave", (e) => {
        if (!e.relatedTarget || !main.contains(/** @type {Node} */ (e.relatedTarget)))
            hint.hidden = true;
    });
    addEventListener("drop", (e) => {
        hint.hidden = true;
        if (!brings(e)) return;
        e.preventDefault();
        const files = [...(e.dataTransfer?.files ?? [])].filter((f) => !isModel(f));
        attach(files);
        if (files.length) field.focus();
    });
}

/** @param {() => void} onChange */
export function startAttachments(onChange) {
    changed = onChange;
    buttons.after(input);
    fill(hint, icon("attach"), hint.textContent);
    input.addEventListener("change", () => {
        attach([...(input.files ?? [])]);
        input.value = "";
        field.focus();
    });
    field.addEventListener("paste", (/** @type {ClipboardEvent} */ e) => {
        const files = [...(e.clipboardData?.files ?? [])];
        if (!files.length) return;
        e.preventDefault();
        attach(files);
    });
    listenToDrops();
    model.addEventListener("change", showButtons);
    showButtons();
}
