// @ts-check
/* pixels: pictures as the engine takes them, decoded in the worker: upright, sRGB, on white, and
 * not larger than the engine has any use for; the exact size is the engine's own affair.
 *
 * Flow: media.js posts them; worker.js hands what comes out of here to engine.js. */
import {CaratError} from "./errors.js";

/** @typedef {Blob | ImageBitmap | ImageData | {url: string}} Picture
 * @typedef {{where: string, image: Picture, time?: number}} Image with a time: a video's frame
 * @typedef {{where: string, samples: Float32Array, channels: number, sampleRate: number}} Sound
 * @typedef {{rgb: Uint8Array, width: number, height: number, time?: number} | Sound} Media */

/** 1120 soft tokens, the most there are, show 2.6 million; a frame of a video shows 70. */
const PIXELS = 2 ** 22, FRAME_PIXELS = 2 ** 18;

/** @param {string} where @param {string} url @param {AbortSignal} signal */
async function fetchPicture(where, url, signal) {
    let response;
    try {
        response = await fetch(url, {signal});
    } catch (error) {
        if (signal.aborted) throw new CaratError("aborted", "it was aborted");
        throw new CaratError("network", `${where}: ${url} cannot be fetched: ${
            /** @type {Error} */ (error).message}`);
    }
    if (!response.ok)
        throw new CaratError(response.status === 404 ? "not-found" : "network",
            `${where}: ${url}: the server answered ${response.status}`);
    return response.blob();
}

/** @param {string} where @param {Picture} image @param {AbortSignal} signal */
async function bitmapOf(where, image, signal) {
    if (image instanceof ImageBitmap) return image;
    const source = "url" in image ? await fetchPicture(where, image.url, signal) : image;
    try {
        return await createImageBitmap(source, {imageOrientation: "from-image"});
    } catch {
        throw new CaratError("format", `${where}: this picture cannot be decoded: it is damaged, ` +
            "too large, or in no format that this browser knows");
    }
}

/** @param {Uint8ClampedArray} rgba */
function withoutAlpha(rgba) {
    const rgb = new Uint8Array(rgba.length / 4 * 3);
    for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
        rgb[to] = rgba[from];
        rgb[to + 1] = rgba[from + 1];
        rgb[to + 2] = rgba[from + 2];
    }
    return rgb;
}

/** @param {ImageBitmap} bitmap @param {number} most pixels */
function draw(bitmap, most) {
    const scale = Math.min(1, Math.sqrt(most / (bitmap.width * bitmap.height)));
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    const context = new OffscreenCanvas(width, height).getContext("2d",
        {alpha: false, willReadFrequently: true});
    if (!context) throw new CaratError("memory", "there is no canvas to decode pictures in");
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    return {width, height, rgb: withoutAlpha(context.getImageData(0, 0, width, height).data)};
}

/** @param {(Image | Sound)[]} media @param {AbortSignal} signal @returns {Promise<Media[]>} */
export async function decodePictures(media, signal) {
    const all = [];
    for (const one of media) {
        if ("samples" in one) {
            all.push(one);
            continue;
        }
        const {where, image, time} = one;
        const bitmap = await bitmapOf(where, image, signal);
        all.push({...draw(bitmap, time === undefined ? PIXELS : FRAME_PIXELS), time});
        bitmap.close();
        if (signal.aborted) throw new CaratError("aborted", "it was aborted");
    }
    return all;
}
