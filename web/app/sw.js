// sw: the service worker. Keeps the app's files, so that it starts without a network.
//
// Owns: the cache "carat-app", one entry for each file and version of it. tools/precache.mjs fills
// in the list when build/web/ is assembled; a new list makes a new worker, which fetches what
// changed and waits until a page asks it to take over. Models are not its business: they are in
// the private file system, the bundled nano in a cache of its own (app/nano.js).

const FILES = new Map(/* path, sha256 */ []);
const NANO = /* name of nano's cache */ "";

const CACHE = "carat-app";
const scope = self.registration.scope;
const keyOf = (path) => new URL(`${path}?v=${FILES.get(path)}`, scope).href;

async function sha256(bytes) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return [...digest].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Fetches a file into the cache, unless this very version is there. */
async function keep(cache, path, hash) {
    const key = keyOf(path);
    if (await cache.match(key)) return;
    const response = await fetch(new URL(path, scope), {cache: "no-cache"});
    if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
    // A server in the middle of an update may send a file of another version.
    const bytes = await response.clone().arrayBuffer();
    if (await sha256(bytes) !== hash) throw new Error(`${path}: not the expected version`);
    await cache.put(key, response);
}

async function install() {
    const cache = await caches.open(CACHE);
    for (const [path, hash] of FILES) await keep(cache, path, hash);
}

/** Removes what only earlier versions used. */
async function activate() {
    const cache = await caches.open(CACHE);
    const wanted = new Set([...FILES.keys()].map(keyOf));
    for (const {url} of await cache.keys()) if (!wanted.has(url)) await cache.delete(url);
    for (const name of await caches.keys())
        if (name.startsWith("carat-nano-") && name !== NANO) await caches.delete(name);
    await self.clients.claim();
}

/** The path of a request below the scope; "" for what is not the app's. */
function pathOf(request) {
    const url = new URL(request.url);
    const whole = request.method === "GET" && !request.headers.has("range");
    if (!whole || !url.href.startsWith(scope)) return "";
    return url.pathname.slice(new URL(scope).pathname.length) || "index.html";
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
    if (event.data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
    const path = pathOf(event.request);
    if (!FILES.has(path)) return;
    event.respondWith(caches.open(CACHE)
        .then((cache) => cache.match(keyOf(path)))
        .then((found) => found ?? fetch(event.request)));
});
