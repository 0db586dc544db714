// What the app's tests share: asking and waiting, the stand-in for the engine, axe-core,
// screenshots (build/screenshots/).

import assert from "node:assert/strict";
import fs from "node:fs";
import { repository, sendFile } from "./lib.mjs";

const axe = `${repository}node_modules/axe-core/axe.min.js`;
const screenshots = `${repository}build/screenshots/`;

export const wide = { width: 1280, height: 800 };
export const phone = { width: 390, height: 844 };

/** Writes a question and sends it. */
export async function ask(page, text) {
    await page.fill("#ask", text);
    await page.press("#ask", "Enter");
}

/** Waits for the last answer to be over; gives its text. */
export async function answered(page) {
    await page.waitForFunction(() => {
        const last = document.querySelector("#thread .answer:last-child");
        return last && !last.classList.contains("live") && last.querySelector(".figures");
    });
    return lastAnswer(page).locator(".markdown:not(.thinking *)").first().innerText();
}

export function lastAnswer(page) {
    return page.locator("#thread .answer").last();
}

/** Waits until screen readers are told something. */
export function announced(page, text) {
    return page.waitForFunction((said) =>
        document.querySelector("#announcer").textContent === said, text);
}

/** Waits until the model is loaded. */
export function ready(page) {
    return page.waitForSelector("#model-button[data-state=ready]", { timeout: 60000 });
}

export async function screenshot(page, name) {
    fs.mkdirSync(screenshots, { recursive: true });
    await page.screenshot({ path: `${screenshots}${name}.png` });
}

/** Fails where axe-core finds something serious or critical in what is on screen. */
export async function accessible(page, what) {
    await page.evaluate(fs.readFileSync(axe, "utf8"));
    const found = await page.evaluate(() => globalThis.axe.run(document, {
        resultTypes: ["violations"],
    }));
    const bad = found.violations
        .filter((v) => ["serious", "critical"].includes(v.impact))
        .map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(" | ")}`);
    assert.deepEqual(bad, [], `axe-core on ${what}`);
}

/** Options of browserTest() for an app over fake_carat.mjs. */
export function faked(options = {}) {
    const file = `${repository}tests/browser/fake_carat.mjs`;
    const headers = { "content-type": "text/javascript; charset=utf-8" };
    return {
        ...options,
        routes: { "/carat/carat.js": (req, res) => sendFile(req, res, file, headers) },
        context: { serviceWorkers: "block", viewport: wide, ...options.context },
    };
}

/** Opens the app over the stand-in, which then behaves as planned. */
export async function openFaked(page, site, plan) {
    await page.addInitScript((given) => {
        globalThis.fake = given;
    }, plan);
    await page.goto(`${site.origin}/`);
    await ready(page);
}
