// main: starts the app. index.html loads it; it wires the parts together and owns nothing else.
//
//     settings.js, history.js -> chat.js -> view/*        what is kept, what happens, what is seen
//     nano.js, downloads.js -> model.js -> chat.js        where models come from, who answers
//     adapters.js -> tune.js                              what it was taught, teaching it
// @ts-check

import {chat} from "./chat.js";
import {byId} from "./dom.js";
import {downloads} from "./downloads.js";
import {deviceName, model} from "./model.js";
import {settings} from "./settings.js";
import {registerServiceWorker} from "./sw-register.js";
import {tune} from "./tune.js";
import {startAdapters} from "./view/adapters.js";
import {startBar} from "./view/bar.js";
import {ask, focusComposer, startComposer} from "./view/composer.js";
import {openModels, startModels} from "./view/models.js";
import {notice} from "./view/notices.js";
import {openSettings, startSettings} from "./view/settings.js";
import {setDrawer, startSidebar} from "./view/sidebar.js";
import {showTab, startTabs} from "./view/tabs.js";
import {startThread} from "./view/thread.js";
import {startTune} from "./view/tune.js";

function startNew() {
    chat.startNew();
    showTab("chat");
    setDrawer(false);
    focusComposer();
}

/** @param {KeyboardEvent} e keys that work everywhere */
function key(e) {
    if ((e.ctrlKey || e.metaKey) && e.shiftKey && e.key.toLowerCase() === "o") {
        e.preventDefault();
        startNew();
    } else if (e.key === "Escape" && !document.querySelector("dialog[open]") && chat.busy) {
        chat.stop();
        focusComposer();
    }
}

/** Light or dark: the other one than what is seen now. */
function switchTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const {theme} = settings.values;
    const seen = theme === "auto" ? (dark ? "dark" : "light") : theme;
    settings.set({theme: seen === "dark" ? "light" : "dark"});
}

/** Says once why the CPU answers when nobody chose it. */
function explainDevice() {
    const {told, device} = settings.values;
    if (model.state !== "ready" || told || device === "cpu") return;
    const {kind} = model.carat.device;
    settings.set({told: kind !== "gpu"});
    if (kind === "cpu") {
        const why = "gpu" in navigator ? "No GPU is usable here" : "This browser has no WebGPU";
        notice(`${why}, so the CPU answers: enough for nano. Larger models want a current ` +
            "browser and a real GPU.");
    } else if (kind === "software") {
        notice(`${deviceName(model.carat.device)} is no real GPU: larger models will be slow.`);
    }
}

async function start() {
    startBar(openModels);
    startThread(ask, openModels);
    startComposer();
    startSidebar(startNew);
    startModels();
    startSettings();
    startAdapters();
    startTune();
    startTabs();
    byId("open-models").addEventListener("click", openModels);
    byId("open-settings").addEventListener("click", openSettings);
    byId("theme").addEventListener("click", switchTheme);
    addEventListener("keydown", key);
    addEventListener("beforeunload", (e) => {
        if (downloads.running() || tune.running) e.preventDefault();
    });
    model.addEventListener("notice", (/** @type {any} */ e) => notice(e.detail.text, e.detail));
    model.addEventListener("change", explainDevice);
    focusComposer();
    model.use(/** @type {any} */ (settings.values.model));
    await chat.open();
    registerServiceWorker();
}

start();
