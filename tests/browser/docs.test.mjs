// The examples of docs/api.md run as they stand there, and print what their comments say.

import assert from "node:assert/strict";
import fs from "node:fs";
import {browserTest, repository} from "./lib.mjs";

const page = fs.readFileSync(`${repository}docs/api.md`, "utf8");
const examples = [...page.matchAll(/^### (.*)$|^```js\n([^]*?)^```$/gm)]
    .reduce((all, [, heading, code]) => {
        if (heading) return {...all, heading};
        return {...all, list: [...all.list, {heading: all.heading, code}]};
    }, {heading: "the first", list: []}).list;

assert.ok(examples.length >= 8, "docs/api.md has its examples");
for (const {heading, code} of examples) {
    const script = code.replace('from "carat"', 'from "/carat/carat.js"');
    const expected = [...code.matchAll(/\/\/ -> (.*)$/gm)].map((m) => m[1]);
    browserTest(`example: ${heading}`, async ({page}) => {
        const lines = [];
        page.on("console", (m) => lines.push(m.text()));
        await page.evaluate(() => import("/example.js"));
        for (const text of expected)
            assert.ok(lines.includes(text), `"${text}" is not among\n${lines.join("\n")}`);
    }, {routes: {"/example.js": (req, res) =>
        res.writeHead(200, {"content-type": "text/javascript"}).end(script)}});
}
