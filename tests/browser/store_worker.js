// The worker of store.test.mjs: does what the page asks with the store and the sources.

import * as source from "/carat/source.js";
import { download } from "/carat/store.js";

const stops = new Map(); // id of a call -> AbortController

const calls = {
    download(url, options, { signal, tell }) {
        return download(url, { ...options, signal,
            onProgress: (progress) => tell({ progress }),
            onNotice: (notice) => tell({ notice }) });
    },

    /** Changes one byte of a stored file. */
    async damage(name, offset) {
        const file = await stored(name);
        const byte = new Uint8Array(1);
        file.read(byte, { at: offset });
        byte[0] ^= 0x10;
        file.write(byte, { at: offset });
        file.close();
    },

    async truncate(name, size) {
        const file = await stored(name);
        file.truncate(size);
        file.close();
    },

    /** Reads ranges [offset, length] of a source; gives their bytes as text of hex digits. */
    async read(kind, from, ranges, options) {
        const open = { url: source.openUrl, blob: source.openBlob, bytes: source.openBytes,
            opfs: source.openOpfs }[kind];
        const file = await open(from, options);
        try {
            return { size: file.size, read: ranges.map(([offset, length]) => {
                const bytes = new Uint8Array(length);
                file.read(offset, bytes);
                return hex(bytes);
            }) };
        } finally {
            file.close?.();
        }
    },

    /** Keeps sources open, to see who else can open them. */
    async open(name) {
        return (await source.openOpfs(name)).size;
    },
};

async function stored(name) {
    const root = await navigator.storage.getDirectory();
    const carat = await root.getDirectoryHandle("carat");
    const models = await carat.getDirectoryHandle("models");
    return (await models.getFileHandle(name)).createSyncAccessHandle();
}

function hex(bytes) {
    let text = "";
    for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
    return text;
}

onmessage = async ({ data: { id, stop, call, args } }) => {
    if (stop) {
        stops.get(id)?.abort();
        return;
    }
    const controller = new AbortController();
    stops.set(id, controller);
    const tools = { signal: controller.signal, tell: (what) => postMessage({ id, ...what }) };
    try {
        postMessage({ id, value: await calls[call](...args, tools) });
    } catch ({ name, code, message }) {
        postMessage({ id, error: { name, code, message } });
    }
};
