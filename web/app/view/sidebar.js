// sidebar: the list of conversations, on a phone a drawer.
//
// Owns: the list with search, renaming and deleting, and whether the drawer is open.
// @ts-check

import {chat} from "../chat.js";
import {announce, byId, el, fill, iconButton} from "../dom.js";
import {age} from "../format.js";
import {matches} from "../tree.js";
import {confirmDialog} from "./dialog.js";

const sidebar = byId("sidebar");
const list = byId("conversations");
const search = byId("search");
const main = byId("main");
const curtain = byId("curtain");
const narrow = matchMedia("(max-width: 760px)");

/** @typedef {import("../tree.js").Conversation} Conversation */

/** @param {boolean} open */
export function setDrawer(open) {
    const covers = open && narrow.matches;
    sidebar.classList.toggle("open", covers);
    sidebar.inert = narrow.matches && !open;
    main.inert = covers;
    curtain.hidden = !covers;
    byId("menu").setAttribute("aria-expanded", String(covers));
    if (covers) byId("new-chat").focus();
    else if (narrow.matches && document.activeElement === document.body) byId("menu").focus();
}

/** @param {Conversation} conversation @param {HTMLElement} row */
function rename(conversation, row) {
    const input = el("input", {class: "input", value: conversation.title,
        "aria-label": "Name of the conversation"});
    let over = false;
    const end = (/** @type {boolean} */ keep) => {
        if (over) return;
        over = true;
        if (keep) chat.rename(conversation, input.value);
        showList();
        byId(`c-${conversation.id}`)?.focus();
    };
    input.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
        if (e.key === "Enter") end(true);
        else if (e.key === "Escape") {
            e.stopPropagation();
            end(false);
        }
    });
    input.addEventListener("blur", () => end(true));
    fill(row, input);
    input.focus();
    input.select();
}

/** @param {Conversation} conversation */
async function remove(conversation) {
    const sure = await confirmDialog(`Delete "${conversation.title}"?`,
        "The conversation is removed from this device.", "Delete");
    if (!sure) return;
    await chat.remove(conversation);
    announce("Conversation deleted");
    byId("new-chat").focus();
}

/** @param {Conversation} conversation */
function rowOf(conversation) {
    const here = conversation.id === chat.current.id;
    const edit = iconButton("edit", `Rename ${conversation.title}`,
        () => rename(conversation, row));
    const trash = iconButton("trash", `Delete ${conversation.title}`, () => remove(conversation));
    edit.id = `r-${conversation.id}`;
    trash.id = `d-${conversation.id}`;
    const row = el("li", {class: here ? "row-item here" : "row-item"},
        el("button", {type: "button", class: "conversation", id: `c-${conversation.id}`,
            "aria-current": here ? "true" : null, title: conversation.title, on: {click: () => {
                chat.select(conversation.id);
                setDrawer(false);
            }}}, conversation.title || "Untitled"), edit, trash);
    return row;
}

function showList() {
    const focused = list.contains(document.activeElement) ? document.activeElement?.id : "";
    const found = chat.list.filter((c) => matches(c, search.value));
    const now = Date.now();
    const groups = /** @type {Map<string, Conversation[]>} */ (new Map());
    for (const c of found) {
        const title = age(c.updated, now);
        groups.set(title, [...(groups.get(title) ?? []), c]);
    }
    fill(list, [...groups].map(([title, conversations]) => el("section", {},
        el("h2", {}, title), el("ul", {}, conversations.map(rowOf)))));
    if (focused) byId(focused)?.focus();
    if (!found.length) fill(list, el("p", {class: "quiet"}, search.value
        ? "No conversation holds these words." : "Your conversations will be listed here."));
}

/** @param {() => void} startNew */
export function startSidebar(startNew) {
    byId("new-chat").addEventListener("click", startNew);
    byId("menu").addEventListener("click", () => setDrawer(true));
    curtain.addEventListener("click", () => setDrawer(false));
    search.addEventListener("input", showList);
    narrow.addEventListener("change", () => setDrawer(false));
    sidebar.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
        if (e.key !== "Escape" || !sidebar.classList.contains("open")) return;
        e.stopPropagation();
        setDrawer(false);
        byId("menu").focus();
    });
    chat.addEventListener("list", () => {
        if (!list.querySelector("input")) showList(); // not while one is being renamed
    });
    setDrawer(false);
    showList();
}
