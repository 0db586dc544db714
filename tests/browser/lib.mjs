// What every browser test uses: Chromium (one a file, started with the first test), and for each
// test a server with an origin of its own, a fresh context and a page whose console errors, page
// errors and policy violations make the test fail.
//
//     import { browserTest } from "./lib.mjs";
//     browserTest("nano answers", async ({ page, site, inCarat, until }) => {
//         const text = await inCarat(async ({ Carat }, url) => { ... return text; }, url);
//     }, { allow: [/expected console error/], routes: {"/x": (req, res) => ...} });
//
// Without a Chromium every test is skipped, and says so. See chromium.mjs for the device.

import { after, test } from "node:test";
import { launch, skipReason, until } from "./chromium.mjs";
import { startServer } from "./server.mjs";

export { skipReason, until } from "./chromium.mjs";
export { repository, sendFile, startServer, strictCsp, webRoot } from "./server.mjs";

let launched = null; // the promise of this file's browser

/** This file's browser. */
export function browser() {
    launched ??= launch();
    return launched;
}

after(async () => {
    if (launched) await (await launched).close();
});

// Chromium warns of a GPU command that is not valid; to us that is an error.
const gpuWarning = /WebGPU|GPUValidation|GPUInternal|\[Invalid |tint/i;

/** Notes what goes wrong in a page and its workers. */
function watch(page, problems) {
    page.on("console", (m) => {
        const bad = m.type() === "error" || (m.type() === "warning" && gpuWarning.test(m.text()));
        if (bad) problems.push(`console.${m.type()}: ${m.text()} (${m.location().url})`);
        else if (process.env.TEST_VERBOSE) console.log(`    page: ${m.text()}`);
    });
    page.on("pageerror", (e) => problems.push(`page error: ${e.stack ?? e}`));
    page.on("crash", () => problems.push("the page crashed"));
}

/**
 * Calls fn(module, argument) in the page, where module is /carat/carat.js, and gives what it
 * returns. argument and result travel as JSON. An error keeps its name and its code.
 */
async function inCarat(page, fn, argument) {
    const given = argument === undefined ? "undefined" : JSON.stringify(argument);
    const answer = await page.evaluate(`(async () => {
        const call = ${fn};
        try {
            return {value: await call(await import("/carat/carat.js"), ${given})};
        } catch (e) {
            return {error: {name: e.name, code: e.code, message: e.message, stack: e.stack}};
        }
    })()`);
    if (!answer.error) return answer.value;
    const error = Object.assign(new Error(answer.error.message), answer.error);
    error.stack = `${answer.error.name}: ${answer.error.message}\nin the page: ${error.stack}`;
    throw error;
}

/**
 * A test in the browser. body gets
 *   page       at /blank of a new origin, in a new context
 *   context    playwright's; newPage() opens a second, watched page ("tab") in it
 *   site       the server (server.mjs): origin, requests, routes, stop(), restart()
 *   inCarat    (fn, argument): see above; inCarat.on(page, fn, argument) for another page
 *   until      see above
 *   problems   what went wrong so far; anything that `allow` does not match fails the test
 *   t          node's test context
 *
 * @param {string} name
 * @param {(tools: any) => Promise<void>} body
 * @param {{allow?: RegExp[], routes?: Object<string, Function>, csp?: string | null, root?: string,
 *          seconds?: number, context?: object, path?: string, skip?: string | false}} options
 *        seconds: the whole test's limit (120); context: playwright's options of newContext();
 *        path: where the page goes first (/blank)
 */
export function browserTest(name, body, options = {}) {
    const { allow = [], routes, csp, root, seconds = 120, path = "/blank" } = options;
    const skip = skipReason || options.skip || false;
    test(name, { skip }, async (t) => {
        const site = await startServer({ root, routes, csp });
        const context = await (await until("Chromium to start", browser(), 60))
            .newContext(options.context);
        const problems = [];
        try {
            context.setDefaultTimeout(30000);
            context.on("page", (page) => watch(page, problems));
            const page = await context.newPage();
            await page.goto(site.origin + path);
            const call = (fn, argument) => inCarat(page, fn, argument);
            call.on = inCarat;
            const newPage = async (to = "/blank") => {
                const other = await context.newPage();
                await other.goto(site.origin + to);
                return other;
            };
            const tools = { page, context, site, inCarat: call, newPage, until, problems, t };
            await until(`the test "${name}" to end`, body(tools), seconds);
        } catch (e) {
            if (problems.length) console.error(`problems so far:\n  ${problems.join("\n  ")}`);
            throw e;
        } finally {
            await context.close().catch(() => {});
            await site.stop();
        }
        const all = [...problems, ...site.violations.map((v) => `policy: ${v}`)];
        const bad = all.filter((p) => !allow.some((a) => a.test(p)));
        if (bad.length) throw new Error(`the page reported problems:\n  ${bad.join("\n  ")}`);
    });
}
