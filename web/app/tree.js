// tree: a conversation as data. Messages form a tree, because editing or retrying one starts a
// branch beside it; `leaf` says which path from the root is shown.
//
// Owns: pure functions on these records, and the check of imported ones. history.js keeps them,
// chat.js grows them, view/thread.js shows a path of them.
// @ts-check

/**
 * @typedef {{id: string, name: string, arguments: Record<string, unknown>}} ToolCall
 * @typedef {{id: string, kind: "image" | "audio" | "video", name: string, seconds?: number}} Medium
 *     a picture, a sound or a video; its bytes are media.js's
 * @typedef {{
 *     id: string, parent: string | null, role: "user" | "assistant" | "tool", content: string,
 *     media?: Medium[], thinking?: string, toolCalls?: ToolCall[], toolCallId?: string,
 *     name?: string,
 *     model?: string, device?: string, finish?: string, error?: string, notice?: string,
 *     speed?: number, tokens?: number, firstToken?: number, thinkSeconds?: number,
 * }} Turn
 * @typedef {{
 *     id: string, title: string, created: number, updated: number,
 *     leaf: string | null, turns: Turn[],
 * }} Conversation
 */

export function newId() {
    const random = crypto.getRandomValues(new Uint8Array(12));
    return [...random].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** @returns {Conversation} */
export function newConversation() {
    const now = Date.now();
    return {id: newId(), title: "", created: now, updated: now, leaf: null, turns: []};
}

/** @param {Conversation} c @param {string | null} id */
export function find(c, id) {
    return c.turns.find((t) => t.id === id) ?? null;
}

/** The turns from the first to one of them. @param {Conversation} c @returns {Turn[]} */
export function path(c, leaf = c.leaf) {
    const turns = [];
    for (let t = find(c, leaf); t; t = find(c, t.parent)) turns.unshift(t);
    return turns;
}

/** @param {Conversation} c @param {Turn} turn those in whose place it stands, itself too */
export function siblings(c, turn) {
    return c.turns.filter((t) => t.parent === turn.parent);
}

/** Adds a turn and shows it. @param {Conversation} c @param {Omit<Turn, "id">} turn */
export function append(c, turn) {
    const added = {id: newId(), ...turn};
    c.turns.push(added);
    c.leaf = added.id;
    c.updated = Date.now();
    return added;
}

/** Shows the newest path through a turn. @param {Conversation} c @param {Turn} turn */
export function show(c, turn) {
    let last = turn;
    for (;;) {
        const next = c.turns.findLast((t) => t.parent === last.id);
        if (!next) break;
        last = next;
    }
    c.leaf = last.id;
}

/** The user's turn that a turn answers, or itself. @param {Conversation} c @param {Turn} turn */
export function question(c, turn) {
    let t = /** @type {Turn | null} */ (turn);
    while (t && t.role !== "user") t = find(c, t.parent);
    return t;
}

/** @param {string} text what a tool gave, JSON unless it was imported */
function resultOf(text) {
    try {
        return JSON.parse(text);
    } catch {
        return text;
    }
}

/** Every picture, sound and video of some conversations. @param {Conversation[]} conversations */
export function mediaOf(conversations) {
    return conversations.flatMap((c) => c.turns.flatMap((t) => t.media ?? []));
}

/** What carat.chat() is given.
 * @param {Turn[]} turns @param {string} system
 * @param {(medium: Medium) => Promise<any | null>} partOf a part of a message */
export async function messages(turns, system, partOf) {
    const list = /** @type {any[]} */ (system.trim() ? [{role: "system", content: system}] : []);
    for (const {role, content, media, toolCalls, toolCallId, name} of turns) {
        if (role === "tool") list.push({role, content: resultOf(content), toolCallId, name});
        else if (role === "user" && media?.length) {
            const parts = (await Promise.all(media.map(partOf))).filter(Boolean);
            if (content) parts.push({type: "text", text: content});
            list.push({role, content: parts});
        } else if (role === "user") list.push({role, content});
        else if (content || toolCalls?.length) list.push({role, content, toolCalls});
    }
    return list;
}

/** The first words of a question. @param {string} text */
export function titleOf(text) {
    const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
    return line.length > 60 ? `${line.slice(0, 57).trimEnd()}...` : line;
}

/** Whether a conversation holds some words, in its title or its turns.
 * @param {Conversation} c @param {string} words */
export function matches(c, words) {
    const w = words.trim().toLowerCase();
    return !w || c.title.toLowerCase().includes(w) ||
        c.turns.some((t) => t.role !== "tool" && t.content.toLowerCase().includes(w));
}

const turnFields = {thinking: "string", toolCallId: "string", name: "string", model: "string",
    device: "string", finish: "string", error: "string", notice: "string", speed: "number",
    tokens: "number", firstToken: "number", thinkSeconds: "number"};

/** @param {any} raw @param {Set<string>} known ids of the turns before it @returns {Turn} */
function checkTurn(raw, known) {
    const ok = raw && typeof raw.id === "string" && typeof raw.content === "string" &&
        ["user", "assistant", "tool"].includes(raw.role) && !known.has(raw.id) &&
        (raw.parent === null || known.has(raw.parent));
    if (!ok) throw new Error("This file holds a conversation that is damaged.");
    known.add(raw.id);
    const turn = {id: raw.id, parent: raw.parent, role: raw.role, content: raw.content};
    for (const [field, type] of Object.entries(turnFields))
        if (typeof raw[field] === type) /** @type {any} */ (turn)[field] = raw[field];
    if (Array.isArray(raw.media))
        /** @type {Turn} */ (turn).media = raw.media.filter(isMedium)
            .map((/** @type {Medium} */ {id, kind, name, seconds}) =>
                ({id, kind, name, seconds: typeof seconds === "number" ? seconds : undefined}));
    if (Array.isArray(raw.toolCalls))
        /** @type {Turn} */ (turn).toolCalls = raw.toolCalls
            .filter((/** @type {any} */ c) => c && typeof c.name === "string")
            .map((/** @type {any} */ c) => ({id: String(c.id ?? ""), name: c.name,
                arguments: c.arguments && typeof c.arguments === "object" ? c.arguments : {}}));
    return turn;
}

/** @param {any} raw @returns {raw is Medium} */
function isMedium(raw) {
    return raw && typeof raw.id === "string" && typeof raw.name === "string" &&
        ["image", "audio", "video"].includes(raw.kind);
}

/** Reads an exported file: each conversation gets an id of its own, so that nothing is replaced.
 * @param {string} text @returns {{conversations: Conversation[], media: any}} */
export function importText(text) {
    let raw;
    try {
        raw = JSON.parse(text);
    } catch {
        throw new Error("This file is not JSON: choose one that carat exported.");
    }
    if (raw?.carat !== 1 || !Array.isArray(raw.conversations))
        throw new Error("This file holds no conversations of carat.");
    const conversations = raw.conversations.map((/** @type {any} */ c) => {
        const known = /** @type {Set<string>} */ (new Set());
        const turns = (Array.isArray(c?.turns) ? c.turns : [])
            .map((/** @type {any} */ t) => checkTurn(t, known));
        const time = (/** @type {any} */ t) => (typeof t === "number" ? t : Date.now());
        const leaf = known.has(c?.leaf) ? c.leaf : (turns.at(-1)?.id ?? null);
        return {id: newId(), title: String(c?.title ?? ""), created: time(c?.created),
            updated: time(c?.updated), leaf, turns};
    });
    return {conversations, media: raw.media};
}

/** @param {Conversation[]} conversations @param {any} media their bytes, by id */
export function exportText(conversations, media) {
    return JSON.stringify({carat: 1, exported: new Date().toISOString(), conversations, media},
        null, 1);
}
