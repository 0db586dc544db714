// recorder: the strip that is shown in the composer while the microphone records.
//
// Owns: the microphone while it records, at most 30 s: as much as a model hears in one piece.
// attachments.js asks for the recording.
// @ts-check

import {announce, byId, el, fill} from "../dom.js";
import {clock} from "../format.js";
import {deviceProblem} from "./camera.js";
import {notice} from "./notices.js";

const strip = byId("recording");
const longest = 30; // seconds
const bars = 60;
let recording = false;

export function hasMicrophone() {
    return Boolean(navigator.mediaDevices?.getUserMedia) && "MediaRecorder" in globalThis;
}

export const isRecording = () => recording;

/** Draws how loud it was, the newest on the right, and says how long it is.
 * @param {MediaStream} stream @param {HTMLCanvasElement} canvas @param {(s: number) => void} tick
 * @returns {() => void} ends it */
function watch(stream, canvas, tick) {
    const audio = new AudioContext(), analyser = audio.createAnalyser();
    audio.createMediaStreamSource(stream).connect(analyser);
    const wave = new Float32Array(analyser.fftSize), levels = new Array(bars).fill(0);
    const context = canvas.getContext("2d"), start = performance.now();
    const timer = setInterval(() => {
        analyser.getFloatTimeDomainData(wave);
        const loudest = wave.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        levels.push(Math.min(1, Math.sqrt(loudest)));
        levels.shift();
        tick((performance.now() - start) / 1000);
        if (!context) return;
        const {width, height} = canvas, step = width / bars;
        context.clearRect(0, 0, width, height);
        context.fillStyle = getComputedStyle(canvas).color;
        levels.forEach((level, i) => {
            const h = Math.max(2, level * height);
            context.fillRect(i * step, (height - h) / 2, step / 2, h);
        });
    }, 100);
    return () => {
        clearInterval(timer);
        audio.close();
    };
}

/** @param {MediaStream} stream @param {Promise<boolean>} over whether it is wanted
 * @returns {Promise<File | null>} */
async function recordUntil(stream, over) {
    const recorder = new MediaRecorder(stream), pieces = /** @type {Blob[]} */ ([]);
    recorder.ondataavailable = ({data}) => pieces.push(data);
    const stopped = new Promise((done) => { recorder.onstop = done; });
    recorder.start();
    const wanted = await over;
    if (recorder.state !== "inactive") recorder.stop();
    await stopped;
    return wanted ? new File(pieces, "Recording", {type: "audio/webm"}) : null;
}

/** @returns {Promise<File | null>} null: the user changed their mind, or there is no microphone */
export async function record() {
    if (recording) return null;
    recording = true;
    let stream;
    try {
        stream = await navigator.mediaDevices.getUserMedia({audio: true});
    } catch (error) {
        recording = false;
        notice(deviceProblem(error, "microphone"), {kind: "error"});
        return null;
    }
    const time = el("span", {class: "time"}), canvas = el("canvas", {width: 360, height: 48,
        "aria-hidden": "true"});
    const done = el("button", {type: "button", class: "button primary small"}, "Done");
    const cancel = el("button", {type: "button", class: "button small"}, "Cancel");
    fill(strip, el("span", {class: "recording-dot", "aria-hidden": "true"}), time, canvas, cancel,
        done);
    strip.hidden = false;
    announce("Recording");
    done.focus();
    /** @type {() => void} */
    let unwatch = () => {};
    const over = /** @type {Promise<boolean>} */ (new Promise((end) => {
        done.addEventListener("click", () => end(true));
        cancel.addEventListener("click", () => end(false));
        stream.getTracks()[0].addEventListener("ended", () => end(true)); // it was unplugged
        unwatch = watch(stream, canvas, (seconds) => {
            fill(time, `${clock(Math.min(seconds, longest))} / ${clock(longest)}`);
            if (seconds >= longest) end(true);
        });
    }));
    try {
        return await recordUntil(stream, over);
    } catch (error) {
        notice(deviceProblem(error, "microphone"), {kind: "error"});
        return null;
    } finally {
        recording = false;
        unwatch();
        strip.hidden = true;
        for (const track of stream.getTracks()) track.stop();
    }
}
