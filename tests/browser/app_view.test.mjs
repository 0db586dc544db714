// What the app shows, over a stand-in for the engine (fake_carat.mjs) that says what a test wants:
// Markdown and attacks in it, code, failures, downloads, files of conversations; axe-core and
// screenshots of every view, light and dark.

import assert from "node:assert/strict";
import { accessible, announced, answered, ask, faked, lastAnswer, openFaked, phone, screenshot,
    wide } from "./app_lib.mjs";
import { browserTest } from "./lib.mjs";

const prose = `Here is a **prime sieve**, with its cost:

\`\`\`python
def primes(limit):
    sieve = bytearray([1]) * limit
    for n in range(2, int(limit ** 0.5) + 1):
        if sieve[n]:
            sieve[n * n::n] = bytes(len(range(n * n, limit, n)))  # crosses out every multiple of n
    return [n for n in range(2, limit) if sieve[n]]
\`\`\`

### How it works

1. Start with all numbers marked as *prime*.
2. For each \`n\` that is still marked, cross out its multiples.

| limit | primes |
|---|--:|
| 1,000 | 168 |

> The cost is O(n log log n). See [Wikipedia](https://en.wikipedia.org/wiki/Sieve).`;

const code = prose.split("```")[1].replace("python\n", "").trimEnd();
const asked = "Write a sieve";
const answers = {
    [asked]: [{ type: "thinking", text: "A *sieve* is simplest." }, { type: "text", text: prose }],
    fail: [{ type: "text", text: "It begins" },
        { error: { code: "memory", message: "out of device memory" } }],
};
const models = [
    { name: "gemma-4-e2b-it-Q4_K_M.gguf", bytes: 3.1e9, size: 3.1e9, complete: true },
    { name: "gemma-4-12b-it-Q4_K_M.gguf", bytes: 1e9, size: 4e9, complete: false,
        url: "https://models.example/12b.gguf" },
];

/* ---- what a model writes ---- */

const attacks = [
    "<script>globalThis.hit = 1</script>",
    "<img src=x onerror=\"globalThis.hit = 2\">",
    "<svg onload=\"globalThis.hit = 3\"></svg>",
    "[link](javascript:globalThis.hit=4) [data](data:text/html,x) <javascript:alert(5)>",
    "![picture](https://tracker.example/pixel.png)",
    "<a href=\"https://a.example\" onclick=\"globalThis.hit = 6\">x</a>",
    "<iframe src=\"https://a.example\"></iframe><form action=\"https://a.example\"><input></form>",
    "<style>body { display: none }</style>",
    "<br onclick=alert(1)><details open ontoggle=\"globalThis.hit = 7\">",
    "`<script>globalThis.hit = 8</script>`\n\n```<img src=x onerror=hit=9>\n<b>code</b>\n```",
    "| <img src=x onerror=hit=10> |\n|---|\n| <b onmouseover=hit=11>b</b> |",
    "[ref]\n\n[ref]: javascript:globalThis.hit=12 \"<script>\"",
    "<math><mtext></form><form><mglyph><style></math><img src=x onerror=hit=13>",
];

