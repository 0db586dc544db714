/* The package as npm sees it: one version everywhere, every file that it names is there, and the
 * codes of errors are those of carat.d.ts. */
import assert from "node:assert/strict";
import fs from "node:fs";
import {test} from "node:test";
import {Carat, CaratError} from "../../web/carat.js";
import {codes, jsonText} from "../../web/errors.js";

const read = (path) => fs.readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const own = JSON.parse(read("web/package.json"));
const types = read("web/carat.d.ts");

test("one version", () => {
    const [, version] = /CARAT_VERSION "(.*)"/.exec(read("include/carat.h"));
    assert.deepEqual([own.version, Carat.version, JSON.parse(read("package.json")).version],
        Array(3).fill(version));
});

test("what cannot be written as JSON is the caller's fault, and said in one line", () => {
    const circle = {};
    circle.self = circle;
    for (const value of [circle, {n: 1n}])
        assert.throws(() => jsonText("tools", value), (e) => {
            assert.ok(e instanceof CaratError && e.code === "argument");
            assert.match(e.message, /^tools: cannot be written as JSON \(.+\)$/);
            return true;
        });
    assert.deepEqual([jsonText("x", [1]), jsonText("x", null), jsonText("x", undefined)],
        ["[1]", null, null]);
});

test("no dependencies, and the files that it names", () => {
    assert.equal(own.dependencies, undefined);
    assert.deepEqual([own.name, own.type, own.license], ["carat", "module", "Apache-2.0"]);
    const named = Object.values(own.exports).flatMap((e) => typeof e === "string" ? [e]
        : Object.values(e));
    for (const file of new Set([...named, own.types, ...own.sideEffects])) {
        if (file.endsWith(".wasm")) continue; // made by make web
        assert.ok(fs.existsSync(new URL(`../../web/${file}`, import.meta.url)), file);
    }
});

test("every code that the core can give is a code of carat.d.ts", () => {
    const [, union] = /type CaratErrorCode =([^]*?)\n\n/.exec(types);
    const known = [...union.matchAll(/"([a-z-]+)"/g)].map((m) => m[1]);
    assert.ok(known.length >= 13);
    for (const code of codes.slice(1)) assert.ok(known.includes(code), code);
    const error = new CaratError("io", "x");
    assert.deepEqual([error.name, error.code, error instanceof Error], ["CaratError", "io", true]);
});
