// nano: fetches the bundled model, and keeps it for visits without a network.
//
// Owns: the cache "carat-nano-...", named after the file's hash; sw.js removes those of other
// builds. It is the one model in Cache storage: all others are too large for it and go to OPFS.
// @ts-check

import {nano} from "./version.js";

const url = new URL("../models/nano.gguf", import.meta.url).href;

/** @returns {Promise<Cache | null>} null where there is none: http without TLS, storage off */
async function cache() {
    try {
        return await caches.open(`carat-nano-${nano}`);
    } catch {
        return null;
    }
}

/** @param {Response} response @param {(p: any) => void} onProgress */
async function body(response, onProgress) {
    const total = Number(response.headers.get("content-length")) || 0;
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const parts = [];
    const start = performance.now();
    let done = 0;
    for (;;) {
        const {value} = await reader.read();
        if (!value) break;
        parts.push(value);
        done += value.length;
        const rate = (1000 * done) / (performance.now() - start);
        onProgress({phase: "download", done, total, rate});
    }
    if (total && done < total) throw new Error("the download of nano was cut off");
    const all = new Uint8Array(done);
    let at = 0;
    for (const part of parts) {
        all.set(part, at);
        at += part.length;
    }
    return all;
}

/**
 * The bytes of nano: those kept from an earlier visit, or from the server.
 * @param {(progress: any) => void} onProgress @param {AbortSignal} signal
 */
export async function nanoBytes(onProgress, signal) {
    const kept = await cache();
    const found = await kept?.match(url);
    if (found) return new Uint8Array(await found.arrayBuffer());
    const response = await fetch(url, {signal});
    if (!response.ok) throw new Error(`the server answered ${response.status} for nano`);
    const bytes = await body(response, onProgress);
    const headers = {"content-type": "application/octet-stream"};
    await kept?.put(url, new Response(bytes, {headers})).catch(() => {}); // storage is full
    return bytes;
}
