// 200 random JSON Schemas: what nano answers parses and is valid, whatever it would like to say.

import assert from "node:assert/strict";
import { browserTest } from "./lib.mjs";
import { user, withNano } from "./nano.mjs";
import { faults, randomBelow, randomSchema } from "./schemas.mjs";

browserTest("200 random schemas", async ({inCarat, t}) => {
    const below = randomBelow(2026);
    const schemas = Array.from({length: 200}, () => randomSchema(below));
    const answers = await withNano(inCarat, async (carat, {schemas, messages}) => {
        const all = [];
        for (const schema of schemas)
            all.push(await carat.chat({messages, seed: 1 + all.length, maxTokens: 400,
                responseFormat: {type: "json_schema", schema}}).result());
        return all.map(({text, finishReason}) => ({text, finishReason}));
    }, {schemas, messages: [user("Hello")]});
    for (const [i, {text, finishReason}] of answers.entries()) {
        const about = `${JSON.stringify(schemas[i])} gave ${text}`;
        assert.equal(finishReason, "stop", about);
        const wrong = faults(schemas[i], schemas[i], JSON.parse(text));
        assert.deepEqual(wrong, [], about);
    }
    t.diagnostic(`${answers.reduce((n, a) => n + a.text.length, 0)} characters`);
}, {seconds: 400});
