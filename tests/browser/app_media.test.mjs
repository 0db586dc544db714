// Pictures, sounds and videos in the app: attached by button, drop, paste, camera and microphone,
// taken away again, asked about, kept, given on by retry and edit, exported; with nano where its
// answer matters, over the stand-in (fake_carat.mjs) where it does not.

import assert from "node:assert/strict";
import fs from "node:fs";
import { accessible, announced, answered, ask, faked, lastAnswer, openFaked, phone, ready,
    screenshot, wide } from "./app_lib.mjs";
import { browserTest, repository, strictCsp } from "./lib.mjs";

const golden = `${repository}tests/golden/nano/`;
const star = `${golden}shapes_0.png`, speech = `${golden}speech_3.wav`;
const view = { path: "/", context: { viewport: wide } };
const permissions = ["camera", "microphone"];
const attached = (page) => page.locator("#attached li");

async function greedy(page) {
    await page.addInitScript(() => localStorage.setItem("carat.settings",
        JSON.stringify({ temperature: 0, told: true, device: "cpu" })));
    await page.reload();
    await ready(page);
}

/** Drops or pastes files, as a browser would. */
function give(page, event, target, files) {
    return page.evaluate(({ event, target, files }) => {
        const data = new DataTransfer();
        for (const { name, type, base64 } of files) {
            const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type }));
        }
        const options = { bubbles: true, cancelable: true };
        const given = event === "paste"
            ? new ClipboardEvent("paste", { ...options, clipboardData: data })
            : new DragEvent(event, { ...options, dataTransfer: data });
        document.querySelector(target).dispatchEvent(given);
        return given.defaultPrevented;
    }, { event, target, files });
}

const file = (path, type, name = path.split("/").pop()) =>
    ({ name, type, base64: fs.readFileSync(path).toString("base64") });

/** The colour in the middle of a canvas. */
const middle = (canvas) => canvas.evaluate((c) => Array.from(c.getContext("2d")
    .getImageData(c.width / 2, c.height / 2, 1, 1).data));

// ---- with nano ----

browserTest("a picture is attached, seen, kept, and asked about again", async ({ page, until }) => {
    await greedy(page);
    await page.locator("#attach-file").setInputFiles(star);
    await attached(page).locator("canvas").waitFor();
    await announced(page, "shapes_0.png attached");
    await ask(page, "What shape is brown?");
    assert.equal(await attached(page).count(), 0);
    const shown = page.getByRole("img", { name: "Picture shapes_0.png" });
    await shown.waitFor();
    assert.equal(await answered(page), "The star is brown.");
    await screenshot(page, "picture-1280");
    await accessible(page, "a picture");
    await ask(page, "What is 23 + 45?");
    assert.equal(await answered(page), "23 + 45 = 68.");
    await page.reload();
    await ready(page);
    await page.getByRole("button", { name: "What shape is brown?", exact: true }).click();
    await until("the picture to be drawn", async () => (await shown.evaluate((c) => c.width)) > 9);
    assert.equal((await middle(shown))[3], 255);
    await page.getByRole("button", { name: "Answer again" }).first().click();
    assert.equal(await answered(page), "The star is brown.");
    const question = page.locator(".question");
    await question.hover();
    await question.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "Edit the message" }).fill("What is in the picture?");
    await page.keyboard.press("Enter");
    await answered(page);
    assert.equal(await question.count(), 1);
    assert.equal(await shown.count(), 1, "the edited question has the picture");
    const stored = () => page.evaluate(() => new Promise((done) => {
        const open = indexedDB.open("carat");
        open.onsuccess = () => {
            const all = open.result.transaction("media").objectStore("media").getAllKeys();
            all.onsuccess = () => {
                open.result.close();
                done(all.result.length);
            };
        };
    }));
    assert.equal(await stored(), 1);
    await page.locator(".row-item").first().hover();
    await page.getByRole("button", { name: /^Delete What shape/ }).click();
    await page.locator("#confirm").getByRole("button", { name: "Delete" }).click();
    await until("the picture to be deleted, too", async () => (await stored()) === 0);
}, view);

