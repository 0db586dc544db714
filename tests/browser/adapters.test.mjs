// LoRA adapters in the package, on nano: each way to give one, what it changes, two at once, other
// models' adapters, and their way into files and the private file system and back.

import assert from "node:assert/strict";
import fs from "node:fs";
import {browserTest, repository, sendFile} from "./lib.mjs";
import {withNano} from "./nano.mjs";

const folder = `${repository}tests/golden/nano/adapter/`;
const weights = fs.readFileSync(`${folder}adapter_model.safetensors`);

/** The same weights under another shape, as another model's would have it. */
function ofAnotherModel() {
    const size = Number(weights.readBigUInt64LE(0));
    const header = JSON.parse(weights.subarray(8, 8 + size).toString());
    const name = Object.keys(header).find((key) => /layers\.2\.mlp\.up_proj\.lora_A/.test(key));
    const [rank, n] = header[name].shape;
    header[name].shape = [rank / 2, 2 * n];
    const text = Buffer.from(JSON.stringify(header).padEnd(size));
    return Buffer.concat([weights.subarray(0, 8), text, weights.subarray(8 + size)]);
}

const routes = {
    "/lora/*": (req, res, url) => sendFile(req, res, folder + url.pathname.slice(6)),
    "/other/adapter_config.json": (req, res) =>
        sendFile(req, res, `${folder}adapter_config.json`),
    "/other/adapter_model.safetensors": (req, res) => void res.end(ofAnotherModel()),
};

/** In the page: log-probabilities of what nano is not sure of, under the adapters in use. */
const ask = `const ask = async (carat) => {
    const {logprobs, usage} = await carat.generate("Lamps and xylophones", {temperature: 0,
        maxTokens: 6, logprobs: true}).result();
    return {logprobs: logprobs.map((t) => t.logprob), cached: usage.cachedTokens};
};
const files = () => Promise.all(["adapter_model.safetensors", "adapter_config.json"].map(
    async (name) => new File([await (await fetch("/lora/" + name)).blob()], name)));`;

const inNano = (inCarat, body) =>
    withNano(inCarat, `async (carat, _, module) => { ${ask}\n${body} }`);

/** @param {number[]} a @param {number[]} b */
const distance = (a, b) => Math.max(...a.map((x, i) => Math.abs(x - b[i])));

browserTest("an adapter changes what nano says, and only while it is set", async ({inCarat}) => {
    const r = await inNano(inCarat, `
        const plain = await ask(carat);
        const adapter = await carat.loadAdapter("/lora/");
        const opened = await ask(carat);
        await carat.setAdapters([adapter]);
        const adapted = await ask(carat), again = await ask(carat);
        const another = await carat.loadAdapter(await files(), {name: "twin"});
        await carat.setAdapters([{adapter, scale: 0.5}, {adapter: another, scale: 0.5}]);
        const halves = await ask(carat);
        await carat.setAdapters([{adapter, scale: 2}]);
        const twice = await ask(carat);
        await another.close();
        await adapter.close();
        const closed = await carat.setAdapters([adapter]).catch((e) => [e.code, e.message]);
        await carat.setAdapters([]);
        const without = await ask(carat);
        return {plain, opened, adapted, again, halves, twice, without, closed,
            names: [adapter.name, another.name], info: adapter.info};`);
    assert.deepEqual(r.names, ["lora", "twin"]);
    assert.deepEqual(r.info, {rank: 8, alpha: 16, rslora: false,
        targets: ["q", "k", "v", "o", "gate", "up", "down"], firstLayer: 0, layers: 10,
        parameters: r.info.parameters});
    assert.ok(r.info.parameters > 1e5);
    assert.deepEqual(r.opened.logprobs, r.plain.logprobs);
    assert.ok(distance(r.adapted.logprobs, r.plain.logprobs) > 0.1, "nothing changed");
    assert.equal(r.adapted.cached, 0, "what was computed without it was used");
    assert.ok(r.again.cached > 0);
    assert.deepEqual(r.again.logprobs, r.adapted.logprobs);
    assert.ok(distance(r.halves.logprobs, r.adapted.logprobs) < 1e-4, "two halves are one");
    assert.ok(distance(r.twice.logprobs, r.adapted.logprobs) > 0.1, "the scale says nothing");
    assert.deepEqual(r.without.logprobs, r.plain.logprobs);
    assert.deepEqual(r.closed, ["argument", "the adapter was closed"]);
}, {routes});

