// precache: the last step of `make web`. Fills the list of files and their hashes into the service
// worker, and writes app/version.js, so that an app that was visited once starts without a network.
//
//     node tools/precache.mjs build/web

import {createHash} from "node:crypto";
import fs from "node:fs";
import path from "node:path";

const root = process.argv[2];
if (!root || !fs.existsSync(path.join(root, "sw.js"))) {
    console.error("usage: precache.mjs DIR, which holds sw.js");
    process.exit(1);
}

const sha256 = (file) => createHash("sha256").update(fs.readFileSync(file)).digest("hex");

/** What the app needs to start; models are kept elsewhere, the rest is not the app. */
function needed(name) {
    return !/^(models|bench)\/|^sw\.js$|\.d\.ts$|package\.json$|\.md$|LICENSE|\.map$/.test(name);
}

function files(folder = "") {
    const entries = fs.readdirSync(path.join(root, folder), {withFileTypes: true});
    return entries.flatMap((e) => {
        const name = folder ? `${folder}/${e.name}` : e.name;
        return e.isDirectory() ? files(name) : [name];
    });
}

function replace(text, mark, value) {
    const parts = text.split(mark);
    if (parts.length !== 2) throw new Error(`sw.js does not hold ${mark} once`);
    return parts.join(value);
}

const nano = sha256(path.join(root, "models/nano.gguf")).slice(0, 16);
const hashes = (names) => names.filter(needed).sort()
    .map((name) => [name, sha256(path.join(root, name))]);

const versionFile = "app/version.js";
const others = hashes(files().filter((name) => name !== versionFile));
const version = createHash("sha256").update(JSON.stringify([others, nano])).digest("hex");
fs.writeFileSync(path.join(root, versionFile), "// version: written by tools/precache.mjs\n" +
    `export const version = "${version.slice(0, 8)}";\nexport const nano = "${nano}";\n`);

const worker = path.join(root, "sw.js");
let text = fs.readFileSync(worker, "utf8");
text = replace(text, "/* path, sha256 */ []", JSON.stringify(hashes(files()), null, 1));
text = replace(text, "/* name of nano's cache */ \"\"", `"carat-nano-${nano}"`);
fs.writeFileSync(worker, text);
