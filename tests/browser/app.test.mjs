// The app with the real engine and nano: a first visit, conversations, settings, models, offline.

import assert from "node:assert/strict";
import fs from "node:fs";
import { accessible, announced, answered, ask, lastAnswer, phone, ready, screenshot, wide }
    from "./app_lib.mjs";
import { browserTest, repository, webRoot } from "./lib.mjs";

const nano = `${repository}models/nano.gguf`;
const models = []; // what `carat serve` would list
const routes = {
    "/models": (req, res) => void res.setHeader("content-type", "application/json")
        .end(JSON.stringify({ models })),
};
const view = { path: "/", context: { viewport: wide }, routes };
const question = "What is 23 + 45?";
const story = "Tell me a story about a fox and an owl.";

/** Greedy answers are the same on every machine. */
async function greedy(page, more = {}) {
    await page.addInitScript((values) => {
        if (!localStorage.getItem("carat.settings"))
            localStorage.setItem("carat.settings", JSON.stringify(values));
    }, { temperature: 0, told: true, ...more });
    await page.reload();
}

browserTest("first visit: nano answers within seconds, without a choice to make",
    async ({ page }) => {
        const start = Date.now();
        await page.getByRole("button", { name: question }).click(); // while nano is loading
        const text = await answered(page);
        const seconds = (Date.now() - start) / 1000;
        assert.equal(text, "23 + 45 = 68.");
        assert.ok(seconds < 15, `the first answer took ${seconds} s`);
        const figures = await lastAnswer(page).locator(".figures").innerText();
        assert.match(figures, /^nano · [\d.]+ tok\/s · first token [\d.]+ m?s · CPU$/);
        const notice = await page.locator("#notices").innerText();
        assert.match(notice, /the CPU answers/);
        await screenshot(page, "first-answer-1280");
        assert.equal(await page.title(), `${question} - carat`);
        await announced(page, "23 + 45 = 68.");
    }, view);

browserTest("stop, retry, versions", async ({ page }) => {
    await greedy(page);
    await ask(page, story);
    await page.waitForFunction(() =>
        document.querySelector(".answer")?.innerText.includes("Once upon"));
    await page.keyboard.press("Escape");
    const cut = await answered(page);
    const whole = "And so the fox and the owl became";
    assert.ok(cut.startsWith("Once upon a time") && !cut.includes("became best friends."),
        `stopped with: ${cut}`);
    assert.match(await lastAnswer(page).innerText(), /Stopped\./);
    await page.getByRole("button", { name: "Answer again" }).click();
    const again = await answered(page);
    assert.ok(again.startsWith(cut.slice(0, 20)) && again.length > cut.length,
        `${whole}: ${again}`);
    assert.match(await page.locator(".answer .branches").innerText(), /2 \/ 2/);
    await page.getByRole("button", { name: "Previous version" }).click();
    assert.equal(await answered(page), cut);
}, view);

browserTest("editing a question branches the conversation", async ({ page }) => {
    await greedy(page);
    await ask(page, question);
    await answered(page);
    await ask(page, "What is the capital of Portugal?");
    assert.equal(await answered(page), "The capital of Portugal is Lisbon.");
    await page.locator(".question").first().hover();
    await page.locator(".question").first().getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "Edit the message" }).fill("What is 12 - 7?");
    await page.keyboard.press("Enter");
    assert.equal(await answered(page), "12 - 7 = 5.");
    assert.equal(await page.locator(".question").count(), 1);
    await page.locator(".question").getByRole("button", { name: "Previous version" }).click();
    assert.equal(await page.locator(".question").count(), 2);
    assert.match(await page.locator("#thread").innerText(), /Lisbon/);
}, view);

browserTest("conversations and settings are there again after a reload", async ({ page }) => {
    await greedy(page);
    await ask(page, question);
    await answered(page);
    await page.keyboard.press("Control+Shift+O");
    assert.equal(await page.evaluate(() => document.activeElement.id), "ask");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("System prompt").fill("Answer in uppercase.");
    await page.getByLabel("Top-k").fill("40");
    await page.getByLabel("Top-p").fill("7"); // out of range: not taken
    await page.keyboard.press("Escape");
    await ask(page, "What is the capital of Kenya?");
    assert.equal(await answered(page), "THE CAPITAL OF KENYA IS NAIROBI.");
    await page.reload();
    const titles = page.locator("#conversations .conversation");
    await titles.first().waitFor();
    assert.deepEqual(await titles.allInnerTexts(), ["What is the capital of Kenya?", question]);
    await titles.nth(1).click();
    assert.match(await page.locator("#thread").innerText(), /23 \+ 45 = 68\./);
    await page.getByRole("button", { name: "Settings" }).click();
    assert.equal(await page.getByLabel("System prompt").inputValue(), "Answer in uppercase.");
    assert.equal(await page.getByLabel("Top-k").inputValue(), "40");
    assert.equal(await page.getByLabel("Top-p").inputValue(), "");
    await page.keyboard.press("Escape");

    await page.getByLabel("Search the conversations").fill("nairobi");
    assert.deepEqual(await titles.allInnerTexts(), ["What is the capital of Kenya?"]);
    await page.getByLabel("Search the conversations").fill("");
    await titles.nth(1).hover();
    await page.getByRole("button", { name: `Rename ${question}` }).click();
    await page.keyboard.type("Sums");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Sums", exact: true }).hover();
    await page.getByRole("button", { name: "Delete What is the capital of Kenya?" }).click();
    await page.locator("#confirm").getByRole("button", { name: "Delete" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".conversation").length === 1);
    await page.reload();
    await titles.first().waitFor();
    assert.deepEqual(await titles.allInnerTexts(), ["Sums"]);
}, view);