browserTest("as files, as GGUF, stored: it stays the same", async ({inCarat, page}) => {
    const r = await inNano(inCarat, `
        const logprobs = [], names = [];
        const use = async (adapter) => {
            await carat.setAdapters([adapter]);
            logprobs.push((await ask(carat)).logprobs);
            return adapter;
        };
        const first = await use(await carat.loadAdapter("/lora/adapter_model.safetensors"));
        const peft = await first.export("peft"), gguf = await first.export();
        for (const file of [...peft, ...gguf]) names.push(file.name);
        await use(await carat.loadAdapter(peft));
        await use(await carat.loadAdapter(gguf[0]));
        await use(await carat.loadAdapter(await gguf[0].arrayBuffer()));
        await first.save("bold & bright");
        return {logprobs, names, config: JSON.parse(await peft[1].text())};`);
    for (const logprobs of r.logprobs) assert.deepEqual(logprobs, r.logprobs[0]);
    assert.deepEqual(r.names, ["adapter_model.safetensors", "adapter_config.json", "lora.gguf"]);
    assert.deepEqual([r.config.r, r.config.lora_alpha, r.config.peft_type], [8, 16, "LORA"]);

    await page.reload();
    const later = await inNano(inCarat, `
        const list = await module.Carat.adapters.list();
        const adapter = await carat.loadAdapter({opfs: "bold & bright"});
        await carat.setAdapters([adapter]);
        const {logprobs} = await ask(carat);
        await module.Carat.adapters.delete("bold & bright");
        return {names: list.map((a) => a.name), bytes: list[0].bytes, name: adapter.name, logprobs,
            left: await module.Carat.adapters.list(),
            gone: await carat.loadAdapter({opfs: "bold & bright"}).catch((e) => [e.code,
                e.message])};`);
    assert.deepEqual([later.names, later.name], [["bold & bright"], "bold & bright"]);
    assert.ok(later.bytes > 1e6);
    assert.deepEqual(later.logprobs, r.logprobs[0]);
    assert.deepEqual(later.left, []);
    assert.deepEqual(later.gone, ["not-found", 'there is no adapter "bold & bright"']);
}, {routes});

browserTest("what is no adapter of this model is refused in a sentence", async ({inCarat}) => {
    const r = await inNano(inCarat, `
        const tell = (promise) => promise.then(() => "", (e) => e.code + ": " + e.message);
        const [file, config] = await files();
        const adapter = await carat.loadAdapter([config, file]);
        const second = await module.Carat.load("/models/nano.gguf",
            {device: "cpu", store: false, contextLength: 512});
        const all = [
            carat.loadAdapter("/other/"), carat.loadAdapter("/none/"), carat.loadAdapter(file),
            carat.loadAdapter([config]), carat.loadAdapter(new Blob(["GGUF"])),
            carat.loadAdapter("/models/nano.gguf"), carat.loadAdapter({path: "x"}),
            carat.loadAdapter(file, {nmae: "x"}), carat.setAdapters([{adapter, scale: NaN}]),
            carat.setAdapters(adapter), second.setAdapters([adapter]),
            carat.setAdapters(Array(17).fill(adapter)), adapter.export("onnx"),
        ].map(tell);
        const said = await Promise.all(all);
        await second.close();
        return said;`);
    const expected = [/^format: .*layers\.2\.mlp\.up_proj/, /^not-found: .*404/,
        /^not-found: .*adapter_config\.json/, /^argument: .*adapter_model/, /^format|^io/,
        /^(format|unsupported): /, /^argument: an adapter's source/,
        /^argument: .*no option nmae/, /^argument: .*scale/, /^argument: .*list/,
        /^argument: .*this model's/, /^argument: adapters: 17 at once/, /^argument: export/];
    for (const [i, text] of r.entries()) {
        assert.match(text, expected[i]);
        assert.ok(!text.includes("\n"), text);
    }
    assert.equal(r.length, expected.length);
}, {routes, allow: [/404/]});
