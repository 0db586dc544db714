// camera: the dialog in which a picture is taken.
//
// Owns: the camera while the dialog is open. attachments.js asks for the picture.
// @ts-check

import {byId} from "../dom.js";
import {prepareDialog} from "./dialog.js";
import {notice} from "./notices.js";

const dialog = byId("camera");
const viewfinder = byId("viewfinder");
let prepared = false;

/** Only pages over https or from localhost may ask for one. */
export function hasCamera() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
}

/** @param {any} error @param {string} what */
export function deviceProblem(error, what) {
    if (error?.name === "NotAllowedError")
        return `This page may not use the ${what}: allow it in the browser, beside the address.`;
    if (error?.name === "NotFoundError") return `There is no ${what}.`;
    return `The ${what} cannot be used: another program may be using it.`;
}

async function shoot() {
    const canvas = document.createElement("canvas");
    canvas.width = viewfinder.videoWidth;
    canvas.height = viewfinder.videoHeight;
    if (!canvas.width) return null;
    canvas.getContext("2d")?.drawImage(viewfinder, 0, 0);
    const blob = /** @type {Blob | null} */ (await new Promise((done) =>
        canvas.toBlob(done, "image/jpeg", 0.92)));
    return blob && new File([blob], "Photograph.jpg", {type: "image/jpeg"});
}

/** @returns {Promise<File | null>} null: the user changed their mind */
export async function takePicture() {
    if (!prepared) prepareDialog(dialog);
    prepared = true;
    let stream;
    try {
        stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment",
            width: {ideal: 1920}, height: {ideal: 1440}}});
    } catch (error) {
        notice(deviceProblem(error, "camera"), {kind: "error"});
        return null;
    }
    viewfinder.srcObject = stream;
    dialog.showModal();
    const shutter = byId("shutter");
    shutter.focus();
    const file = await new Promise((done) => {
        const press = async () => {
            done(await shoot());
            dialog.close();
        };
        shutter.addEventListener("click", press);
        dialog.addEventListener("close", () => {
            shutter.removeEventListener("click", press);
            done(null);
        }, {once: true});
    });
    viewfinder.srcObject = null;
    for (const track of stream.getTracks()) track.stop();
    return file;
}
