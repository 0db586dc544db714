// source: bytes with a size, read synchronously at any offset, as the engine wants them.
//
// For the worker only. Owns how a URL, a picked file, a stored file or bytes in memory are read,
// and the read-ahead that makes many small reads cheap. Does not store anything: store.js does.
// Flow: worker.js opens one of these and gives it to the engine's Files (wasi.js).
// @ts-check
import {CaratError} from "./errors.js";
import {bytes, find, findFile} from "./opfs.js";

/**
 * A file as wasi.js wants it.
 * @typedef {object} SourceFile
 * @property {number} size
 * @property {(offset: number, to: Uint8Array) => void} read fills `to` or throws
 * @property {() => void} [close]
 */

/** The window after a jump, and the largest: it doubles while reads go on in order, so that a
 * header is read in a few requests and single rows far apart do not drag megabytes along. */
const WINDOW_MIN = 64 * 2 ** 10;
const WINDOW_MAX = 4 * 2 ** 20;

/** Milliseconds for a range of a URL, and how often it is asked for before that is an error. */
const TIMEOUT = 30000;
const ATTEMPTS = 3;

/** @param {string} name @param {number} size @param {number} offset @param {number} length */
function checkRange(name, size, offset, length) {
    if (offset >= 0 && length <= size - offset) return;
    throw new CaratError("io", `${name}: has ${size} bytes, but ${length} at byte ${
        offset} were asked for`);
}

/**
 * Reads through a window that runs ahead.
 * @param {string} name @param {number} size
 * @param {(offset: number, length: number) => Uint8Array} fetch gives exactly these bytes
 * @param {() => void} [close]
 * @returns {SourceFile}
 */
function readAhead(name, size, fetch, close) {
    let window = /** @type {Uint8Array} */ (new Uint8Array(0));
    let start = 0;
    let ahead = WINDOW_MIN;
    return {
        size,
        read(offset, to) {
            checkRange(name, size, offset, to.length);
            const inside = Math.min(to.length, start + window.length - offset);
            let done = 0;
            if (offset >= start && inside > 0) {
                to.set(window.subarray(offset - start, offset - start + inside));
                done = inside;
            }
            if (done === to.length) return;
            const next = offset + done;
            const rest = to.length - done;
            ahead = next === start + window.length ? Math.min(ahead * 2, WINDOW_MAX) : WINDOW_MIN;
            window = fetch(next, Math.min(Math.max(rest, ahead), size - next));
            start = next;
            to.set(window.subarray(0, rest), done);
            // What is larger than any window was wanted once: keep its end only.
            if (window.length <= WINDOW_MAX) return;
            start += window.length;
            window = new Uint8Array(0);
        },
        close() {
            window = new Uint8Array(0);
            close?.();
        },
    };
}

/** @param {ArrayBuffer | Uint8Array} given @returns {SourceFile} */
export function openBytes(given, name = "the given bytes") {
    const whole = given instanceof Uint8Array ? given : new Uint8Array(given);
    return {
        size: whole.length,
        read(offset, to) {
            checkRange(name, whole.length, offset, to.length);
            to.set(whole.subarray(offset, offset + to.length));
        },
    };
}

/** A File that the user picked, or any other Blob; read in place.
 * @param {Blob} blob @returns {SourceFile} */
export function openBlob(blob, name = /** @type {File} */ (blob).name || "the given file") {
    const reader = new FileReaderSync();
    return readAhead(name, blob.size, (offset, length) => {
        try {
            return new Uint8Array(reader.readAsArrayBuffer(blob.slice(offset, offset + length)));
        } catch (cause) {
            const {message} = /** @type {Error} */ (cause);
            throw new CaratError("io", `${name}: cannot be read; it may have been changed or ` +
                `removed since it was picked (${message})`);
        }
    });
}

/** A stored model. Several tabs may read the same one.
 * @param {string} name @returns {Promise<SourceFile>} */
export async function openOpfs(name) {
    const model = await find(name);
    if (!model) throw new CaratError("not-found", `${name}: no such model is stored`);
    const {name: plain, bytes: stored, size: whole, complete} = model;
    if (!complete)
        throw new CaratError("not-found", `${plain}: only ${bytes(stored)}${
            whole === null ? "" : ` of ${bytes(whole)}`} are stored; download the rest first`);
    const handle = /** @type {any} */ (await findFile("models", plain));
    let file;
    try {
        file = await handle.createSyncAccessHandle({mode: "read-only"});
    } catch {
        // Browsers without shared handles give one to the first tab only; the others read it as
        // the file that it also is.
        return openBlob(await handle.getFile(), plain);
    }
    const size = file.getSize();
    return readAhead(plain, size, (offset, length) => {
        const read = new Uint8Array(length);
        const got = file.read(read, {at: offset});
        if (got === length) return read;
        throw new CaratError("io", `${plain}: ends at byte ${offset + got}, but had ${size}`);
    }, () => file.close());
}

