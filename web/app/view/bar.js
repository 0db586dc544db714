// bar: the line above the conversation: which model answers, on which device.
//
// Owns: the model button and its words. model.js says what is going on.
// @ts-check

import {byId, el, fill} from "../dom.js";
import {percent} from "../format.js";
import {deviceName, model} from "../model.js";

const button = byId("model-button");

function show() {
    const {state, progress, name, carat} = model;
    const words = {
        loading: `loading${progress?.total ? ` ${percent(progress.done, progress.total)}` : ""}`,
        ready: carat ? deviceName(carat.device) : "",
        failed: "could not be loaded",
    }[state];
    button.dataset.state = state;
    button.title = `${name}: ${words}. Choose a model`;
    fill(button, el("span", {class: "dot", "aria-hidden": "true"}),
        el("span", {class: "model-name"}, name),
        el("span", {class: "model-device"}, words));
}

/** @param {() => void} openModels */
export function startBar(openModels) {
    button.addEventListener("click", openModels);
    model.addEventListener("change", show);
    show();
}