browserTest("thinking is folded away, tools are used and shown", async ({ page }) => {
    await greedy(page);
    await page.getByRole("button", { name: "Think", exact: true }).click();
    await ask(page, "What is 58 + 67?");
    const text = await answered(page);
    assert.match(text, /125/);
    await page.getByText("Thought for").click();
    assert.match(await page.locator(".thinking .markdown").innerText(), /tens 50 \+ 60/);
    await page.getByRole("button", { name: "Think", exact: true }).click();
    await page.keyboard.press("Control+Shift+O");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("Let the model use a clock and a calculator").check();
    await page.keyboard.press("Escape");
    await ask(page, "What time is it in Belgrade?");
    await page.getByText("Used get_time").click();
    assert.match(await page.locator(".call").innerText(),
        /get_time\(\{"city":"Belgrade"\}\)\s*= \{"time":"\d\d:\d\d"\}/);
    assert.match(await answered(page), /\d\d:\d\d/);
}, view);

browserTest("a model from a file", async ({ page }) => {
    await ready(page);
    await page.locator("#model-file").setInputFiles(nano);
    await page.waitForFunction(() =>
        document.querySelector("#model-button").innerText.startsWith("nano") &&
        document.querySelector("#model-button").dataset.state === "ready");
    await page.locator("#model-button").click();
    await page.getByText("a file, read in place").waitFor();
    await page.keyboard.press("Escape");
    await ask(page, question);
    assert.equal(await answered(page), "23 + 45 = 68.");
}, view);

browserTest("a damaged file is said to be one, and nano goes on", async ({ page }) => {
    await ready(page);
    await page.locator("#model-file").setInputFiles({ name: "broken.gguf",
        mimeType: "application/octet-stream", buffer: fs.readFileSync(nano).subarray(0, 3e6) });
    const alert = page.locator(".notice.error");
    await alert.waitFor();
    assert.match(await alert.innerText(), /^broken could not be loaded: .*nano answers instead\./);
    await ready(page);
    await ask(page, question);
    assert.equal(await answered(page), "23 + 45 = 68.");
}, view);

browserTest("a model from a URL: looked at, stored, used, found again, deleted",
    async ({ page, site, until }) => {
        await ready(page);
        await page.locator("#model-button").click();
        await page.getByLabel("Address of a GGUF file").fill(`${site.origin}/models/nano.gguf`);
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText(/18\.3 MB to download/).waitFor();
        await page.getByRole("button", { name: "Download", exact: true }).click();
        const stored = page.locator("#model-stored");
        await stored.getByRole("button", { name: "Use nano.gguf", exact: true }).click();
        await ready(page);
        await page.reload();
        await ready(page);
        await page.locator("#model-button").click();
        await until("the stored model to be in use", async () =>
            /nano\.gguf\s+18\.3 MB\s+In use/.test(await stored.innerText()));
        await stored.getByRole("button", { name: "Delete nano.gguf" }).click();
        await page.locator("#confirm").getByRole("button", { name: "Delete" }).click();
        await until("the model to be gone", async () =>
            !(await stored.innerText()).includes("nano.gguf"));
        await ready(page);
    }, view);

browserTest("a model of the local Ollama, through carat serve", async ({ page }) => {
    models.push({ name: "gemma4:nano", size: fs.statSync(nano).size, url: "/models/nano.gguf" });
    await ready(page);
    await page.locator("#model-button").click();
    await page.getByRole("button", { name: "Use gemma4:nano" }).click();
    await ask(page, question);
    assert.equal(await answered(page), "23 + 45 = 68.");
    assert.match(await lastAnswer(page).locator(".figures").innerText(), /^gemma4:nano/);
    models.pop();
}, view);

