// dialog: the modal dialogs of the page, on the browser's own <dialog> (which keeps the focus
// inside, closes on Escape and gives the focus back).
//
// Owns: opening, closing by button and by a click beside it, the question "are you sure".
// @ts-check

import {byId, el, fill} from "../dom.js";

/** @param {HTMLDialogElement} dialog */
export function openDialog(dialog) {
    if (dialog.open) return;
    dialog.showModal();
    dialog.querySelector(".dialog-body")?.scrollTo(0, 0);
}

/** Gives a dialog its two ways out besides Escape. @param {HTMLDialogElement} dialog */
export function prepareDialog(dialog) {
    dialog.querySelector(".dialog-close")?.addEventListener("click", () => dialog.close());
    dialog.addEventListener("pointerdown", (e) => {
        if (e.target === dialog) dialog.close(); // its body covers all but the backdrop
    });
}

/** @param {string} title @param {string} text @param {string} yes the button that does it
 * @returns {Promise<boolean>} */
export function confirmDialog(title, text, yes) {
    const dialog = byId("confirm");
    const answer = (/** @type {string} */ value) => () => dialog.close(value);
    dialog.returnValue = "";
    fill(dialog, el("div", {class: "dialog-small"},
        el("h2", {id: "confirm-title"}, title), el("p", {}, text),
        el("div", {class: "row end"},
            el("button", {type: "button", class: "button", on: {click: answer("")}}, "Cancel"),
            el("button", {type: "button", class: "button danger", on: {click: answer("yes")}},
                yes))));
    dialog.showModal();
    return new Promise((done) => dialog.addEventListener("close",
        () => done(dialog.returnValue === "yes"), {once: true}));
}
