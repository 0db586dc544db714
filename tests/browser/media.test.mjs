// Pictures, sounds and videos given to the package, on nano and the engine's CPU: the golden
// answers, every shape in which a page may have them, what is decoded and computed again, and what
// is no picture and no sound.

import assert from "node:assert/strict";
import fs from "node:fs";
import {browserTest, repository, sendFile, strictCsp} from "./lib.mjs";
import {onCpu, user, withNano} from "./nano.mjs";

const folder = `${repository}tests/golden/nano/`;
const read = (name) => JSON.parse(fs.readFileSync(`${folder}${name}.json`, "utf8"));
const plain = (text) => text.replace("<turn|>", "");
const pictures = read("vision").map(({file, question, budgets}) =>
    ({file, question, want: plain(budgets["70"].greedy_text),
        tokens: budgets["70"].ids.length}));
const sounds = read("audio").map((c) => ({...c, want: plain(c.greedy_text), tokens: c.ids.length}));
const star = pictures[0], said = sounds[0];
const routes = {"/golden/*": (req, res, url) =>
    sendFile(req, res, folder + url.pathname.slice("/golden/".length))};
const base64 = (file) => fs.readFileSync(folder + file).toString("base64");

// ---- golden answers ----

browserTest("golden pictures at 70 soft tokens", async ({inCarat}) => {
    const answers = await withNano(inCarat, async (carat, list) => {
        const all = [];
        for (const {file, question} of list) {
            const image = await (await fetch(`/golden/${file}`)).blob();
            const messages = [{role: "user",
                content: [{type: "image", image}, {type: "text", text: question}]}];
            const options = {messages, imageTokens: 70};
            const {text, usage} = await carat.chat({...options, temperature: 0}).result();
            all.push([text, usage.promptTokens, await carat.countTokens(options)]);
        }
        return all;
    }, pictures);
    assert.equal(answers.length, 10);
    for (const [i, answer] of answers.entries()) {
        const {file, want, tokens} = pictures[i];
        assert.deepEqual(answer, [want, tokens, tokens], file);
    }
}, {routes});

browserTest("golden recordings, and one of another rate", async ({inCarat}) => {
    const files = [...sounds, {...sounds[1], file: "speech_5_44k_stereo.wav"}];
    const answers = await withNano(inCarat, async (carat, list) => {
        const all = [];
        for (const {file, question} of list) {
            const audio = await (await fetch(`/golden/${file}`)).blob();
            const messages = [{role: "user",
                content: [{type: "audio", audio}, {type: "text", text: question}]}];
            const {text, usage} = await carat.chat({messages, temperature: 0}).result();
            all.push([text, usage.promptTokens, await carat.countTokens({messages})]);
        }
        return all;
    }, files);
    assert.equal(answers.length, 6);
    for (const [i, [text, tokens, counted]] of answers.entries()) {
        assert.equal(text, files[i].want, files[i].file);
        assert.deepEqual([tokens, counted], [files[i].tokens, files[i].tokens], files[i].file);
    }
}, {routes});

// ---- shapes ----

