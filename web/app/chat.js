// chat: the conversation on screen and the answers on their way.
//
// Owns: sending, stopping, retrying, editing, and the saving of what comes of it. Says "show" when
// another conversation or branch is on screen, "turn" when a turn grew, "list" when the list of
// conversations changed. Knows no elements: view/ does.
// @ts-check

import * as history from "./history.js";
import * as media from "./media.js";
import {explain, deviceName, model} from "./model.js";
import {settings} from "./settings.js";
import {callTool, tools} from "./tools.js";
import * as tree from "./tree.js";

/** @typedef {tree.Conversation} Conversation @typedef {tree.Turn} Turn
 * @typedef {tree.Medium} Medium */

const saveEvery = 1000;
const maxRounds = 5; // of tool calls in one answer

class Chat extends EventTarget {
    /** @type {Conversation} not in the list until it has a turn */
    current = tree.newConversation();
    /** @type {Conversation[]} the newest first */
    list = [];
    /** @type {Map<string, {turn: Turn, stop: AbortController, started: number,
     *     progress?: import("../carat/carat.js").Progress}>} by conversation */
    #active = new Map();
    #saved = 0;
    /** @type {Set<string>} an answer on its way must not bring them back */
    #removed = new Set();

    /** @param {string} type @param {any} [detail] */
    #tell(type, detail) {
        this.dispatchEvent(new CustomEvent(type, {detail}));
    }

    async open() {
        await this.#reload();
        history.watch(() => this.#reload());
    }

    async #reload() {
        const stored = await history.all().catch(() => {
            model.notice("The stored conversations could not be read.", "error");
            return this.list;
        });
        // What is being answered here is newer than what is stored.
        const mine = new Map(this.list.filter((c) => this.#active.has(c.id)).map((c) => [c.id, c]));
        this.list = stored.map((c) => mine.get(c.id) ?? c);
        const other = this.list.find((c) => c.id === this.current.id);
        if (other && JSON.stringify(other) !== JSON.stringify(this.current)) {
            this.current = other; // another tab went on with it
            this.#tell("show");
        } else if (other) this.list[this.list.indexOf(other)] = this.current;
        this.#tell("list");
    }

    /** @param {Conversation} conversation */
    async #save(conversation) {
        this.#saved = performance.now();
        if (this.#removed.has(conversation.id)) return;
        try {
            await history.put(conversation);
        } catch {
            model.notice("This conversation could not be saved: the browser's storage is full. " +
                "Delete some conversations or models.", "error");
        }
    }

    /* ---- which conversation ---- */

    startNew() {
        if (this.current.turns.length) this.current = tree.newConversation();
        this.#tell("show");
        this.#tell("list");
    }

    /** @param {string} id */
    select(id) {
        const found = this.list.find((c) => c.id === id);
        if (!found) return;
        this.current = found;
        this.#tell("show");
        this.#tell("list");
    }

    /** @param {Conversation} conversation @param {string} title */
    async rename(conversation, title) {
        if (!title.trim()) return;
        conversation.title = title.trim().slice(0, 200);
        await this.#save(conversation);
        this.#tell("list");
    }

    /** @param {Conversation} conversation */
    async remove(conversation) {
        this.#active.get(conversation.id)?.stop.abort();
        this.#removed.add(conversation.id);
        this.list = this.list.filter((c) => c.id !== conversation.id);
        await history.remove(conversation.id);
        await media.forget(tree.mediaOf([conversation]));
        if (this.current.id === conversation.id) {
            this.current = tree.newConversation();
            this.#tell("show");
        }
        this.#tell("list");
    }

    /** @param {string} text of an exported file @returns {Promise<number>} how many came */
    async importText(text) {
        const {conversations, media: packed} = tree.importText(text);
        await media.unpackAll(tree.mediaOf(conversations), packed);
        for (const conversation of conversations) await history.put(conversation);
        await this.#reload();
        return conversations.length;
    }

    /** All conversations as the text of a file. */
    async exportText() {
        return tree.exportText(this.list, await media.packAll(tree.mediaOf(this.list)));
    }

    /* ---- turns ---- */

    /** Whether the conversation on screen is being answered. */
    get busy() {
        return this.#active.has(this.current.id);
    }

    /** How far the reading of the question is. @param {Turn} turn */
    progressOf(turn) {
        return [...this.#active.values()].find((a) => a.turn === turn)?.progress ?? null;
    }

    /** @param {Turn} turn whether it is the one being written */
    isLive(turn) {
        return [...this.#active.values()].some((a) => a.turn === turn);
    }

    /** @param {string} text @param {Medium[]} [attached] */
    send(text, attached = []) {
        const conversation = this.current;
        if ((!text.trim() && !attached.length) || this.busy) return;
        if (!conversation.turns.length) {
            conversation.title ||= tree.titleOf(text) || attached[0].name;
            this.list.unshift(conversation);
        }
        this.#ask(conversation, conversation.leaf, text, attached);
    }

    /** Says something else in place of an earlier question, in a branch of its own.
     * @param {Turn} turn @param {string} text */
    edit(turn, text) {
        if ((!text.trim() && !turn.media?.length) || this.busy) return;
        this.#ask(this.current, turn.parent, text, turn.media ?? []);
    }

    /** @param {Conversation} conversation @param {string | null} parent @param {string} text
     * @param {Medium[]} attached */
    #ask(conversation, parent, text, attached) {
        const turn = tree.append(conversation, {parent, role: "user", content: text.trim(),
            ...(attached.length && {media: attached})});
        media.keep(attached).catch(() => model.notice("What you attached could not be stored and " +
            "is gone after a reload: the browser's storage is full.", "error"));
        this.#answer(conversation, turn.id);
    }

    /** Answers a question again, in a branch of its own. @param {Turn} turn */
    retry(turn) {
        const asked = tree.question(this.current, turn);
        if (asked && !this.busy) this.#answer(this.current, asked.id);
    }

    /** @param {Turn} turn one of several in the same place */
    showBranch(turn) {
        if (this.busy) return;
        tree.show(this.current, turn);
        this.#tell("show");
        this.#save(this.current);
    }

    stop() {
        this.#active.get(this.current.id)?.stop.abort();
    }

    /** @param {Conversation} c @param {string} parent the question, or the result of a tool */
    async #answer(c, parent, round = 1) {
        const turn = tree.append(c, {parent, role: "assistant", content: "", model: model.name});
        const stop = new AbortController();
        this.#active.set(c.id, {turn, stop, started: performance.now()});
        this.#tell("show");
        this.#tell("list");
        await this.#save(c);
        try {
            const carat = await model.ready(stop.signal);
            await this.#stream(c, turn, carat, stop.signal);
        } catch (error) {
            this.#fail(turn, error, stop.signal);
            model.replaceBroken(error);
        }
        turn.finish ??= "stop";
        this.#active.delete(c.id);
        if (this.#removed.has(c.id)) return;
        const more = turn.finish === "tool_calls" && turn.toolCalls?.length && round <= maxRounds;
        if (more) return this.#useTools(c, turn, round);
        if (turn.finish === "tool_calls") turn.finish = "stop"; // it called too often
        await this.#save(c);
        this.#tell("turn", turn);
        this.#tell("done", turn);
        this.#tell("list");
    }

    /** @param {Turn} turn @param {any} error @param {AbortSignal} signal */
    #fail(turn, error, signal) {
        const stopped = signal.aborted || ["aborted", "closed"].includes(error?.code);
        turn.finish = stopped ? "aborted" : "error";
        if (!stopped) turn.error = explain(error);
    }

    /** @param {Conversation} c @param {Turn} turn @param {any} carat @param {AbortSignal} signal */
    async #stream(c, turn, carat, signal) {
        const asked = performance.now();
        turn.model = model.name;
        const before = tree.path(c, turn.parent);
        const answer = carat.chat({
            messages: await tree.messages(before, settings.values.system, media.partOf),
            tools: settings.values.tools ? tools : undefined,
            dropOldest: true,
            signal,
            onProgress: (/** @type {any} */ progress) => {
                const active = this.#active.get(c.id);
                if (active?.turn !== turn) return;
                active.progress = progress;
                this.#tell("turn", turn);
            },
            ...settings.answerOptions(),
        });
        for await (const part of answer) {
            this.#take(turn, part, performance.now() - asked);
            this.#tell("turn", turn);
            if (performance.now() - this.#saved > saveEvery) this.#save(c);
        }
        turn.device = deviceName(carat.device);
    }

    /** @param {Turn} turn @param {any} part of an answer @param {number} elapsed in ms */
    #take(turn, part, elapsed) {
        const seconds = elapsed / 1000;
        if (part.type !== "notice" && part.type !== "usage") turn.firstToken ??= seconds;
        if (part.type === "text") {
            if (turn.thinking) turn.thinkSeconds ??= seconds;
            turn.content += part.text;
        } else if (part.type === "thinking") turn.thinking = (turn.thinking ?? "") + part.text;
        else if (part.type === "toolCall") (turn.toolCalls ??= []).push(part.toolCall);
        else if (part.type === "notice") turn.notice = part.text;
        else if (part.type === "usage") {
            turn.finish = part.finishReason;
            turn.tokens = part.usage.completionTokens;
            turn.speed = part.usage.tokensPerSecond;
            if (turn.thinking) turn.thinkSeconds ??= seconds;
        }
    }

    /** @param {Conversation} c @param {Turn} turn @param {number} round */
    async #useTools(c, turn, round) {
        let parent = turn.id;
        for (const call of turn.toolCalls ?? []) {
            parent = tree.append(c, {parent, role: "tool", content: callTool(call),
                toolCallId: call.id, name: call.name}).id;
        }
        await this.#answer(c, parent, round + 1);
    }
}

export const chat = new Chat();
