// message: one turn of a conversation on screen.
//
// Owns: the elements of a question (with its editor) and of an answer (thinking, text, calls of
// tools, what it took). view/thread.js puts them in order; the data are tree.js's.
// @ts-check

import {chat} from "../chat.js";
import {confirmOn, copyText, el, fill, icon, iconButton} from "../dom.js";
import {duration, percent, progress, speed} from "../format.js";
import {model} from "../model.js";
import {find, question, siblings} from "../tree.js";
import {Markdown} from "./markdown.js";
import {mediumElement} from "./medium.js";

/** @typedef {import("../tree.js").Turn} Turn */

/** "2 / 3" with arrows, where a turn has others in its place. @param {Turn} turn */
function branches(turn) {
    const all = siblings(chat.current, turn);
    if (all.length < 2) return null;
    const at = all.indexOf(turn);
    const step = (/** @type {number} */ by) => {
        const other = all[at + by];
        if (other) chat.showBranch(other);
    };
    const left = iconButton("left", "Previous version", () => step(-1));
    const right = iconButton("right", "Next version", () => step(1));
    left.disabled = at === 0 || chat.busy;
    right.disabled = at === all.length - 1 || chat.busy;
    return el("span", {class: "branches", role: "group", "aria-label": "Versions"}, left,
        el("span", {text: `${at + 1} / ${all.length}`}), right);
}

/** What the buttons below a turn depend on: they are drawn anew only when it changes, so that one
 * which has the focus keeps it. @param {Turn} turn */
function buttonsKey(turn) {
    const all = siblings(chat.current, turn);
    return [chat.busy, all.indexOf(turn), all.length, turn.finish].join();
}

/** @param {() => string} text */
function copyAction(text) {
    const button = iconButton("copy", "Copy", async () => {
        if (await copyText(text())) confirmOn(button, "Copied");
    });
    return button;
}