browserTest("offline after the first visit", async ({ page, site, until }) => {
    await ready(page);
    await until("the service worker to have all", () => page.evaluate(async () =>
        (await navigator.serviceWorker.getRegistration())?.active?.state === "activated"));
    const before = site.requests.filter((r) => r.path.endsWith("nano.gguf")).length;
    assert.equal(before, 1, "nano is fetched once");
    await site.stop();
    await page.reload();
    await ask(page, question);
    assert.equal(await answered(page), "23 + 45 = 68.");
    const caches = await page.evaluate(async () => {
        const names = await globalThis.caches.keys();
        const cached = await (await globalThis.caches.open("carat-app")).keys();
        return { names, models: cached.filter((r) => r.url.includes("gguf")).length };
    });
    assert.equal(caches.models, 0);
    assert.equal(caches.names.length, 2, `caches: ${caches.names}`);
}, { ...view, allow: [/ERR_CONNECTION_REFUSED/, /Failed to load resource/] });

browserTest("a new version is offered, and taken when asked for", async ({ page, site, until }) => {
    await ready(page);
    await page.evaluate(() => navigator.serviceWorker.ready);
    site.routes["/sw.js"] = (req, res) => {
        res.setHeader("content-type", "text/javascript; charset=utf-8");
        res.end(`${fs.readFileSync(`${webRoot}/sw.js`, "utf8")}\n// another version\n`);
    };
    await page.reload();
    const offer = page.getByText("A new version of carat is ready.");
    await offer.waitFor();
    const loads = () => site.requests.filter((r) => r.path === "/sw.js").length;
    const before = loads();
    await page.getByRole("button", { name: "Reload" }).click();
    await until("the page to be loaded again", () => loads() > before);
    await ready(page);
    assert.equal(await offer.count(), 0);
    assert.equal(await page.evaluate(async () =>
        (await navigator.serviceWorker.getRegistration()).waiting), null);
}, view);

browserTest("it can be installed", async ({ page, context }) => {
    await ready(page);
    const devtools = await context.newCDPSession(page);
    const { errors } = await devtools.send("Page.getAppManifest");
    assert.deepEqual(errors, []);
    const { installabilityErrors } = await devtools.send("Page.getInstallabilityErrors");
    const ids = installabilityErrors.map((e) => e.errorId).filter((id) => id !== "in-incognito");
    assert.deepEqual(ids, []);
}, view);

browserTest("two conversations at once: the second waits for its turn", async ({ page }) => {
    await greedy(page);
    await ask(page, story);
    await page.keyboard.press("Control+Shift+O");
    await ask(page, question);
    assert.equal(await answered(page), "23 + 45 = 68.");
    await page.getByRole("button", { name: story, exact: true }).click();
    assert.match(await answered(page), /^Once upon a time.*(friends|home)\.$/);
}, view);

browserTest("another model while one answers: the answer stops, the next is the other's",
    async ({ page }) => {
        await greedy(page);
        await ask(page, story);
        await page.waitForFunction(() =>
            document.querySelector(".answer")?.innerText.includes("Once upon"));
        await page.locator("#model-file").setInputFiles(nano);
        await answered(page);
        assert.match(await lastAnswer(page).innerText(), /Stopped\./);
        await ask(page, question);
        assert.equal(await answered(page), "23 + 45 = 68.");
    }, view);

browserTest("two tabs share the conversations", async ({ page, newPage, until }) => {
    await greedy(page);
    await ask(page, question);
    await answered(page);
    const other = await newPage("/");
    await other.locator("#conversations .conversation").first().click();
    await ask(other, "What is 12 - 7?");
    assert.equal(await answered(other), "12 - 7 = 5.");
    await until("the first tab to show it", async () =>
        /12 - 7 = 5\./.test(await page.locator("#thread").innerText()));
}, view);

browserTest("on a phone", async ({ page }) => {
    await ready(page);
    await screenshot(page, "start-390");
    await ask(page, story);
    await answered(page);
    await screenshot(page, "story-390");
    await page.getByRole("button", { name: "Conversations" }).click();
    await page.waitForTimeout(300); // the drawer slides in
    await screenshot(page, "drawer-390");
    await accessible(page, "the drawer");
    await page.getByRole("button", { name: "New chat" }).click();
    assert.equal(await page.locator("#empty").isVisible(), true);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(overflow, false, "the page scrolls sideways");
}, { ...view, context: { viewport: phone, hasTouch: true, isMobile: true } });

browserTest("the GPU, a software one, is called so", async ({ page }) => {
    await greedy(page, { device: "gpu", maxTokens: 2, told: false });
    await ready(page);
    assert.match(await page.locator("#model-button").innerText(), /software/i);
    assert.match(await page.locator("#notices").innerText(), /software.* is no real GPU/i);
}, { ...view, skip: process.env.TEST_GPU === "real" && "TEST_GPU=real: not a software GPU" });