browserTest("every shape of a picture, a sound and a video", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, {star, said, png}) => {
        const ask = async (part, question) => (await carat.chat({messages: [{role: "user",
            content: [part, {type: "text", text: question}]}], imageTokens: 70,
            temperature: 0}).result()).text;
        const see = (image) => ask({type: "image", image}, star.question);
        const hear = (part) => ask({type: "audio", ...part}, said.question);
        const blob = await (await fetch(`/golden/${star.file}`)).blob();
        const bitmap = await createImageBitmap(blob);
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d");
        context.drawImage(bitmap, 0, 0);
        const data = context.getImageData(0, 0, bitmap.width, bitmap.height);
        const wav = await (await fetch(`/golden/${said.file}`)).blob();
        const buffer = await new OfflineAudioContext(1, 1, 48000)
            .decodeAudioData(await wav.arrayBuffer());
        const samples = new Float32Array(await new OfflineAudioContext(1, 1, 16000)
            .decodeAudioData(await wav.arrayBuffer()).then((b) => b.getChannelData(0)));
        const stereo = new Float32Array(2 * samples.length);
        samples.forEach((x, i) => stereo.fill(x, 2 * i, 2 * i + 2));
        const seen = {
            blob: await see(blob), bitmap: await see(bitmap), data: await see(data),
            again: await see(bitmap), // it was not taken away
            url: await see(`/golden/${star.file}`),
            object: await see(new URL(`/golden/${star.file}`, location.href)),
            inline: await see(`data:image/png;base64,${png}`),
        };
        const heard = {blob: await hear({audio: wav}), buffer: await hear({audio: buffer}),
            samples: await hear({audio: samples, sampleRate: 16000}),
            stereo: await hear({audio: stereo, sampleRate: 16000, channels: 2})};
        const frames = {frames: [blob, bitmap, data], times: [0, 61, 122.7]};
        const video = [{role: "user", content: [{type: "video", video: frames}]}];
        const one = [{role: "user", content: [{type: "image", image: blob}]}];
        return {seen, heard, video: await carat.countTokens({messages: video}),
            one: await carat.countTokens({messages: one, imageTokens: 70}),
            stamps: await Promise.all(["00:00 ", " 01:01 ", " 02:02 "]
                .map(async (s) => (await carat.tokenize(s)).length)),
            model: [carat.model.vision, carat.model.audio, carat.model.encoderBytes > 1e6],
            spoken: (await carat.chat({messages: video, maxTokens: 3}).result()).text};
    }, {star, said, png: base64(star.file)});
    for (const [shape, text] of Object.entries(r.seen)) assert.equal(text, star.want, shape);
    for (const [shape, text] of Object.entries(r.heard)) assert.equal(text, said.want, shape);
    assert.deepEqual(r.model, [true, true, true]);
    assert.ok(r.spoken.length > 0);
    /* Three pictures with a stamp each, instead of one without. */
    const soft = 66, around = r.one - soft;
    assert.ok(r.video > 3 * 60 && r.video <= around + 3 * (soft + 2) + 15, `${r.video}, ${r.one}`);
}, {routes});

browserTest("OpenAI's image_url and input_audio", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, {star, said, png, wav}) => {
        const {create} = carat.chat.completions;
        const ask = async (part, text) => (await create({temperature: 0, image_tokens: 70,
            messages: [{role: "user", content: [part, {type: "text", text}]}]}))
            .choices[0].message.content;
        const fail = (part) => ask(part, "?").catch((e) => [e.code, e.message]);
        return {
            url: await ask({type: "image_url", image_url: {url: `/golden/${star.file}`,
                detail: "low"}}, star.question),
            data: await ask({type: "image_url",
                image_url: {url: `data:image/png;base64,${png}`}}, star.question),
            audio: await ask({type: "input_audio", input_audio: {data: wav, format: "wav"}},
                said.question),
            errors: [await fail({type: "image_url", image_url: {}}),
                await fail({type: "image_url", image_url: {url: "data:image/png;base64,%%%"}}),
                await fail({type: "input_audio", input_audio: {data: wav, format: "tape"}}),
                await fail({type: "input_audio", input_audio: {data: "***", format: "wav"}}),
                await fail({type: "file", file: {}}),
                await fail({type: "image_url", image_url: {url: "/golden/none.png"}})],
        };
    }, {star, said, png: base64(star.file), wav: base64(said.file)});
    assert.deepEqual([r.url, r.data, r.audio], [star.want, star.want, said.want]);
    assert.deepEqual(r.errors.map(([code]) => code), ["argument", "argument", "unsupported",
        "argument", "unsupported", "not-found"]);
    for (const [, message] of r.errors) assert.match(message, /^messages\[0\]: content\[0\]: /);
}, {routes, allow: [/404/]});

// ---- several, in order, and again ----