browserTest("attacks in an answer stay text", async ({ page, site }) => {
    const text = attacks.join("\n\n");
    const name = "<img src=x onerror=hit=20>";
    await openFaked(page, site, { answers: { [name]: [{ type: "text", text },
        { type: "thinking", text }, { type: "toolCall",
            toolCall: { id: "1", name: "<b onclick=hit=21>", arguments: { "<i>": "<u>" } } }] },
    models: [{ name, bytes: 1, size: 1, complete: true, url: null }],
    device: { name: "<img src=x>", kind: "gpu", backend: "", features: [] } });
    await ask(page, name);
    await page.waitForFunction(() => !document.querySelector(".live"));
    await page.locator("#model-button").click();
    await page.getByRole("button", { name: `Use ${name}` }).click();
    await page.waitForTimeout(200);
    const seen = await page.evaluate(() => ({
        hit: globalThis.hit ?? null,
        tags: [...document.querySelectorAll("#thread *")].map((e) => e.localName),
        sources: document.querySelectorAll("#thread [src], #thread [style], img").length,
        handlers: [...document.querySelectorAll("#thread *, #conversations *, #models *")]
            .filter((e) => e.getAttributeNames().some((n) => n.startsWith("on"))).length,
        links: [...document.querySelectorAll("#thread a[href]")].map((a) => a.href),
        text: document.querySelector("#thread").innerText,
    }));
    assert.equal(seen.hit, null);
    assert.equal(seen.handlers, 0);
    assert.equal(seen.sources, 0);
    for (const tag of ["script", "img", "iframe", "form", "input", "style", "object", "math"])
        assert.ok(!seen.tags.includes(tag), `<${tag}> in the answer`);
    assert.deepEqual(seen.links.filter((href) => !href.startsWith("https:")), []);
    for (const shown of ["<script>globalThis.hit = 1</script>", "<iframe", "[picture: picture]",
        "onerror=hit=20"])
        assert.ok(seen.text.includes(shown), `${shown} is not shown as text`);
}, faked());

browserTest("Markdown is drawn as it comes, and only its end again", async ({ page, site }) => {
    await openFaked(page, site, { answers, delay: 4 });
    await page.evaluate(() => {
        globalThis.headings = new Set();
        new MutationObserver(() => {
            for (const h of document.querySelectorAll(".markdown h2, .markdown h3, .markdown h4"))
                globalThis.headings.add(h.textContent);
        }).observe(document.querySelector("#thread"), { childList: true, subtree: true });
    });
    await ask(page, asked);
    await page.locator(".code").waitFor();
    await page.evaluate(() => { globalThis.first = document.querySelector(".code"); });
    await answered(page);
    assert.equal(await page.evaluate(() => globalThis.first.isConnected), true);
    assert.equal(await page.locator(".code code").innerText(), code.trim());
    assert.equal(await page.locator(".language").innerText(), "python");
    assert.equal(await lastAnswer(page).locator("td").last().innerText(), "168");
    const link = lastAnswer(page).getByRole("link");
    assert.equal(await link.getAttribute("target"), "_blank");
    assert.match(await link.getAttribute("rel"), /noopener/);
    const headings = await page.evaluate(() => [...globalThis.headings]);
    assert.ok(headings.every((h) => "How it works".startsWith(h)), `headings: ${headings}`);
}, faked());

browserTest("code and answers are copied", async ({ page, site, until }) => {
    await openFaked(page, site, { answers });
    await ask(page, asked);
    await answered(page);
    const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
    await page.getByRole("button", { name: "Copy the code" }).click();
    await until("the code", async () => (await clipboard()) === code.trim());
    await announced(page, "Code copied");
    await lastAnswer(page).getByRole("button", { name: "Copy", exact: true }).click();
    await until("the answer", async () => (await clipboard()) === prose);
}, faked({ context: { permissions: ["clipboard-read", "clipboard-write"] } }));

/* ---- by keyboard ---- */

browserTest("everything by keyboard", async ({ page, site }) => {
    const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ??
        (document.activeElement.id || document.activeElement.textContent.trim()));
    await openFaked(page, site, { answers: { long: [{ type: "text", text: "word ".repeat(9999) }] },
        delay: 5 });
    assert.equal(await focused(), "ask");
    await page.keyboard.type("one");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("two");
    await page.keyboard.press("Enter");
    assert.equal(await answered(page), "You said: one two");
    assert.equal(await page.locator(".question .bubble").innerText(), "one\ntwo");
    await page.keyboard.press("ArrowUp"); // edits the last question
    assert.equal(await focused(), "Edit the message");
    await page.keyboard.press("Escape");
    assert.equal(await focused(), "Edit");
    await page.focus("#ask");
    await page.keyboard.type("long");
    await page.keyboard.press("Enter");
    await page.waitForTimeout(300);
    await page.keyboard.press("Escape");
    await answered(page);
    assert.match(await lastAnswer(page).innerText(), /Stopped\./);
    await announced(page, "Stopped");
    await page.keyboard.press("Control+Shift+O");
    assert.equal(await focused(), "ask");
    await page.focus("#open-settings");
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#settings").isVisible(), true);
    await page.keyboard.press("Escape");
    assert.equal(await focused(), "open-settings");
}, faked());