export class Question {
    #drawn = "";
    #media = el("div", {class: "media"});
    #body = el("div", {class: "bubble", dir: "auto"});
    #actions = el("div", {class: "actions"});
    element = el("article", {class: "question", "aria-label": "You"}, this.#media, this.#body,
        this.#actions);

    /** @param {Turn} turn */
    constructor(turn) {
        this.turn = turn;
        fill(this.#media, (turn.media ?? []).map(mediumElement));
        this.#media.hidden = !turn.media?.length;
    }

    update() {
        const key = buttonsKey(this.turn);
        if (this.element.classList.contains("editing") || this.#drawn === key) return;
        this.#drawn = key;
        fill(this.#body, this.turn.content);
        this.#body.hidden = !this.turn.content;
        const edit = iconButton("edit", "Edit", () => this.edit());
        edit.disabled = chat.busy;
        fill(this.#actions, edit, copyAction(() => this.turn.content), branches(this.turn));
    }

    edit() {
        if (chat.busy) return;
        const area = el("textarea", {class: "editor", rows: 3, "aria-label": "Edit the message"});
        area.value = this.turn.content;
        const close = () => {
            this.element.classList.remove("editing");
            this.#drawn = "";
            this.update();
        };
        const send = () => {
            if (!area.value.trim() && !this.turn.media?.length) return;
            close();
            chat.edit(this.turn, area.value);
        };
        const cancel = () => {
            close();
            this.#actions.querySelector("button")?.focus();
        };
        area.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
            if (e.isComposing) return;
            if (e.key === "Enter" && !e.shiftKey) {
                e.preventDefault();
                send();
            } else if (e.key === "Escape") {
                e.stopPropagation();
                cancel();
            }
        });
        this.element.classList.add("editing");
        this.#body.hidden = false;
        fill(this.#body, area, el("div", {class: "row end"},
            el("button", {type: "button", class: "button", on: {click: cancel}}, "Cancel"),
            el("button", {type: "button", class: "button primary", on: {click: send}}, "Send")));
        fill(this.#actions);
        area.focus();
    }
}

export class Answer {
    #thought = new Markdown();
    #summary = el("summary");
    #thinking = el("details", {class: "thinking", hidden: true}, this.#summary,
        this.#thought.element);
    #text = new Markdown();
    #calls = el("div", {class: "calls"});
    #waiting = el("p", {class: "waiting"});
    #problem = el("p", {class: "problem"});
    #actions = el("div", {class: "actions"});
    element = el("article", {class: "answer"}, this.#thinking, this.#text.element,
        this.#calls, this.#waiting, this.#problem, this.#actions);
    #drawnCalls = "";
    #drawnActions = "";

    /** @param {Turn} turn */
    constructor(turn) {
        this.turn = turn;
        this.element.setAttribute("aria-label", turn.model ?? "Answer");
    }

    update() {
        const {turn} = this;
        const live = chat.isLive(turn);
        this.#showThinking(live);
        this.#text.update(turn.content, live);
        this.#showCalls();
        this.#showWaiting(live);
        fill(this.#problem, turn.error ?? this.#unfinished(live), turn.notice && ` ${turn.notice}`);
        this.element.classList.toggle("failed", Boolean(turn.error));
        this.element.classList.toggle("live", live);
        if (live) this.element.setAttribute("aria-busy", "true");
        else this.element.removeAttribute("aria-busy");
        this.#showActions(live);
    }

    /** @param {boolean} live */
    #unfinished(live) {
        const {finish} = this.turn;
        if (live) return "";
        if (finish === "aborted") return "Stopped.";
        if (finish === "length") return "The answer reached its longest length.";
        return finish ? "" : "This answer was interrupted.";
    }

    /** @param {boolean} live */
    #showThinking(live) {
        const {thinking, thinkSeconds} = this.turn;
        this.#thinking.hidden = !thinking;
        if (!thinking) return;
        const over = thinkSeconds !== undefined || !live;
        const took = thinkSeconds === undefined ? "" : ` for ${duration(thinkSeconds)}`;
        const title = over ? `Thought${took}` : "Thinking\u2026";
        if (this.#summary.textContent !== title) fill(this.#summary, icon("think"), title);
        this.#thought.update(thinking, !over);
    }

    #showCalls() {
        const calls = this.turn.toolCalls ?? [];
        this.#calls.hidden = calls.length === 0;
        const results = chat.current.turns.filter((t) => t.role === "tool");
        const key = JSON.stringify([calls, results.length]);
        if (key === this.#drawnCalls) return;
        this.#drawnCalls = key;
        // The results of these calls hang below this turn, one under the other.
        const found = /** @type {Turn[]} */ ([]);
        for (let at = this.turn.id; ;) {
            const next = results.find((t) => t.parent === at);
            if (!next) break;
            found.push(next);
            at = next.id;
        }
        fill(this.#calls, calls.map((call, i) => el("details", {class: "call"},
            el("summary", {}, icon("tool"), `Used ${call.name}`),
            el("pre", {tabindex: "0", "aria-label": "Call and result"},
                `${call.name}(${JSON.stringify(call.arguments)})`,
                found[i] && `\n= ${found[i].content}`))));
    }

    /** @param {boolean} live */
    #showWaiting(live) {
        const {turn} = this;
        const empty = live && !turn.content && !turn.thinking && !turn.toolCalls;
        this.#waiting.hidden = !empty;
        if (!empty) return;
        const {state, progress: p} = model;
        let text = "";
        if (state === "loading" && p?.phase === "download") text = `Getting ${model.name}: ` +
            progress(p);
        else if (state === "loading")
            text = `Loading ${model.name} ${p ? percent(p.done, p.total) : ""}`;
        else text = this.#reading();
        fill(this.#waiting, el("span", {class: "dots", "aria-hidden": "true"}, el("i"), el("i"),
            el("i")), text);
    }

    /** How far pictures and sounds, and a long prompt, are read. */
    #reading() {
        const p = chat.progressOf(this.turn);
        if (!p || p.done >= p.total) return "";
        const asked = question(chat.current, this.turn)?.media ?? [];
        const heard = asked.length && asked.every((m) => m.kind === "audio");
        const does = {load: "Loading", encode: heard ? "Listening" : "Looking", prompt: "Reading"};
        const word = does[/** @type {keyof does} */ (p.phase)];
        return word ? `${word}: ${percent(p.done, p.total)}` : "";
    }

    /** @param {boolean} live */
    #showActions(live) {
        const {turn} = this;
        const called = turn.finish === "tool_calls" && turn.toolCalls?.length;
        this.#actions.hidden = live || Boolean(called);
        const key = `${live} ${buttonsKey(this.#first())}`;
        if (live || called || key === this.#drawnActions) return;
        this.#drawnActions = key;
        const retry = iconButton("retry", "Answer again", () => chat.retry(turn));
        retry.disabled = chat.busy;
        fill(this.#actions, turn.content && copyAction(() => turn.content), retry,
            branches(this.#first()), this.#figures());
    }

    /** Where tools were used, the versions hang on the answer's first part. */
    #first() {
        let first = this.turn;
        for (;;) {
            const above = find(chat.current, first.parent);
            if (!above || above.role === "user") return first;
            first = above;
        }
    }

    #figures() {
        const {model: name, device, speed: rate, firstToken, tokens} = this.turn;
        const parts = [name];
        if (rate) parts.push(speed(rate));
        if (firstToken !== undefined) parts.push(`first token ${duration(firstToken)}`);
        if (device) parts.push(device);
        const title = tokens ? `${tokens} tokens` : null;
        return el("span", {class: "figures", title}, parts.filter(Boolean).join(" · "));
    }
}
