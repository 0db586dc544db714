// notices: what a person should read now, in one sentence each, above the conversation.
//
// Owns: the elements of #notices. Errors stay until they are closed, the rest goes by itself.
// @ts-check

import {byId, el, iconButton} from "../dom.js";

const area = byId("notices");
const most = 3;

/**
 * @param {string} text
 * @param {{kind?: "info" | "error", action?: string, act?: () => void, stays?: boolean}} options
 * @returns {() => void} closes it
 */
export function notice(text, {kind = "info", action, act, stays = kind === "error"} = {}) {
    for (const same of [...area.children]) if (same.dataset.text === text) same.remove();
    const close = () => box.remove();
    const box = el("div", {class: `notice ${kind}`, role: kind === "error" ? "alert" : "status"},
        el("p", {}, text),
        action && el("button", {type: "button", class: "button small", on: {click: () => {
            close();
            act?.();
        }}}, action),
        iconButton("close", "Close this notice", close));
    box.dataset.text = text;
    area.append(box);
    while (area.children.length > most) area.firstChild.remove();
    if (!stays) setTimeout(close, 12000);
    return close;
}