browserTest("several parts keep their order, a second turn finds them computed",
    async ({inCarat}) => {
        const r = await withNano(inCarat, async (carat, {star, said, other}) => {
            const file = async (name) => (await fetch(`/golden/${name}`)).blob();
            const image = {type: "image", image: await file(star.file)};
            const second = {type: "image", image: await file(other.file)};
            const audio = {type: "audio", audio: await file(said.file)};
            const progress = [];
            const ask = (messages, options) => carat.chat({messages, imageTokens: 70,
                temperature: 0, maxTokens: 40, ...options}).result();
            const text = (text) => ({type: "text", text});
            const hear = [{role: "user", content: [audio, text(said.question)]}];
            const heard = await ask(hear);
            const both = [...hear, {role: "assistant", content: heard.text},
                {role: "user", content: [image, text(star.question)]}];
            const seen = await ask(both, {onProgress: (p) => progress.push(p)});
            const swapped = await ask([{role: "user", content: [second, text(other.question)]},
                {role: "assistant", content: other.want},
                {role: "user", content: [image, text(star.question)]}]);
            const mixed = await carat.countTokens({imageTokens: 70, messages: [{role: "user",
                content: [image, text("a"), audio, text("b"), second]}]});
            const again = await ask(both);
            return {heard, seen, swapped, again, mixed, progress};
        }, {star, said, other: pictures[2]});
        assert.equal(r.heard.text, said.want);
        assert.equal(r.seen.text, star.want);
        assert.ok(r.seen.usage.cachedTokens >= r.heard.usage.promptTokens);
        assert.equal(r.swapped.text, star.want);
        assert.equal(r.again.text, r.seen.text);
        assert.ok(r.mixed > 64 + 20 + 60, `${r.mixed}`);
        const phases = [...new Set(r.progress.map((p) => p.phase))];
        assert.deepEqual(phases, ["load", "encode", "prompt"]); // the encoder, on first use
        assert.ok(r.progress.every((p) => p.done <= p.total && p.total > 0));
    }, {routes});

browserTest("a call whose sound is still decoded goes before the next ones", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, said) => {
        const audio = await (await fetch(`/golden/${said.file}`)).blob();
        const order = [];
        const ask = (name, content, signal) => carat.chat({messages: [{role: "user", content}],
            temperature: 0, signal}).result().then(({text, finishReason}) => {
            order.push(name);
            return [text, finishReason];
        });
        const stop = new AbortController();
        const all = [
            ask("first", [{type: "audio", audio}, {type: "text", text: said.question}]),
            ask("gone", [{type: "audio", audio}], stop.signal),
            ask("last", "What is 23 + 45?"),
        ];
        stop.abort();
        return {order, all: await Promise.all(all)};
    }, said);
    assert.deepEqual(r.all, [[said.want, "stop"], ["", "aborted"], ["23 + 45 = 68.", "stop"]]);
    assert.ok(r.order.indexOf("first") < r.order.indexOf("last"), `${r.order}`);
}, {routes});

// ---- what is none ----

browserTest("bad pictures and sounds: one sentence that names the part", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat) => {
        const code = async (part, options) => {
            try {
                const content = [{type: "text", text: "Look:"}, part];
                const {finishReason} = await carat.chat({messages: [{role: "user", content}],
                    maxTokens: 2, ...options}).result();
                return [finishReason, ""];
            } catch (e) {
                return [e.code, e.message];
            }
        };
        const image = (image, options) => code({type: "image", image}, options);
        const audio = (audio, sampleRate) => code({type: "audio", audio, sampleRate});
        const png = async (w, h) => {
            const canvas = new OffscreenCanvas(w, h);
            canvas.getContext("2d").fillRect(0, 0, w, h);
            return canvas.convertToBlob();
        };
        const canvas = new OffscreenCanvas(300, 200);
        const context = canvas.getContext("2d");
        for (let i = 0; i < 500; i++) {
            context.fillStyle = `hsl(${i * 37} 80% 50%)`;
            context.fillRect((i * 53) % 300, (i * 29) % 200, 20, 20);
        }
        const jpeg = await canvas.convertToBlob({type: "image/jpeg"});
        const zip = new File([Uint8Array.of(80, 75, 3, 4, 20, 0, 0, 0, 8, 0)], "cat.png",
            {type: "image/png"});
        const silence = new Float32Array(16000);
        return {
            pixel: await image(await png(1, 1)),
            line: await image(await png(10000, 3)),
            zip: await image(zip),
            empty: await image(new Blob([])),
            header: await image(jpeg.slice(0, 20)),
            half: await image(jpeg.slice(0, jpeg.size / 2)),
            huge: await image({size: 1}),
            url: await image("https://"),
            noSound: await audio(zip),
            silence: await audio(silence, 16000),
            short: await audio(silence.subarray(0, 160), 16000),
            none: await audio(new Float32Array(0), 16000),
            rate: await audio(silence),
            wrongRate: await audio(silence, 3),
            nan: await audio(new Float32Array(16000).fill(NaN), 16000),
            long: await audio(new Float32Array(8000 * 601), 8000),
            video: await code({type: "video", video: zip}),
            frames: await code({type: "video", video: {frames: [], times: []}}),
            times: await code({type: "video", video: {frames: [zip], times: [0]}}),
            type: await code({type: "smell"}),
            tokens: await image(await png(9, 9), {imageTokens: 100}),
            role: await carat.chat({messages: [{role: "assistant", content: [{type: "image"}]}]})
                .result().catch((e) => [e.code, e.message]),
            after: (await carat.chat({messages: [{role: "user", content: "What is 23 + 45?"}],
                temperature: 0}).result()).text,
        };
    });
    const codes = Object.fromEntries(Object.entries(r).map(([k, v]) => [k, v[0]]));
    assert.equal(r.after, "23 + 45 = 68.");
    assert.deepEqual({...codes, after: 0}, {pixel: "length", line: "argument", zip: "format",
        empty: "format", header: "format", half: "format", huge: "argument", url: "argument",
        noSound: "format", silence: "length", short: "argument", none: "argument",
        rate: "argument", wrongRate: "argument", nan: "argument", long: "argument",
        video: "format", frames: "argument", times: "format", type: "unsupported",
        tokens: "argument", role: "argument", after: 0});
    for (const name of ["zip", "noSound", "video", "frames", "times", "type", "rate", "long",
        "url"])
        assert.match(r[name][1], /^messages\[0\]: content\[1\]: /, name);
}, {routes, allow: [/media-src blocked blob|Loading media/]});

