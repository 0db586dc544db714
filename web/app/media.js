// media: the pictures, sounds and videos of conversations as data: what a file is, what is kept of
// it, and what of it the model is given.
//
// Owns: their bytes, in memory while the page lives and in history.js's database. Turns (tree.js)
// hold their names only. Of a video its frames are kept: all that a model sees of it. Draws
// nothing: view/medium.js does.
// @ts-check

import {Carat} from "../carat/carat.js";
import * as history from "./history.js";
import {newId} from "./tree.js";

/** @typedef {import("./tree.js").Medium} Medium
 * @typedef {{id: string, blob?: Blob, frames?: Blob[], times?: number[]}} Data */

export const maxSeconds = 600;
const maxBytes = 100e6;
const endings = {
    image: /\.(png|jpe?g|webp|gif|avif|bmp|heic)$/i,
    audio: /\.(wav|mp3|ogg|oga|opus|flac|m4a|aac)$/i,
    video: /\.(mp4|m4v|mov|webm|mkv|ogv)$/i,
};

/** @type {Map<string, Data>} */
const known = new Map();

/** What a file says that it is. @param {File} file @returns {Medium["kind"] | null} */
export function kindOf(file) {
    const kinds = /** @type {Medium["kind"][]} */ (Object.keys(endings));
    return kinds.find((kind) => file.type.startsWith(`${kind}/`)) ??
        kinds.find((kind) => endings[kind].test(file.name)) ?? null;
}

/** @param {File} file */
export const isModel = (file) => /\.gguf$/i.test(file.name);

/* ---- from files ---- */

/** @param {ImageBitmap} bitmap @returns {Promise<Blob>} */
async function jpeg(bitmap) {
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
    bitmap.close();
    return new Promise((done, failed) => canvas.toBlob((blob) =>
        (blob ? done(blob) : failed(new Error("no memory"))), "image/jpeg", 0.9));
}

/** @param {File} file */
async function readVideo(file) {
    const {frames, times} = await Carat.frames(file);
    const blobs = [];
    for (const frame of frames) blobs.push(await jpeg(frame));
    const step = times.length > 1 ? times[1] - times[0] : 0;
    return {seconds: times[times.length - 1] + step, frames: blobs, times};
}

/** @param {File} file */
async function soundSeconds(file) {
    const context = new OfflineAudioContext(1, 1, 16000);
    return (await context.decodeAudioData(await file.arrayBuffer())).duration;
}

const nouns = {image: "picture", audio: "sound", video: "video"};

/** Reads a file, and fails with a sentence. Nothing is stored yet.
 * @param {File} file @param {Medium["kind"]} kind @returns {Promise<Medium>} */
export async function readMedium(file, kind) {
    if (file.size > maxBytes)
        throw new Error(`${file.name} is too large: at most ${maxBytes / 1e6} MB are read.`);
    const medium = /** @type {Medium} */ ({id: newId(), kind, name: file.name});
    const data = /** @type {Data} */ ({id: medium.id});
    try {
        if (kind === "video") {
            const {seconds, ...rest} = await readVideo(file);
            medium.seconds = seconds;
            Object.assign(data, rest);
        } else {
            data.blob = file;
            if (kind === "audio") medium.seconds = await soundSeconds(file);
            else (await createImageBitmap(file)).close();
        }
    } catch {
        throw new Error(`${file.name} is no ${nouns[kind]} that this browser can read.`);
    }
    if (kind === "audio" && (medium.seconds ?? 0) > maxSeconds)
        throw new Error(`${file.name} is too long: at most ${maxSeconds / 60} minutes are heard.`);
    known.set(medium.id, data);
    return medium;
}

/* ---- kept ---- */

/** @param {string} id @returns {Promise<Data | null>} null: it is there no more */
export async function dataOf(id) {
    const data = known.get(id) ?? await history.medium(id).catch(() => null);
    if (data) known.set(id, data);
    return data ?? null;
}

/** @param {Medium[]} media of a turn that was just asked */
export async function keep(media) {
    for (const {id} of media) {
        const data = known.get(id);
        if (data) await history.putMedium(data);
    }
}

/** @param {Medium[]} media */
export async function forget(media) {
    for (const {id} of media) {
        known.delete(id);
        await history.removeMedium(id);
    }
}

/* ---- to the model ---- */

/** @param {Medium} medium @returns {Promise<any | null>} a part of a message */
export async function partOf({id, kind}) {
    const data = await dataOf(id);
    if (!data) return null;
    if (kind === "image") return {type: "image", image: data.blob};
    if (kind === "audio") return {type: "audio", audio: data.blob};
    return {type: "video", video: {frames: data.frames, times: data.times}};
}

/* ---- files of conversations ---- */

/** @param {Blob} blob */
async function pack(blob) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 0x8000)
        text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return {type: blob.type, data: btoa(text)};
}

/** @param {any} packed */
function unpack({type, data}) {
    const bytes = Uint8Array.from(atob(String(data)), (c) => c.charCodeAt(0));
    return new Blob([bytes], {type: String(type)});
}

/** What an exported file holds of these. @param {Medium[]} media */
export async function packAll(media) {
    const all = /** @type {Record<string, any>} */ ({});
    for (const {id} of media) {
        const data = await dataOf(id);
        if (data?.blob) all[id] = await pack(data.blob);
        else if (data?.frames)
            all[id] = {frames: await Promise.all(data.frames.map(pack)), times: data.times};
    }
    return all;
}

/** Stores what an exported file holds, under ids of its own.
 * @param {Medium[]} media whose ids change @param {any} packed */
export async function unpackAll(media, packed) {
    for (const medium of media) {
        const from = packed?.[medium.id], data = /** @type {Data} */ ({id: newId()});
        medium.id = data.id;
        if (!from || typeof from !== "object") continue;
        try {
            if (medium.kind === "video") {
                data.frames = from.frames.map(unpack);
                data.times = from.times.map(Number);
            } else {
                data.blob = unpack(from);
            }
        } catch {
            continue; // it is damaged: the conversation is there without it
        }
        known.set(data.id, data);
        await history.putMedium(data);
    }
}
