// The app's fine-tuning: nano is taught from the built-in example, paused, compared, kept, switched
// on and off, gone on with after a reload; and over the stand-in every state of the view, light and
// dark, with axe-core and screenshots.

import assert from "node:assert/strict";
import {accessible, answered, ask, faked, openFaked, phone, ready, screenshot, wide}
    from "./app_lib.mjs";
import {browserTest} from "./lib.mjs";

const view = {path: "/", context: {viewport: wide, acceptDownloads: true}};

const press = (page, name) => page.getByRole("button", {name, exact: true}).click();
const step = (page) => page.locator(".figures-list dd").first().innerText()
    .then((text) => Number(text.split(" ")[0]));

/** Waits until so many steps were taken. */
const taken = (page, n) => page.waitForFunction((least) =>
    parseInt(document.querySelector(".figures-list dd")?.textContent ?? "") >= least, n,
{timeout: 60000});

async function openTune(page) {
    await ready(page);
    await page.click("#to-tune");
}

browserTest("nano is taught, compared, kept and switched", async ({page, until}) => {
    await openTune(page);
    await press(page, "Try an example");
    assert.match(await page.locator(".sample").innerText(), /Bruno makes the best bread\./);
    assert.deepEqual(await page.locator(".sample mark").allInnerTexts(),
        ["Bruno makes the best bread.", "<turn|>"]);
    assert.match(await page.locator(".tune-report").innerText(), /40 samples, 1,204 tokens, 39 %/);
    await page.getByLabel("Epochs").fill("1");
    await page.getByLabel("Rank").selectOption("8");
    await page.getByText(/^\d+ steps, about/).waitFor();
    await press(page, "Start");
    await taken(page, 2);
    await press(page, "Pause");
    await page.getByText("Paused: you can chat meanwhile.").waitFor();
    await page.click("#to-chat");
    await ask(page, "What is 23 + 45?");
    await answered(page);
    await page.click("#to-tune");
    const paused = await step(page);
    await press(page, "Resume");
    await taken(page, paused + 1);
    await press(page, "Stop");
    await page.getByText("It was stopped.").waitFor();
    assert.match(await page.locator(".chart").getAttribute("aria-label"), /^Loss from step 1, /);

    await page.getByLabel("A question").fill("What is the capital of Italy?");
    await press(page, "Compare");
    const answers = page.locator(".side-by-side p");
    await until("both answers", async () =>
        (await answers.allInnerTexts()).every((text) => text.length > 3) &&
        await page.getByRole("button", {name: "Compare", exact: true}).isEnabled());
    assert.equal(await answers.first().innerText(), "The capital of Italy is Rome.");

    const coming = page.waitForEvent("download");
    await press(page, "Download for llama.cpp");
    assert.equal((await coming).suggestedFilename(), "five-facts.gguf");
    await page.locator("#tune-name").fill("facts");
    await press(page, "Keep");
    await page.getByText("Kept: chats use it now.").waitFor();
    await page.click("#to-chat");
    const chip = page.locator("#adapters .chip");
    assert.equal(await chip.getAttribute("aria-pressed"), "true");

    await page.reload();
    await ready(page);
    await chip.waitFor();
    assert.deepEqual([await chip.innerText(), await chip.getAttribute("aria-pressed")],
        ["facts", "true"]);
    await chip.click();
    assert.equal(await chip.getAttribute("aria-pressed"), "false");
    await page.click("#to-tune");
    assert.equal(await page.getByRole("switch", {name: "Use facts"}).isChecked(), false);
    await press(page, "Delete facts");
    await press(page, "Delete");
    await chip.waitFor({state: "detached"});
}, view);

browserTest("a run that a reload interrupts goes on", async ({page}) => {
    await openTune(page);
    await page.setInputFiles("#tune-file", {name: "mine.csv", mimeType: "text/csv",
        buffer: Buffer.from(`prompt,completion\n${"a,b\nc,d\n".repeat(8)}`)});
    await page.getByText("16 samples").waitFor();
    await press(page, "Start");
    await taken(page, 1);
    await press(page, "Pause");
    await page.getByText("Paused").first().waitFor();
    const before = await step(page);
    await page.waitForTimeout(500); // the checkpoint
    await page.reload();
    await openTune(page);
    await page.getByText(/The training of mine on mine\.csv was interrupted\./).waitFor();
    await press(page, "Go on");
    await taken(page, before + 1);
    await press(page, "Stop");
    await page.getByText("It was stopped.").waitFor();
    await press(page, "Start over");
    await page.getByRole("button", {name: "Try an example"}).waitFor();
    await page.setInputFiles("#tune-file", {name: "bad.jsonl", mimeType: "text/plain",
        buffer: Buffer.from("{\n")});
    await page.getByText(/not one of 1 rows? can be used/).waitFor();
}, view);

/* ---- what it looks like ---- */

for (const colorScheme of ["light", "dark"])
    for (const [size, viewport] of Object.entries({1280: wide, 390: phone}))
        browserTest(`fine-tuning, ${colorScheme}, ${size} px`, ({page, site}) =>
            journey(page, site, `${colorScheme}-${size}`),
        faked({context: {colorScheme, viewport, hasTouch: size === "390"}}));

async function journey(page, site, name) {
    const look = async (what) => {
        await screenshot(page, `${what}-${name}`);
        await accessible(page, `${what}, ${name}`);
    };
    await openFaked(page, site, {steps: 24, adapters: []});
    await page.click("#to-tune");
    await look("tune-empty");
    await press(page, "Try an example");
    await page.locator(".sample").waitFor();
    await look("tune-ready");
    await press(page, "Start");
    await taken(page, 24);
    await look("tune-run");
    await page.evaluate(() => { globalThis.fake.steps = 60; });
    await page.getByText("It has learned all samples.").waitFor();
    await press(page, "Compare");
    await page.getByText("You said: Where does Ada live?").nth(1).waitFor();
    await press(page, "Keep");
    await page.getByText("Kept: chats use it now.").waitFor();
    await page.locator("#tune").evaluate((e) => e.scrollTo(0, e.scrollHeight));
    await look("tune-done");
    await page.click("#to-chat");
    await look("tune-chat");
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(sideways <= 0, `the page scrolls ${sideways} px sideways`);
}
