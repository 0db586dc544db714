// thread: the conversation on screen, from its first question to its last answer.
//
// Owns: the order of the messages, drawing at most once a frame, scrolling along with an answer,
// the page that a new conversation starts with. chat.js says what changed.
// @ts-check

import {chat} from "../chat.js";
import {announce, arrange, byId, el, fill} from "../dom.js";
import {model} from "../model.js";
import {path} from "../tree.js";
import {Answer, Question} from "./message.js";

const thread = byId("thread");
const scroller = byId("scroller");
const empty = byId("empty");
const toEnd = byId("to-end");

/** @type {Map<string, Question | Answer>} by turn */
const views = new Map();
const changed = new Set();
let frame = 0;
let following = true;

const forNano = ["What is 23 + 45?", "What is the capital of Portugal?",
    "Tell me a story about a fox and an owl."];
const forOthers = ["Explain how rainbows form, for a ten-year-old",
    "Write a Python function that finds prime numbers", "Plan three simple dinners for this week"];

/** @param {(question: string) => void} ask @param {() => void} openModels */
function showEmpty(ask, openModels) {
    const nano = model.choice.kind === "nano";
    const examples = nano ? forNano : forOthers;
    fill(byId("examples"), examples.map((text) => el("li", {},
        el("button", {type: "button", class: "example", on: {click: () => ask(text)}}, text))));
    const more = el("button", {type: "button", class: "link", on: {click: openModels}},
        "Get a larger model");
    fill(byId("about"), nano
        ? ["This is nano, a tiny demonstration model: sums, capitals, colours, short stories, " +
            "and not much else. ", more, " for real work."]
        : [`You are talking to ${model.name}. It runs on this device, and what you write ` +
            "stays here."]);
}

/** @param {import("../tree.js").Turn} turn */
function viewOf(turn) {
    let view = views.get(turn.id);
    if (view?.turn !== turn) { // a new one, or another tab wrote it anew
        view = turn.role === "user" ? new Question(turn) : new Answer(turn);
        views.set(turn.id, view);
    }
    return view;
}

function showPath() {
    const turns = path(chat.current).filter((t) => t.role !== "tool");
    const shown = new Set(turns.map((t) => t.id));
    for (const id of views.keys()) if (!shown.has(id)) views.delete(id);
    const shownViews = turns.map(viewOf);
    for (const view of shownViews) view.update();
    arrange(thread, shownViews.map((view) => view.element));
    empty.hidden = turns.length > 0;
    thread.hidden = turns.length === 0;
    document.title = chat.current.title ? `${chat.current.title} - carat` : "carat";
}

function atEnd() {
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
}

function scrollToEnd() {
    following = true;
    scroller.scrollTop = scroller.scrollHeight;
    toEnd.hidden = true;
}

function draw() {
    frame = 0;
    for (const id of changed) views.get(id)?.update();
    changed.clear();
    if (following) scroller.scrollTop = scroller.scrollHeight;
    toEnd.hidden = following || atEnd();
}

/** @param {string} id of a turn that grew */
function drawSoon(id) {
    changed.add(id);
    // A hidden tab gets no frames, and nobody looks.
    frame ||= requestAnimationFrame(draw);
}

/** @param {import("../tree.js").Turn} turn */
function announceAnswer(turn) {
    if (!views.has(turn.id)) return;
    if (turn.error) announce(turn.error);
    else if (turn.finish === "aborted") announce("Stopped");
    else announce(turn.content.length > 600 ? "The answer is complete." : turn.content);
}

/** Opens the editor of the last question. */
export function editLast() {
    const last = path(chat.current).findLast((t) => t.role === "user");
    const view = last && views.get(last.id);
    if (view instanceof Question) view.edit();
}

/** @param {(question: string) => void} ask @param {() => void} openModels */
export function startThread(ask, openModels) {
    let conversation = "";
    chat.addEventListener("show", () => {
        showPath();
        if (conversation !== chat.current.id || chat.busy) scrollToEnd();
        conversation = chat.current.id;
    });
    chat.addEventListener("turn", (/** @type {any} */ e) => drawSoon(e.detail.id));
    chat.addEventListener("done", (/** @type {any} */ e) => {
        showPath(); // buttons that were off while it was busy
        drawSoon(e.detail.id);
        announceAnswer(e.detail);
    });
    model.addEventListener("change", () => {
        showEmpty(ask, openModels);
        for (const id of views.keys()) if (chat.busy) drawSoon(id);
    });
    scroller.addEventListener("scroll", () => {
        following = atEnd();
        toEnd.hidden = following;
    }, {passive: true});
    toEnd.addEventListener("click", scrollToEnd);
    showEmpty(ask, openModels);
    showPath();
}
