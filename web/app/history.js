// history: the conversations in IndexedDB, and the news of them between tabs.
//
// Owns: the database. Without one (a private window, storage switched off) conversations live as
// long as the page. The records are those of tree.js.
// @ts-check

/** @typedef {import("./tree.js").Conversation} Conversation */

/** @type {Promise<IDBDatabase | null> | null} */
let opened = null;
/** @type {Map<string, Conversation>} what there is when there is no database */
const memory = new Map();
const news = "BroadcastChannel" in globalThis ? new BroadcastChannel("carat.history") : null;

function database() {
    opened ??= new Promise((done) => {
        try {
            const request = indexedDB.open("carat", 1);
            request.onupgradeneeded = () =>
                request.result.createObjectStore("conversations", {keyPath: "id"});
            request.onsuccess = () => done(request.result);
            request.onerror = () => done(null);
            request.onblocked = () => done(null);
        } catch {
            done(null);
        }
    });
    return opened;
}

/**
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest} act
 * @param {() => any} otherwise
 */
async function withStore(mode, act, otherwise) {
    const db = await database();
    if (!db) return otherwise();
    return new Promise((done, failed) => {
        const transaction = db.transaction("conversations", mode);
        const request = act(transaction.objectStore("conversations"));
        transaction.oncomplete = () => done(request.result);
        transaction.onabort = () => failed(transaction.error);
        transaction.onerror = () => failed(transaction.error);
    });
}

/** @returns {Promise<Conversation[]>} the newest first */
export async function all() {
    const list = await withStore("readonly", (s) => s.getAll(), () => [...memory.values()]);
    return list.sort((/** @type {Conversation} */ a, /** @type {Conversation} */ b) =>
        b.updated - a.updated);
}

/** @param {Conversation} conversation */
export async function put(conversation) {
    await withStore("readwrite", (s) => s.put(conversation),
        () => memory.set(conversation.id, conversation));
    news?.postMessage("changed");
}

/** @param {string} id */
export async function remove(id) {
    await withStore("readwrite", (s) => s.delete(id), () => memory.delete(id));
    news?.postMessage("changed");
}

/** Calls back when another tab changed something. @param {() => void} changed */
export function watch(changed) {
    if (news) news.onmessage = () => changed();
}