/* ---- URLs ---- */

/**
 * A URL, read by range requests.
 * @param {string | URL} url
 * @param {{headers?: Record<string, string>, signal?: AbortSignal, headBytes?: number}} [options]
 *        headBytes: what to keep of the start when the server cannot send parts of the file, for
 *        readers that want no more than its header; without it such a server is an error
 * @returns {Promise<SourceFile>}
 */
export async function openUrl(url, {headers = {}, signal, headBytes = 0} = {}) {
    const address = new URL(url, globalThis.location?.href).href;
    const controller = new AbortController();
    const stop = () => controller.abort();
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    try {
        const response = await fetch(address, {cache: "no-store", signal: controller.signal,
            headers: {...headers, Range: `bytes=0-${WINDOW_MIN - 1}`}});
        if (response.status === 206)
            return await ranges(address, headers, response, controller.signal);
        if (response.status !== 200) throw refused(address, response.status);
        if (headBytes === 0)
            throw new CaratError("unsupported", `${address}: the server cannot send a part of a ` +
                "file, so the file can only be read after it was stored");
        return await onlyHead(address, response, headBytes);
    } catch (cause) {
        if (cause instanceof CaratError) throw cause;
        if (signal?.aborted) throw new CaratError("aborted", `${address}: reading was stopped`);
        throw new CaratError("network", `${address}: ${/** @type {Error} */ (cause).message}`);
    } finally {
        signal?.removeEventListener("abort", stop);
        controller.abort();
    }
}

/** @param {string} url @param {number} status */
function refused(url, status) {
    const code = status === 404 || status === 410 ? "not-found" : "network";
    return new CaratError(code, `${url}: the server answers ${status}`);
}

/** What tells one version of a file from another.
 * @param {(name: string) => string | null} header */
function version(header) {
    return header("ETag") ?? header("Last-Modified");
}

/** @param {string} url @param {Record<string, string>} headers @param {Response} response
 * @param {AbortSignal} signal until it is open */
async function ranges(url, headers, response, signal) {
    const size = await sizeOf(url, headers, response, signal);
    const opened = version((name) => response.headers.get(name));
    return readAhead(url, size, (offset, length) => {
        let failure = "";
        for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
            const request = new XMLHttpRequest();
            request.open("GET", url, false);
            request.responseType = "arraybuffer";
            request.timeout = TIMEOUT;
            for (const name in headers) request.setRequestHeader(name, headers[name]);
            request.setRequestHeader("Range", `bytes=${offset}-${offset + length - 1}`);
            try {
                request.send();
            } catch (cause) {
                failure = /** @type {Error} */ (cause).name === "TimeoutError"
                    ? `nothing came for ${TIMEOUT / 1000} seconds` : "the connection failed";
                continue;
            }
            const {status, response: body} = request;
            failure = `the server answers ${status}`;
            if (status >= 500) continue;
            if (status !== 206) throw refused(url, status);
            if (version((name) => request.getResponseHeader(name)) !== opened)
                throw new CaratError("io", `${url}: the file was changed while it was read`);
            if (body.byteLength === length) return new Uint8Array(body);
            failure = `the server sent ${body.byteLength} bytes instead of ${length}`;
        }
        throw new CaratError("network", `${url}: cannot be read at byte ${offset}: ${failure}`);
    });
}

/** The size of the whole file. Other origins may hide Content-Range, but not a HEAD's length.
 * @param {string} url @param {Record<string, string>} headers @param {Response} response
 * @param {AbortSignal} signal */
async function sizeOf(url, headers, response, signal) {
    const range = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
    if (range) return Number(range[1]);
    const head = await fetch(url, {method: "HEAD", headers, cache: "no-store", signal});
    const length = head.ok ? head.headers.get("Content-Length") : null;
    if (length !== null) return Number(length);
    throw new CaratError("network", `${url}: the server does not tell the size of the file`);
}

/** The start of a body, as a file of the whole size whose rest cannot be read.
 * @param {string} url @param {Response} response @param {number} headBytes */
async function onlyHead(url, response, headBytes) {
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const head = new Uint8Array(headBytes);
    let length = 0;
    while (length < headBytes) {
        const {done, value} = await reader.read();
        if (done) break;
        const part = value.subarray(0, headBytes - length);
        head.set(part, length);
        length += part.length;
    }
    const size = Number(response.headers.get("Content-Length") ?? length);
    const file = openBytes(head.subarray(0, length), url);
    return {...file, size};
}