browserTest("cancelled while it is encoded, and again from the start", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, star) => {
        const image = await (await fetch(`/golden/${star.file}`)).blob();
        const messages = [{role: "user", content: [{type: "image", image},
            {type: "text", text: star.question}]}];
        const stop = new AbortController(), phases = [];
        const first = await carat.chat({messages, imageTokens: 1120, signal: stop.signal,
            onProgress: ({phase}) => {
                if (phase === "encode") stop.abort();
                phases.push(phase);
            }}).result();
        const {text} = await carat.chat({messages, imageTokens: 70, temperature: 0}).result();
        return {first, phases, text};
    }, star, {...onCpu, contextLength: 2048});
    assert.deepEqual([r.first.finishReason, r.first.text], ["aborted", ""]);
    assert.deepEqual([...new Set(r.phases)], ["load", "encode"]);
    assert.equal(r.text, star.want);
}, {routes});

const family = {"/family/*": (req, res, url) =>
    sendFile(req, res, `${repository}tests/golden/family/${url.pathname.slice(8)}`)};

browserTest("encoders in a second file", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => {
        const options = {device: "cpu", store: false, contextLength: 512,
            projector: "/family/e4b-mmproj.gguf"};
        const plan = await Carat.estimate("/family/e4b.gguf", options);
        const carat = await Carat.load("/family/e4b.gguf", options);
        const {usage} = await carat.chat({messages: [{role: "user",
            content: [{type: "image", image: new ImageData(96, 96)}]}], imageTokens: 70,
            maxTokens: 2}).result();
        const {vision, encoderBytes} = carat.model;
        await carat.close();
        const fail = (projector) => Carat.load("/family/e4b.gguf", {...options, projector})
            .catch((e) => [e.code, e.message]);
        return {plan, usage, vision, encoderBytes, other: await fail("/models/nano.gguf"),
            none: await fail("/family/e4b.gguf"), wrong: await fail(7)};
    });
    assert.deepEqual([r.plan.vision, r.plan.fits, r.vision], [true, true, true]);
    assert.ok(r.encoderBytes > 0 && r.usage.promptTokens > 60, JSON.stringify(r));
    assert.match(r.other[1], /another model: its soft tokens are 256 .* 128/);
    assert.match(r.none[1], /no projector/);
    assert.equal(r.wrong[0], "argument");
}, {routes: family});

browserTest("a model without encoders says so", async ({inCarat}) => {
    const r = await inCarat(async ({Carat}) => {
        const carat = await Carat.load("/family/e4b.gguf", {device: "cpu", store: false,
            contextLength: 256});
        const image = new ImageData(9, 9);
        const error = await carat.chat({messages: [{role: "user",
            content: [{type: "image", image}]}]}).result().catch((e) => [e.code, e.message]);
        const {vision, audio, encoderBytes} = carat.model;
        await carat.close();
        return {error, model: {vision, audio, encoderBytes}};
    });
    assert.deepEqual(r.model, {vision: false, audio: false, encoderBytes: 0});
    assert.equal(r.error[0], "unsupported");
    assert.match(r.error[1], /has no vision encoder/);
}, {routes: family});