browserTest("a recording is dropped, heard and played", async ({ page, until }) => {
    await greedy(page);
    assert.ok(await give(page, "dragover", "#thread", [file(speech, "audio/wav")]));
    assert.equal(await page.locator("#drop-hint").isVisible(), true);
    await screenshot(page, "drop-1280");
    assert.ok(await give(page, "drop", "#main", [file(speech, "audio/wav")]));
    assert.equal(await page.locator("#drop-hint").isVisible(), false);
    await attached(page).getByRole("button", { name: "Play speech_3.wav" }).waitFor();
    await ask(page, "Write down what is said.");
    assert.equal(await answered(page), "goodbye");
    const question = page.locator(".question");
    assert.match(await question.innerText(), /speech_3\.wav\s+0:01/);
    await question.getByRole("button", { name: "Play speech_3.wav" }).click();
    await question.getByRole("button", { name: "Stop speech_3.wav" }).waitFor();
    await question.getByRole("button", { name: "Play speech_3.wav" }).waitFor(); // it is over
    await screenshot(page, "sound-1280");
    await accessible(page, "a sound");
}, view);

// ---- over the stand-in ----

browserTest("paste, remove, and a question without words", async ({ page, site, until }) => {
    await openFaked(page, site, {});
    const png = file(star, "image/png", "pasted.png");
    assert.ok(await give(page, "paste", "#ask", [png, file(speech, "audio/wav")]));
    await until("both to be attached", async () => (await attached(page).locator(
        "canvas, .sound:not(.quiet)").count()) === 2);
    await page.getByRole("button", { name: "Remove speech_3.wav" }).click();
    assert.equal(await attached(page).count(), 1);
    assert.equal(await page.evaluate(() => document.activeElement.ariaLabel), "Remove pasted.png");
    await page.keyboard.press("Enter");
    assert.equal(await attached(page).count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), "ask");
    assert.equal(await page.locator("#send").isDisabled(), true);
    await give(page, "paste", "#ask", [png]);
    await attached(page).locator("canvas").waitFor();
    await page.locator("#send").click();
    await answered(page);
    assert.equal(await page.locator(".question .bubble").isVisible(), false);
    assert.equal(await page.title(), "pasted.png - carat");
    const parts = await page.evaluate(() => globalThis.fake.asked[0].content
        .map((p) => [p.type, p.image instanceof Blob]));
    assert.deepEqual(parts, [["image", true]]);
}, faked());

browserTest("what is no picture, what is too much, and what the model has no sense for",
    async ({ page, site }) => {
        await openFaked(page, site, { vision: false, audio: true });
        const problem = page.locator(".notice.error").last();
        const zip = { name: "cat.wav", type: "audio/wav", base64: btoa("PK no sound") };
        const say = async (files, text) => {
            await give(page, "drop", "#main", files);
            await page.locator(".notice.error", { hasText: text }).first().waitFor();
        };
        await say([file(star, "image/png")], /cannot see pictures: choose a model that can\.$/);
        await say([zip], "cat.wav is no sound that this browser can read.");
        await say([{ name: "a.zip", type: "", base64: "" }], /a\.zip is no picture, sound, video/);
        assert.equal(await attached(page).count(), 0);
        assert.equal(await page.getByRole("button", { name: "Take a picture" }).count(), 0);
        assert.equal(await page.getByRole("button", { name: "Record", exact: true }).count(), 1);
        assert.equal(await page.locator("#attach-file").getAttribute("accept"), "audio/*");
        await problem.waitFor();
        await page.evaluate(() => document.querySelectorAll(".notice button").forEach((b) =>
            b.click()));
        await give(page, "drop", "#main", Array(11).fill(file(speech, "audio/wav")));
        await page.getByText("At most 10 things can be attached to one question.").waitFor();
        assert.equal(await attached(page).count(), 10);
    }, faked());

browserTest("a model without encoders: nothing is offered", async ({ page, site }) => {
    await openFaked(page, site, { vision: false, audio: false });
    assert.equal(await page.locator("#attach-buttons").isVisible(), false);
    await give(page, "paste", "#ask", [file(star, "image/png")]);
    await page.getByText("cannot see pictures: choose a model that can.").waitFor();
}, faked());

