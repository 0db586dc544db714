// composer: the field in which one writes.
//
// Owns: sending and stopping by key and button, the growing of the field, the switch for thinking.
// What goes along is attachments.js's.
// @ts-check

import {chat} from "../chat.js";
import {byId, fill, icon} from "../dom.js";
import {model} from "../model.js";
import {settings} from "../settings.js";
import {count, pending, startAttachments, takeAttached} from "./attachments.js";
import {editLast} from "./thread.js";

const form = byId("composer");
const field = byId("ask");
const send = byId("send");
const think = byId("think");

function grow() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 240)}px`;
}

function show() {
    const {busy} = chat;
    send.dataset.does = busy ? "stop" : "send";
    send.setAttribute("aria-label", busy ? "Stop" : "Send");
    send.title = busy ? "Stop (Esc)" : "Send (Enter)";
    send.disabled = !busy && (pending() || (!field.value.trim() && !count()));
    fill(send, icon(busy ? "stop" : "send"));
    field.placeholder = `Message ${model.name}`;
    think.setAttribute("aria-pressed", String(settings.values.thinking));
}

/** @param {string} text @param {import("../tree.js").Medium[]} [attached] */
export function ask(text, attached) {
    chat.send(text, attached);
    show();
    focusComposer();
}

function submit() {
    if (send.disabled || chat.busy) return;
    const text = field.value;
    field.value = "";
    grow();
    ask(text, takeAttached());
}

/** @param {KeyboardEvent} e */
function key(e) {
    if (e.isComposing) return;
    if (e.key === "Enter" && !e.shiftKey) {
        e.preventDefault();
        submit();
    } else if (e.key === "ArrowUp" && !field.value && !chat.busy) {
        e.preventDefault();
        editLast();
    }
}

/** Where there is a real keyboard; elsewhere the focus would cover half of the screen with one. */
export function focusComposer() {
    if (matchMedia("(hover: hover)").matches) field.focus({preventScroll: true});
}

export function startComposer() {
    field.addEventListener("keydown", key);
    field.addEventListener("input", () => {
        grow();
        show();
    });
    form.addEventListener("submit", (/** @type {Event} */ e) => {
        e.preventDefault();
        if (chat.busy) chat.stop();
        else submit();
        focusComposer();
    });
    think.addEventListener("click", () => settings.set({thinking: !settings.values.thinking}));
    startAttachments(show);
    for (const type of ["show", "done"]) chat.addEventListener(type, show);
    model.addEventListener("change", show);
    settings.addEventListener("change", show);
    show();
}