/* ---- models ---- */

browserTest("a download: progress, pause, resume, use", async ({ page, site, until }) => {
    await openFaked(page, site, { models, step: 5e7 });
    await page.locator("#model-button").click();
    await page.getByRole("button", { name: "Resume gemma-4-12b-it-Q4_K_M.gguf" }).click();
    const elsewhere = page.getByRole("button", { name: "Delete gemma-4-e2b-it-Q4_K_M.gguf" });
    await elsewhere.focus();
    await page.getByText(/[23]\.\d GB of 4\.0 GB · 52\.0 MB\/s · \d+ s left/).waitFor();
    assert.equal(await elsewhere.evaluate((e) => e === document.activeElement), true,
        "progress takes the focus away");
    await page.getByRole("button", { name: "Pause gemma-4-12b-it-Q4_K_M.gguf" }).click();
    await page.getByText("not complete").waitFor();
    await page.evaluate(() => { globalThis.fake.step = 2e9; });
    await page.getByRole("button", { name: "Resume gemma-4-12b-it-Q4_K_M.gguf" }).click();
    await page.getByText("gemma-4-12b-it-Q4_K_M.gguf is stored on this device.").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Use it" }).click();
    await until("the new model", async () =>
        /^gemma-4-12b/.test(await page.locator("#model-button").innerText()));
}, faked());

