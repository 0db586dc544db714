// medium: a picture, a sound or a video on screen, in the composer and in a question.
//
// Owns: their elements, and what is playing. The page's policy allows no blob: addresses, so
// pictures are drawn into canvas elements and sounds are played through Web Audio. The bytes are
// media.js's.
// @ts-check

import {el, fill, icon} from "../dom.js";
import {clock} from "../format.js";
import {dataOf} from "../media.js";

/** @typedef {import("../tree.js").Medium} Medium */

const longestSide = 640; // of a drawing, in its own pixels

/* ---- pictures ---- */

/** @param {HTMLCanvasElement} canvas @param {Blob} blob */
async function draw(canvas, blob) {
    const bitmap = await createImageBitmap(blob);
    const scale = Math.min(1, longestSide / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    if (context) context.imageSmoothingQuality = "high";
    context?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
}

/** @param {Medium} medium a picture, or a video: its first frame */
function picture(medium) {
    const video = medium.kind === "video", length = clock(medium.seconds ?? 0);
    const canvas = el("canvas", {width: 1, height: 1, role: "img",
        "aria-label": video ? `Video ${medium.name}, ${length}` : `Picture ${medium.name}`});
    const figure = el("div", {class: "picture", title: medium.name}, canvas,
        video && el("span", {class: "badge", "aria-hidden": "true"}, icon("play"), length));
    dataOf(medium.id).then((data) => {
        const blob = data?.blob ?? data?.frames?.[0];
        return blob ? draw(canvas, blob) : Promise.reject();
    }).catch(() => fill(figure, el("span", {class: "quiet"}, `${medium.name} is not stored here`)));
    return figure;
}

/* ---- sounds ---- */

/** @type {AudioContext | null} */
let context = null;
/** @type {{id: string, source: AudioBufferSourceNode} | null} */
let playing = null;

function stop() {
    playing?.source.stop();
    playing = null;
}

/** @param {string} id @param {() => void} ended */
async function play(id, ended) {
    stop();
    const data = await dataOf(id);
    if (!data?.blob) return ended();
    context ??= new AudioContext();
    await context.resume();
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(await data.blob.arrayBuffer());
    source.connect(context.destination);
    source.onended = () => {
        if (playing?.source === source) playing = null;
        ended();
    };
    playing = {id, source};
    source.start();
}

/** @param {Medium} medium */
function sound(medium) {
    const button = el("button", {type: "button", class: "icon-button"});
    const show = (/** @type {boolean} */ on) => {
        const label = `${on ? "Stop" : "Play"} ${medium.name}`;
        button.setAttribute("aria-label", label);
        button.title = label;
        fill(button, icon(on ? "stop" : "play"));
    };
    button.addEventListener("click", () => {
        if (playing?.id === medium.id) return stop();
        show(true);
        play(medium.id, () => show(false)).catch(() => show(false));
    });
    show(false);
    return el("div", {class: "sound"}, button, el("span", {class: "sound-name"}, medium.name),
        el("span", {class: "quiet"}, clock(medium.seconds ?? 0)));
}

/** @param {Medium} medium */
export function mediumElement(medium) {
    return medium.kind === "audio" ? sound(medium) : picture(medium);
}
