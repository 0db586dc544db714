// history: the conversations in IndexedDB, and the news of them between tabs.
//
// Owns: the database, with the bytes of pictures, sounds and videos. Without one (a private window,
// storage switched off) conversations live as long as the page. The records are those of tree.js
// and media.js.
// @ts-check

/** @typedef {import("./tree.js").Conversation} Conversation */

/** @type {Promise<IDBDatabase | null> | null} */
let opened = null;
/** What there is when there is no database. */
const memory = {conversations: /** @type {Map<string, any>} */ (new Map()),
    media: /** @type {Map<string, any>} */ (new Map())};
const news = "BroadcastChannel" in globalThis ? new BroadcastChannel("carat.history") : null;

function database() {
    opened ??= new Promise((done) => {
        try {
            const request = indexedDB.open("carat", 2);
            request.onupgradeneeded = () => {
                for (const name of ["conversations", "media"])
                    if (!request.result.objectStoreNames.contains(name))
                        request.result.createObjectStore(name, {keyPath: "id"});
            };
            request.onsuccess = () => {
                const db = request.result;
                // Another tab has a newer app, which waits until this one lets go.
                db.onversionchange = () => {
                    db.close();
                    opened = null;
                };
                done(db);
            };
            request.onerror = () => done(null);
            request.onblocked = () => done(null);
        } catch {
            done(null);
        }
    });
    return opened;
}

/**
 * @param {"conversations" | "media"} name @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest} act
 * @param {(memory: Map<string, any>) => any} otherwise
 */
async function withStore(name, mode, act, otherwise) {
    const db = await database();
    if (!db) return otherwise(memory[name]);
    return new Promise((done, failed) => {
        const transaction = db.transaction(name, mode);
        const request = act(transaction.objectStore(name));
        transaction.oncomplete = () => done(request.result);
        transaction.onabort = () => failed(transaction.error);
        transaction.onerror = () => failed(transaction.error);
    });
}

/** @returns {Promise<Conversation[]>} the newest first */
export async function all() {
    const list = await withStore("conversations", "readonly", (s) => s.getAll(),
        (m) => [...m.values()]);
    return list.sort((/** @type {Conversation} */ a, /** @type {Conversation} */ b) =>
        b.updated - a.updated);
}

/** @param {Conversation} conversation */
export async function put(conversation) {
    await withStore("conversations", "readwrite", (s) => s.put(conversation),
        (m) => m.set(conversation.id, conversation));
    news?.postMessage("changed");
}

/** @param {string} id */
export async function remove(id) {
    await withStore("conversations", "readwrite", (s) => s.delete(id), (m) => m.delete(id));
    news?.postMessage("changed");
}

/* ---- pictures, sounds and videos ---- */

/** @param {string} id @returns {Promise<any>} */
export function medium(id) {
    return withStore("media", "readonly", (s) => s.get(id), (m) => m.get(id));
}

/** @param {{id: string}} data */
export async function putMedium(data) {
    await withStore("media", "readwrite", (s) => s.put(data), (m) => m.set(data.id, data));
}

/** @param {string} id */
export async function removeMedium(id) {
    await withStore("media", "readwrite", (s) => s.delete(id), (m) => m.delete(id));
}

/** Calls back when another tab changed something. @param {() => void} changed */
export function watch(changed) {
    if (news) news.onmessage = () => changed();
}