browserTest("the camera takes a picture", async ({ page, site, until }) => {
    await openFaked(page, site, {});
    await page.getByRole("button", { name: "Take a picture" }).click();
    await until("the camera", () => page.evaluate(() =>
        document.querySelector("#viewfinder").videoWidth > 0));
    await screenshot(page, "camera-1280");
    await accessible(page, "the camera");
    await page.getByRole("button", { name: "Take the picture" }).click();
    const photograph = attached(page).getByRole("img", { name: "Picture Photograph.jpg" });
    await until("the photograph", async () => (await photograph.evaluate((c) => c.width)) > 9);
    const colours = await photograph.evaluate((c) => new Set(c.getContext("2d")
        .getImageData(0, 0, c.width, c.height).data).size);
    assert.ok(colours > 5, "the photograph shows something");
    assert.equal(await page.evaluate(() => document.querySelector("#viewfinder").srcObject), null);
    await page.getByRole("button", { name: "Take a picture" }).click();
    await page.locator("#camera[open]").waitFor();
    await page.keyboard.press("Escape");
    assert.equal(await attached(page).count(), 1);
    await until("the field to have the focus", () => page.evaluate(() =>
        document.activeElement.id === "ask"));
}, faked({ context: { permissions } }));

browserTest("the microphone records, shows it, and stops", async ({ page, site, until }) => {
    await openFaked(page, site, {});
    await page.getByRole("button", { name: "Record", exact: true }).click();
    await announced(page, "Recording");
    await page.getByText("0:01 / 0:30").waitFor();
    await until("a level", () => page.evaluate(() => {
        const canvas = document.querySelector("#recording canvas");
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, 20).data.some((v) => v);
    }));
    await page.fill("#ask", "What is it?");
    assert.equal(await page.locator("#send").isDisabled(), true, "not while it records");
    await screenshot(page, "recording-1280");
    await accessible(page, "recording");
    await page.getByRole("button", { name: "Done" }).click();
    await attached(page).getByRole("button", { name: "Play Recording" }).waitFor();
    assert.equal(await page.locator("#recording").isVisible(), false);
    await page.getByRole("button", { name: "Record", exact: true }).click();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.locator("#recording").waitFor({ state: "hidden" });
    assert.equal(await attached(page).count(), 1);
    await page.locator("#send").click();
    await answered(page);
    const parts = await page.evaluate(() => globalThis.fake.asked[0].content
        .map((p) => [p.type, p.audio?.size > 500]));
    assert.deepEqual(parts, [["audio", true], ["text", false]]);
}, faked({ context: { permissions } }));

browserTest("no microphone: a sentence says so", async ({ page, site }) => {
    await page.addInitScript(() => {
        navigator.mediaDevices.getUserMedia = async () => {
            throw new DOMException("no", "NotFoundError");
        };
    });
    await openFaked(page, site, {});
    await page.getByRole("button", { name: "Record", exact: true }).click();
    await page.getByText("There is no microphone.").waitFor();
    await page.getByRole("button", { name: "Take a picture" }).click();
    await page.getByText("There is no camera.").waitFor();
}, faked());

browserTest("encoding is shown while it goes on", async ({ page, site }) => {
    await openFaked(page, site, { encode: 60, delay: 30 });
    await give(page, "paste", "#ask", [file(star, "image/png")]);
    await attached(page).locator("canvas").waitFor();
    await ask(page, "What is it?");
    await page.getByText(/^Looking: \d+ %$/).waitFor();
    await answered(page);
}, faked());

browserTest("how closely pictures are looked at is a setting", async ({ page }) => {
    await greedy(page);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("Pictures").selectOption("At a glance");
    await page.keyboard.press("Escape");
    await give(page, "paste", "#ask", [file(star, "image/png")]);
    await attached(page).locator("canvas").waitFor();
    await ask(page, "What shape is brown?");
    assert.equal(await answered(page), "The star is brown.");
    await page.getByRole("button", { name: "Settings" }).click();
    assert.equal(await page.getByLabel("Pictures").inputValue(), "70");
    await page.getByLabel("Pictures").selectOption("As usual");
    const kept = await page.evaluate(() => JSON.parse(localStorage.getItem("carat.settings")));
    assert.equal(kept.imageTokens, null);
    await accessible(page, "settings");
    await screenshot(page, "settings-media-1280");
}, view);

