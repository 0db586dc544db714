// @ts-check
/* media: the pictures, sounds and videos of a conversation, from what a caller has to what can be
 * posted to the worker. Sound is decoded here and videos are cut into frames here, because only a
 * page can; pictures are decoded in the worker (pixels.js).
 *
 * What was made of a Blob is kept as long as the Blob is: conversations are given whole every time.
 *
 * Flow: request.js finds the parts; carat.js posts what comes out of here. */
import {CaratError} from "./errors.js";
import {absolute} from "./remote.js";

/** @typedef {import("./carat.js").MediaPart} MediaPart
 * @typedef {{type: string, frames?: number}} Sign what stands in the message for a part
 * @typedef {{where: string, part: MediaPart, sign: Sign}} Found
 * @typedef {import("./pixels.js").Picture} Picture
 * @typedef {import("./pixels.js").Image} Image
 * @typedef {import("./pixels.js").Sound} Sound
 * @typedef {{frames: (ImageBitmap | ImageData | Blob)[], times: number[]}} Frames */

/** Files that are larger are not read into memory. */
const MAX_IMAGE = 100e6, MAX_AUDIO = 150e6;
/** The core hears no more at once; what it hears, it hears at this rate. */
const MAX_SECONDS = 600, RATE = 16000;
/** Gemma 4 was trained with at most this many frames of a video. */
const MAX_FRAMES = 32;
/** How much of a frame is kept: more than 70 soft tokens can show. */
const FRAME_PIXELS = 2 ** 18;
/** A video that gives no frame for so long will not give one any more. */
const SEEK_MS = 15000;

/** @param {string} message @returns {never} */
function wrong(message) {
    throw new CaratError("argument", message);
}

/** Whether it is one of a class that this context may not have (workers have no AudioBuffer).
 * @param {unknown} value @param {string} name */
function isA(value, name) {
    const known = /** @type {any} */ (globalThis)[name];
    return known !== undefined && value instanceof known;
}

/** @param {unknown} value */
const isPicture = (value) => isA(value, "Blob") || isA(value, "ImageBitmap") ||
    isA(value, "ImageData");

/* ---- what a caller gives ---- */

/** @param {string} where @param {any} part */
function checkAudio(where, {audio, sampleRate, channels = 1}) {
    if (isA(audio, "Blob") || isA(audio, "AudioBuffer")) return;
    if (!(audio instanceof Float32Array))
        wrong(`${where}: audio has to be a Blob, an AudioBuffer or a Float32Array`);
    if (!(sampleRate > 0)) wrong(`${where}: samples need their sampleRate`);
    if (!Number.isSafeInteger(channels) || channels < 1 || audio.length % channels)
        wrong(`${where}: ${audio.length} samples are not of ${channels} channels`);
}

/** @param {string} where @param {any} video */
function checkVideo(where, video) {
    if (isA(video, "Blob") || isA(video, "HTMLVideoElement")) return;
    const {frames, times} = video ?? {};
    if (!Array.isArray(frames) || !Array.isArray(times))
        wrong(`${where}: video has to be a Blob, a <video> or {frames, times}`);
    if (!frames.length || frames.length !== times.length)
        wrong(`${where}: a video needs frames, and a time for each of them`);
    if (!frames.every(isPicture))
        wrong(`${where}: a video's frames have to be Blobs, ImageBitmaps or ImageData`);
    if (!times.every((/** @type {unknown} */ t) => Number.isFinite(t) && Number(t) >= 0))
        wrong(`${where}: the times of a video's frames have to be seconds`);
}

/** @param {string} where @param {any} part of type image, audio or video */
export function checkMedium(where, part) {
    const {type, image} = part;
    if (type === "audio") checkAudio(where, part);
    else if (type === "video") checkVideo(where, part.video);
    else if (typeof image !== "string" && !(image instanceof URL) && !isPicture(image))
        wrong(`${where}: image has to be a Blob, an ImageBitmap, an ImageData or a URL`);
}

/** A data: URL as a Blob; fetch() of one would need the leave of the page's policy.
 * @param {string} where @param {string} url */
export function dataUrlBlob(where, url) {
    const [, type, base64, text] = /^data:([^,;]*)[^,]*?(;base64)?,(.*)$/is.exec(url) ?? [];
    if (text === undefined) wrong(`${where}: this data: URL is not one`);
    try {
        const plain = decodeURIComponent(text);
        const bytes = base64 ? base64Bytes(plain) : new TextEncoder().encode(plain);
        return new Blob([bytes], {type});
    } catch {
        return wrong(`${where}: the data: URL is damaged`);
    }
}

