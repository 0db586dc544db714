// adapters: the switches of the kept adapters: chips below the field to write in, and a list where
// they are made.
//
// Owns: these elements. What is on is ../adapters.js's.
// @ts-check

import {adapters} from "../adapters.js";
import {announce, arrange, byId, el, fill, iconButton} from "../dom.js";
import {bytes} from "../format.js";
import {confirmDialog} from "./dialog.js";

const chips = byId("adapters");
const list = byId("tune-kept");

/** @typedef {import("../adapters.js").Kept} Kept */

/** @type {Map<string, HTMLButtonElement>} */
const buttons = new Map();

/** A chip keeps its element, and with it the focus. @param {Kept} one */
function chip({name, on}) {
    const button = buttons.get(name) ?? el("button", {type: "button", class: "chip",
        title: `Adapter ${name}`, on: {click: () => adapters.toggle(name)}}, name);
    buttons.set(name, button);
    button.setAttribute("aria-pressed", String(on));
    return button;
}

/** @param {Kept} one */
async function remove({name, bytes: size}) {
    const sure = await confirmDialog(`Delete ${name}?`,
        `${bytes(size)} become free. What it learned is lost, unless you have its file.`, "Delete");
    if (!sure) return;
    await adapters.remove(name);
    announce(`${name} deleted`);
}

/** @param {Kept} one */
function row(one) {
    const input = el("input", {type: "checkbox", role: "switch", id: `use-${one.name}`,
        "aria-label": `Use ${one.name}`, on: {change: () => adapters.toggle(one.name)}});
    input.checked = one.on;
    return el("li", {class: "model"},
        el("div", {class: "model-text"}, el("strong", {}, one.name),
            el("span", {}, bytes(one.bytes))),
        el("div", {class: "row"}, input,
            iconButton("trash", `Delete ${one.name}`, () => remove(one))));
}

function show() {
    arrange(chips, adapters.list.map(chip));
    list.hidden = !adapters.list.length;
    const focused = list.contains(document.activeElement) ? document.activeElement?.id : "";
    fill(list, el("h3", {}, "Kept for this model"),
        el("ul", {class: "models"}, adapters.list.map(row)));
    if (focused) byId(focused)?.focus();
}

export function startAdapters() {
    adapters.addEventListener("change", show);
    show();
}