browserTest("export and import bring pictures along", async ({ page, site, until }) => {
    await page.addInitScript(() => {
        globalThis.saved = "";
        globalThis.showSaveFilePicker = async () => ({ createWritable: async () => ({
            write: async (text) => { globalThis.saved = text; }, close: async () => {} }) });
    });
    await openFaked(page, site, {});
    await give(page, "paste", "#ask", [file(star, "image/png")]);
    await attached(page).locator("canvas").waitFor();
    await ask(page, "Look");
    await answered(page);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Export as JSON" }).click();
    const text = await until("the file", () => page.evaluate(() => globalThis.saved));
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Delete all" }).click();
    await page.locator("#confirm").getByRole("button", { name: "Delete all" }).click();
    await page.getByText("All conversations are deleted.").waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.locator("#import-file").setInputFiles({ name: "c.json",
        mimeType: "application/json", buffer: Buffer.from(text) });
    await page.getByText("Imported 1 conversation.").waitFor();
    await page.getByRole("button", { name: "Look", exact: true }).click();
    const shown = page.getByRole("img", { name: "Picture shapes_0.png" });
    await until("the picture", async () => (await shown.evaluate((c) => c.width)) > 9);
    await page.getByRole("button", { name: "Answer again" }).click();
    await answered(page);
    const size = await page.evaluate(() => globalThis.fake.asked[0].content[0].image.size);
    assert.equal(size, fs.statSync(star).size);
}, faked());

browserTest("a video becomes frames", async ({ page, site }) => {
    await openFaked(page, site, {});
    await page.locator("#attach-file").setInputFiles({ name: "clip.webm", mimeType: "video/webm",
        buffer: Buffer.from("frames are the stand-in's") });
    await attached(page).getByRole("img", { name: "Video clip.webm, 0:04" }).waitFor();
    await ask(page, "What happens?");
    await answered(page);
    const [type, frames, times] = await page.evaluate(() => {
        const [{ type, video }] = globalThis.fake.asked[0].content;
        return [type, video.frames.every((f) => f instanceof Blob), video.times];
    });
    assert.deepEqual([type, frames, times], ["video", true, [0, 2]]);
}, { ...faked(), csp: `${strictCsp}; media-src 'self' blob:` });

browserTest("a model that is dropped is loaded, with its second file, not attached",
    async ({ page, site, until }) => {
        await openFaked(page, site, {});
        const empty = (name) => ({ name, type: "", base64: "" });
        await give(page, "drop", "#main", [empty("mmproj-E4B.gguf"), empty("gemma-E4B.gguf")]);
        await until("the model", async () =>
            /^gemma-E4B/.test(await page.locator("#model-button").innerText()));
        assert.equal(await attached(page).count(), 0);
        assert.equal(await page.locator(".notice").count(), 0);
        assert.equal(await page.evaluate(() => globalThis.fake.projector), "mmproj-E4B.gguf");
    }, faked());

// ---- how it looks ----

for (const [size, viewport] of Object.entries({ 1280: wide, 390: phone }))
    browserTest(`views with media, ${size} px`, async ({ page, site, until }) => {
        await openFaked(page, site, { answers: {} });
        await give(page, "paste", "#ask", [file(star, "image/png"),
            file(`${golden}gradient.png`, "image/png"), file(`${golden}tall.png`, "image/png"),
            file(speech, "audio/wav", "A recording with a long name, as phones make them.wav")]);
        await until("all to be attached", async () => (await attached(page).locator(
            "canvas, .sound:not(.quiet)").count()) === 4);
        await page.fill("#ask", "What is to be seen here, and what is said?");
        await screenshot(page, `attached-${size}`);
        await accessible(page, `attached, ${size}`);
        await page.press("#ask", "Enter");
        await answered(page);
        await until("the pictures", async () => (await page.locator(".question canvas").last()
            .evaluate((c) => c.width)) > 9);
        const shapes = await page.locator(".question canvas").evaluateAll((all) => all.map((c) =>
            c.clientWidth / c.clientHeight / (c.width / c.height)));
        assert.ok(shapes.every((r) => Math.abs(r - 1) < 0.05), `drawn out of shape: ${shapes}`);
        await page.mouse.move(5, 5);
        await screenshot(page, `media-${size}`);
        await accessible(page, `media, ${size}`);
        assert.ok(await lastAnswer(page).isVisible());
        const sideways = await page.evaluate(() =>
            document.documentElement.scrollWidth - innerWidth);
        assert.ok(sideways <= 0, `the page scrolls ${sideways} px sideways`);
        await page.getByRole("button", { name: "Record", exact: true }).click();
        await page.getByText("0:01 / 0:30").waitFor();
        await screenshot(page, `recording-${size}`);
        await page.getByRole("button", { name: "Cancel" }).click();
    }, faked({ context: { viewport, permissions, hasTouch: size === "390",
        colorScheme: size === "390" ? "dark" : "light" } }));