/** @param {string} text */
export function base64Bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/* ---- pictures ---- */

/** @param {string} where @param {URL | string} image */
function urlOf(where, image) {
    try {
        return absolute(image).href;
    } catch {
        return wrong(`${where}: ${image} is not a URL`);
    }
}

/** @param {string} where @param {Blob | ImageBitmap | ImageData | URL | string} image
 * @returns {Picture} */
function portablePicture(where, image) {
    if (image instanceof URL || typeof image === "string") {
        const url = urlOf(where, image);
        return url.startsWith("data:") ? dataUrlBlob(where, url) : {url};
    }
    if (image instanceof Blob && image.size > MAX_IMAGE)
        wrong(`${where}: a picture of ${Math.round(image.size / 1e6)} MB is too large; at most ` +
            `${MAX_IMAGE / 1e6} MB are read`);
    return image;
}

/* ---- sound ---- */

/** @param {AudioBuffer} buffer @returns {Omit<Sound, "where">} the mean of its channels */
function mono(buffer) {
    const {numberOfChannels: n, length, sampleRate} = buffer;
    const samples = new Float32Array(length);
    for (let c = 0; c < n; c++)
        buffer.getChannelData(c).forEach((x, i) => { samples[i] += x / n; });
    return {samples, channels: 1, sampleRate};
}

/** @param {string} where @param {Blob} blob */
async function decodeSound(where, blob) {
    if (blob.size > MAX_AUDIO)
        wrong(`${where}: a sound file of ${Math.round(blob.size / 1e6)} MB is too large; at most ` +
            `${MAX_AUDIO / 1e6} MB are read`);
    if (!globalThis.OfflineAudioContext)
        throw new CaratError("unsupported", `${where}: there is nothing here that decodes sound; ` +
            "give samples");
    const bytes = await blob.arrayBuffer();
    try {
        return mono(await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes));
    } catch {
        throw new CaratError("format", `${where}: this sound cannot be decoded: it is damaged, ` +
            "or in no format that this browser knows");
    }
}

/* ---- video ---- */

/** @param {HTMLVideoElement} video @param {string} event @param {AbortSignal} [signal] */
function happened(video, event, signal) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(() => end(new Error("nothing came")), SEEK_MS);
        const end = (/** @type {unknown} */ error) => {
            clearTimeout(timer);
            video.removeEventListener(event, good);
            video.removeEventListener("error", bad);
            signal?.removeEventListener("abort", stop);
            if (error) reject(error);
            else resolve(undefined);
        };
        const good = () => end(null), bad = () => end(new Error(video.error?.message ?? ""));
        const stop = () => end(new CaratError("aborted", "it was aborted"));
        video.addEventListener(event, good);
        video.addEventListener("error", bad);
        signal?.addEventListener("abort", stop);
        if (video.error) bad();
        if (signal?.aborted) stop();
    });
}

/** @param {HTMLVideoElement} video @param {number} time @param {AbortSignal} [signal] */
async function seek(video, time, signal) {
    const there = happened(video, "seeked", signal);
    video.currentTime = time;
    await there;
}

/** How long it is; recordings of browsers do not say it, but know it after a look at the end.
 * @param {HTMLVideoElement} video @param {AbortSignal} [signal] */
async function lengthOf(video, signal) {
    if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA)
        await happened(video, "loadeddata", signal);
    if (video.duration === Infinity) await seek(video, 1e6, signal);
    return video.duration;
}

/** @param {HTMLVideoElement} video @param {number} count @param {AbortSignal} [signal]
 * @returns {Promise<{frames: ImageBitmap[], times: number[]}>} */
async function framesOfElement(video, count, signal) {
    const seconds = await lengthOf(video, signal), {videoWidth: w, videoHeight: h} = video;
    if (!(seconds > 0) || !w || !h) throw new Error("it has no pictures");
    const scale = Math.min(1, Math.sqrt(FRAME_PIXELS / (w * h)));
    const size = {resizeWidth: Math.max(1, Math.round(w * scale)),
        resizeHeight: Math.max(1, Math.round(h * scale)),
        resizeQuality: /** @type {const} */ ("high")};
    const frames = [], times = [], n = Math.max(1, Math.min(count, Math.floor(seconds * 24)));
    for (let i = 0; i < n; i++) {
        const time = i * seconds / n;
        await seek(video, time + 0.001, signal); // where it stands already, nothing would happen
        frames.push(await createImageBitmap(video, size));
        times.push(time);
    }
    return {frames, times};
}

