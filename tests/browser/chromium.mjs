// Chromium for tests and benchmarks: which one, with which flags, and whether there is one.
//
// Runs on SwiftShader, a GPU in software; with TEST_GPU=real on the machine's own. Knows no tests:
// lib.mjs and bench.mjs use it.

import fs from "node:fs";
import { repository, webRoot } from "./server.mjs";

const programs = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome"];
const program = programs.find((p) => p && fs.existsSync(p));

const softwareFlags = ["--use-webgpu-adapter=swiftshader"];
const realFlags = ["--enable-features=Vulkan", "--use-angle=vulkan", "--ignore-gpu-blocklist"];
/* A camera and a microphone that need no devices and no questions. */
const mediaFlags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const launchFlags = ["--no-sandbox", "--enable-unsafe-webgpu", ...mediaFlags,
    ...(process.env.TEST_GPU === "real" ? realFlags : softwareFlags)];

/** Why there is nothing to test with, or false. */
function missing() {
    if (!program) return "NO CHROMIUM: tests in a browser are skipped";
    if (!fs.existsSync(`${repository}node_modules/playwright-core`))
        return "NO PLAYWRIGHT (npm ci): tests in a browser are skipped";
    if (!fs.existsSync(`${webRoot}/carat/carat.wasm`))
        return "NO build/web/ (make web): tests in a browser are skipped";
    return false;
}
export const skipReason = missing();

/** Starts a Chromium; the caller closes it. */
export async function launch() {
    const { chromium } = await import("playwright-core");
    return chromium.launch({ executablePath: program, headless: true, args: launchFlags });
}

/**
 * Waits for a promise, or for a function to give something truthy; after `seconds` it fails with a
 * message that names what was waited for.
 */
export async function until(what, waited, seconds = 30) {
    let timer;
    const late = new Promise((_, failed) => {
        timer = setTimeout(() => failed(new Error(`waited ${seconds} s for ${what}`)),
            seconds * 1000);
    });
    const done = { yet: false };
    const poll = async () => {
        for (;;) {
            const value = await waited();
            if (value || done.yet) return value;
            await new Promise((r) => setTimeout(r, 50));
        }
    };
    try {
        return await Promise.race([typeof waited === "function" ? poll() : waited, late]);
    } finally {
        done.yet = true;
        clearTimeout(timer);
    }
}
