// sw-register: the service worker, which makes the app start without a network.
//
// Owns: its registration, and the quiet offer to reload when a new version waits. sw.js is the
// worker itself.
// @ts-check

import {notice} from "./view/notices.js";

let wanted = false; // whether this tab asked for the new version

/** @param {ServiceWorkerRegistration} registration */
function offer(registration) {
    const waiting = registration.waiting;
    if (!waiting || !navigator.serviceWorker.controller) return; // the first visit has no old one
    notice("A new version of carat is ready.", {action: "Reload", stays: true, act: () => {
        wanted = true;
        waiting.postMessage("take over");
    }});
}

export async function registerServiceWorker() {
    const workers = navigator.serviceWorker;
    if (!workers) return; // http without TLS, or a private window
    workers.addEventListener("controllerchange", () => {
        if (wanted) location.reload();
    });
    try {
        const registration = await workers.register(new URL("../sw.js", import.meta.url));
        registration.addEventListener("updatefound", () => {
            const worker = registration.installing;
            worker?.addEventListener("statechange", () => {
                if (worker.state === "installed") offer(registration);
            });
        });
        offer(registration);
        document.addEventListener("visibilitychange", () => {
            if (!document.hidden) registration.update().catch(() => {}); // offline
        });
    } catch {
        // Without it the app works as long as the server does.
    }
}