/** @param {string} where @param {Blob | HTMLVideoElement} video @param {number} count
 * @param {AbortSignal} [signal] */
async function framesOf(where, video, count, signal) {
    if (!globalThis.document)
        throw new CaratError("unsupported", `${where}: only a page can decode a video`);
    let element = /** @type {HTMLVideoElement} */ (video), url = "";
    const before = video instanceof Blob ? 0 : video.currentTime;
    if (video instanceof Blob) {
        element = document.createElement("video");
        element.muted = true;
        element.preload = "auto";
        element.src = url = URL.createObjectURL(video);
    } else {
        video.pause();
    }
    try {
        return await framesOfElement(element, count, signal);
    } catch (error) {
        if (error instanceof CaratError) throw error;
        throw new CaratError("format", `${where}: this video cannot be decoded: it is damaged, ` +
            "in no format that this browser knows, or the page's policy has no media-src blob:");
    } finally {
        if (url) {
            element.removeAttribute("src");
            URL.revokeObjectURL(url);
        } else {
            element.currentTime = before;
        }
    }
}

/* ---- the whole ---- */

/** @type {WeakMap<Blob, Promise<any>>} */
const decoded = new WeakMap();

/** @template T @param {Blob} blob @param {() => Promise<T>} decode @returns {Promise<T>} */
function once(blob, decode) {
    const known = decoded.get(blob);
    if (known) return known;
    const made = decode();
    decoded.set(blob, made);
    made.catch(() => decoded.delete(blob));
    return made;
}

/** @param {string} where @param {any} part @returns {Promise<(Image | Sound)[]>} */
async function portableSound(where, {audio, sampleRate, channels = 1}) {
    const sound = audio instanceof Float32Array ? {samples: audio, channels, sampleRate}
        : audio instanceof Blob ? await once(audio, () => decodeSound(where, audio)) : mono(audio);
    const seconds = sound.samples.length / sound.channels / sound.sampleRate;
    if (seconds > MAX_SECONDS)
        wrong(`${where}: ${Math.ceil(seconds)} s of sound; at most ${MAX_SECONDS} s are heard at ` +
            "once, so cut it");
    return [{where, ...sound}];
}

/** @param {string} where @param {any} video @param {AbortSignal} [signal]
 * @returns {Promise<Image[]>} */
async function portableVideo(where, video, signal) {
    const {frames, times} = video instanceof Blob
        ? await once(video, () => framesOf(where, video, MAX_FRAMES, signal))
        : isA(video, "HTMLVideoElement") ? await framesOf(where, video, MAX_FRAMES, signal)
        : /** @type {Frames} */ (video);
    return frames.map((/** @type {any} */ image, /** @type {number} */ i) =>
        ({where, image: portablePicture(where, image), time: times[i]}));
}

/** Completes the signs of videos in the messages, too.
 * @param {Found[]} found @param {AbortSignal} [signal] @returns {Promise<(Image | Sound)[]>} */
export async function portableMedia(found, signal) {
    /** @type {(Image | Sound)[]} */
    const all = [];
    for (const {where, part, sign} of found) {
        if (part.type === "image") {
            all.push({where, image: portablePicture(where, part.image)});
        } else if (part.type === "audio") {
            all.push(...await portableSound(where, part));
        } else {
            const frames = await portableVideo(where, part.video, signal);
            sign.frames = frames.length;
            all.push(...frames);
        }
        if (signal?.aborted) throw new CaratError("aborted", "it was aborted");
    }
    return all;
}

/** @param {Blob | HTMLVideoElement} video
 * @param {{count?: number, signal?: AbortSignal}} options */
export async function videoFrames(video, {count = MAX_FRAMES, signal} = {}) {
    if (!isA(video, "Blob") && !isA(video, "HTMLVideoElement"))
        wrong("frames: a Blob or a <video> is expected");
    if (!Number.isSafeInteger(count) || count < 1) wrong("frames: count has to be 1 or more");
    return framesOf("frames", video, count, signal);
}