browserTest("failures are one sentence with what to do", async ({ page, site }) => {
    await openFaked(page, site, { answers, models, fail: {
        load: { code: "format", message: "gemma.gguf: tensor 3 lies beyond the end" },
        download: { code: "quota", message: "the browser's storage is full" },
    } });
    await ask(page, "fail");
    await answered(page);
    assert.equal(await lastAnswer(page).locator(".problem").innerText(), "Out of device memory. " +
        "Choose a smaller model or a shorter context in the settings.");
    await page.locator("#model-button").click();
    await page.getByRole("button", { name: "Resume gemma-4-12b-it-Q4_K_M.gguf" }).click();
    await page.getByText(/was not downloaded: The browser's storage is full\. Delete/).first()
        .waitFor();
    await page.getByRole("button", { name: "Use gemma-4-e2b-it-Q4_K_M.gguf" }).click();
    await page.getByText(/tensor 3 lies beyond the end\. Get the file again.*nano answers instead/)
        .waitFor();
    await page.evaluate(() => globalThis.fake.notice("the GPU was lost and is back"));
    await page.getByText("The GPU was lost and is back.").waitFor();
    assert.equal(await page.locator("#model-button .model-name").innerText(), "nano");
}, faked());

browserTest("an engine that stopped is replaced", async ({ page, site, until }) => {
    await openFaked(page, site, { answers: {
        broken: [{ error: { code: "internal", message: "carat stopped: unreachable" } }] } });
    await ask(page, "broken");
    await answered(page);
    assert.equal(await lastAnswer(page).locator(".problem").innerText(),
        "Carat stopped: unreachable. The model is loaded again; then try again.");
    await until("another engine", () => page.evaluate(() => globalThis.fake.loads === 2));
    await ask(page, "again");
    assert.equal(await answered(page), "You said: again");
}, faked());

browserTest("long names of tools and long words stay within the page", async ({ page, site }) => {
    const long = "word".repeat(100);
    await openFaked(page, site, { answers: { [long]: [
        { type: "thinking", text: long }, { type: "text", text: `${long} \`${long}\`` },
        { type: "toolCall", toolCall: { id: "1", name: long, arguments: { [long]: long } } },
    ], tool: [{ type: "text", text: "Done" }] } });
    await ask(page, long);
    await page.locator(".answer p", { hasText: "Done" }).waitFor();
    await page.locator(".thinking summary").first().click();
    await page.locator(".call summary").click();
    const [inner, outer] = await page.locator("#scroller")
        .evaluate((e) => [e.scrollWidth, e.clientWidth]);
    assert.equal(inner, outer);
}, faked({ context: { viewport: phone } }));

browserTest("without WebGPU the CPU answers, and it is said", async ({ page, site }) => {
    await page.addInitScript(() => delete Navigator.prototype.gpu);
    const device = { name: "CPU", kind: "cpu", backend: "", features: [] };
    await openFaked(page, site, { device });
    await page.getByText(/^This browser has no WebGPU, so the CPU answers/).waitFor();
    assert.equal(await page.locator(".model-device").innerText(), "CPU");
    await page.reload();
    await page.waitForSelector("[data-state=ready]");
    assert.equal(await page.locator(".notice").count(), 0, "it is said once");
}, faked());

/* ---- files of conversations ---- */

browserTest("export and import", async ({ page, site, until }) => {
    await page.addInitScript(() => {
        globalThis.saved = "";
        globalThis.showSaveFilePicker = async () => ({ createWritable: async () => ({
            write: async (text) => { globalThis.saved = text; }, close: async () => {} }) });
    });
    await openFaked(page, site, { answers });
    await ask(page, "Hello");
    await answered(page);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Export as JSON" }).click();
    const text = await until("the file", () => page.evaluate(() => globalThis.saved));
    const give = async (content) => {
        await page.getByRole("button", { name: "Settings" }).click();
        await page.locator("#import-file").setInputFiles({ name: "c.json",
            mimeType: "application/json", buffer: Buffer.from(content) });
    };
    await give(text.replaceAll("Hello", "Imported <b>"));
    await page.getByText("Imported 1 conversation.").waitFor();
    const titles = page.locator("#conversations .conversation");
    assert.deepEqual((await titles.allInnerTexts()).sort(), ["Hello", "Imported <b>"]);
    await page.getByRole("button", { name: "Imported <b>", exact: true }).click();
    assert.match(await page.locator("#thread").innerText(), /You said: Imported <b>/);
    await give("{");
    await page.getByText("This file is not JSON: choose one that carat exported.").waitFor();
    await give(text.replace(/"parent": "[^"]*"/, '"parent": "elsewhere"'));
    await page.getByText("This file holds a conversation that is damaged.").waitFor();
    assert.equal(await titles.count(), 2);
}, faked());

/* ---- every view, light and dark, wide and narrow ---- */

const sizes = { 1280: wide, 390: phone };
for (const colorScheme of ["light", "dark"])
    for (const [size, viewport] of Object.entries(sizes))
        browserTest(`views, ${colorScheme}, ${size} px`, ({ page, site }) =>
            journey(page, site, `${colorScheme}-${size}`),
        faked({ context: { colorScheme, viewport, hasTouch: size === "390" } }));

async function journey(page, site, name) {
    const look = async (what) => {
        await screenshot(page, `${what}-${name}`);
        await accessible(page, `${what}, ${name}`);
    };
    await openFaked(page, site, { answers, models, ollama: [{ name: "gemma4:e4b", size: 5.2e9 }] });
    await look("empty");
    await page.evaluate(() => { globalThis.fake.delay = 15; });
    await ask(page, asked);
    await page.locator(".code").waitFor();
    await look("mid-answer");
    await page.evaluate(() => { globalThis.fake.delay = 0; });
    await answered(page);
    await page.locator(".thinking summary").click();
    await look("answer");
    await ask(page, "fail");
    await answered(page);
    await look("failed");
    await page.focus("#ask");
    await page.keyboard.press("ArrowUp");
    await look("edit");
    await page.keyboard.press("Escape");
    await page.evaluate(() => globalThis.fake.notice("the GPU was lost and is back"));
    await page.locator("#model-button").click();
    await page.getByRole("button", { name: /^Resume/ }).click();
    await page.getByText("s left").waitFor();
    await look("models");
    await page.keyboard.press("Escape");
    await page.evaluate(() => document.querySelector("#open-settings").click());
    await look("settings");
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(sideways <= 0, `the page scrolls ${sideways} px sideways`);
}