browserTest("a picture and a recording on the GPU", async ({inCarat}) => {
    const texts = await withNano(inCarat, async (carat, {star, said}) => {
        const file = async (name) => (await fetch(`/golden/${name}`)).blob();
        const ask = async (part, text) => (await carat.chat({temperature: 0, imageTokens: 70,
            messages: [{role: "user", content: [part, {type: "text", text}]}]}).result()).text;
        return [await ask({type: "image", image: await file(star.file)}, star.question),
            await ask({type: "audio", audio: await file(said.file)}, said.question)];
    }, {star, said}, {...onCpu, device: "gpu"});
    assert.deepEqual(texts, [star.want, said.want]);
}, {routes, skip: process.env.TEST_GPU !== "real" &&
    "NO REAL GPU (TEST_GPU=real): a software one compiles the encoders' kernels for minutes"});

// ---- large ones, and videos ----

browserTest("a photograph and 30 s of sound: the heap stays below 64 MB", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat) => {
        const canvas = new OffscreenCanvas(4032, 3024);
        const context = canvas.getContext("2d");
        context.fillStyle = "teal";
        context.fillRect(0, 0, 4032, 3024);
        context.clearRect(100, 100, 2000, 2000); // transparent: white
        const image = await canvas.convertToBlob();
        const audio = Float32Array.from({length: 2 * 30 * 48000}, (_, i) => Math.sin(i / 20) / 2);
        const {usage} = await carat.chat({messages: [{role: "user", content: [
            {type: "image", image}, {type: "audio", audio, sampleRate: 48000, channels: 2},
            {type: "text", text: "What is it?"}]}], maxTokens: 3}).result();
        return {usage, ...await carat.memory()};
    }, undefined, {...onCpu, contextLength: 2048});
    assert.ok(r.usage.promptTokens > 256 + 700, `${r.usage.promptTokens}`);
    assert.ok(r.heapBytes <= 64 * 2 ** 20, `${r.heapBytes}`);
}, {seconds: 240});

browserTest("a video is cut into frames", async ({inCarat}) => {
    const r = await withNano(inCarat, async (carat, messages, {Carat}) => {
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 96;
        const context = canvas.getContext("2d");
        const recorder = new MediaRecorder(canvas.captureStream(20), {mimeType: "video/webm"});
        const pieces = [];
        recorder.ondataavailable = ({data}) => pieces.push(data);
        recorder.start();
        const start = performance.now();
        while (performance.now() - start < 1500) {
            context.fillStyle = performance.now() - start < 700 ? "red" : "blue";
            context.fillRect(0, 0, 96, 96);
            await new Promise((done) => setTimeout(done, 40));
        }
        await new Promise((done) => {
            recorder.onstop = done;
            recorder.stop();
        });
        const video = new Blob(pieces, {type: "video/webm"});
        const {frames, times} = await Carat.frames(video, {count: 4});
        const colours = frames.map((frame) => {
            context.drawImage(frame, 0, 0);
            return Array.from(context.getImageData(48, 48, 1, 1).data.slice(0, 3));
        });
        const options = {messages: [{role: "user", content: [{type: "video", video}]}]};
        const counted = await carat.countTokens(options);
        const element = document.createElement("video");
        element.src = URL.createObjectURL(video);
        const {usage} = await carat.chat({messages: [{role: "user", content: [
            {type: "video", video: {frames, times}}]}], maxTokens: 2}).result();
        const fromElement = await carat.countTokens({messages: [{role: "user",
            content: [{type: "video", video: element}]}]});
        const bad = await Carat.frames(new Blob(["no"])).catch((e) => e.code);
        return {times, colours, counted, fromElement, tokens: usage.promptTokens, bad};
    }, [user("x")], {...onCpu, contextLength: 4096});
    assert.equal(r.times.length, 4);
    assert.ok(r.times.every((t, i) => Math.abs(t - i * r.times[1]) < 1e-6), `${r.times}`);
    const reds = r.colours.map(([red, , blue]) => (red > 200 && blue < 60 ? "r" : "b")).join("");
    assert.match(reds, /^r+b+$/);
    assert.ok(r.counted > r.tokens && r.fromElement > r.tokens, JSON.stringify(r));
    assert.equal(r.bad, "format");
}, {csp: `${strictCsp}; media-src 'self' blob:`});
