// tabs: the two things that the page shows: the conversation, or fine-tuning.
//
// Owns: which of them is seen.
// @ts-check

import {byId} from "../dom.js";

const tabs = {chat: byId("to-chat"), tune: byId("to-tune")};
const chatParts = [byId("scroller"), document.querySelector(".below")];
const tune = byId("tune");

/** @param {"chat" | "tune"} which */
export function showTab(which) {
    tune.hidden = which !== "tune";
    for (const part of chatParts) part.hidden = which !== "chat";
    for (const [name, tab] of Object.entries(tabs))
        if (name === which) tab.setAttribute("aria-current", "page");
        else tab.removeAttribute("aria-current");
}

export function startTabs() {
    tabs.chat.addEventListener("click", () => showTab("chat"));
    tabs.tune.addEventListener("click", () => showTab("tune"));
    byId("conversations").addEventListener("click", (/** @type {Event} */ e) => {
        if (/** @type {Element} */ (e.target).closest(".conversation")) showTab("chat");
    });
}
