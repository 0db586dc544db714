// Plays a recording of the kernel tests (tests/gpu_record.h) on the page's WebGPU and gives back
// what was read. Served to the page by kernels.test.mjs, which hands the results to the native
// tests to judge.
//
// All pipelines are compiled first, side by side: a GPU in software takes about a second for each.

const DEVICE = 0, BUFFER = 1, FREE = 2, WRITE = 3, PIPELINE = 4, BIND = 5, DISPATCH = 6, COPY = 7,
    SUBMIT = 8, READ = 9;
const bufferKinds = ["uniform", "read-only-storage", "storage"];

/** Every record of a recording: {op, words: Uint32Array, bytes: Uint8Array}. */
export function* records(recording) {
    for (let at = 0; at < recording.byteLength;) {
        const [op, nWord, nByte] = new Uint32Array(recording, at, 3);
        at += 12;
        yield {
            op,
            words: new Uint32Array(recording, at, nWord),
            bytes: new Uint8Array(recording, at + 4 * nWord, nByte),
        };
        at += 4 * nWord + Math.ceil(nByte / 4) * 4;
    }
}

/** A device with every limit of its adapter, and subgroups where there are any. */
async function openDevice() {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("no WebGPU adapter");
    const requiredLimits = {};
    for (const name in adapter.limits) requiredLimits[name] = adapter.limits[name];
    const requiredFeatures = adapter.features.has("subgroups") ? ["subgroups"] : [];
    return adapter.requestDevice({ requiredLimits, requiredFeatures });
}

/** A promise of {pipeline, layout}; the bindings are given, as the engine gives them. */
async function compile(device, kinds, { label, wgsl, constants }) {
    const module = device.createShaderModule({ label, code: wgsl });
    const layout = device.createBindGroupLayout({
        entries: kinds.map((kind, binding) => ({
            binding,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: bufferKinds[kind] },
        })),
    });
    const pipeline = await device.createComputePipelineAsync({
        label,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main", constants },
    });
    return { pipeline, layout };
}

/**
 * The pipelines of a recording by their handles. made: promises of those that there are already,
 * by source, constants and bindings.
 */
async function compileAll(device, recording, made) {
    const byHandle = new Map();
    for (const { op, words, bytes } of records(recording)) {
        if (op !== PIPELINE) continue;
        const text = new TextDecoder().decode(bytes);
        const kinds = [...words.subarray(1)];
        const key = kinds + text;
        if (!made.has(key)) made.set(key, compile(device, kinds, JSON.parse(text)));
        byHandle.set(words[0], made.get(key));
    }
    for (const [handle, promise] of byHandle) byHandle.set(handle, await promise);
    return byHandle;
}

/** Gives a function that plays recordings on one device, for which a kernel is compiled once. */
export async function openPlayer() {
    const device = await openDevice();
    const made = new Map();
    const state = { trouble: null };
    device.onuncapturederror = (e) => { state.trouble ??= e.error.message; };
    return async (recording) => {
        const before = made.size;
        const pipelines = await compileAll(device, recording, made);
        const played = await play(device, recording, pipelines, state);
        return { ...played, nPipeline: made.size - before };
    };
}

/** Runs the calls in order. Gives {blob, nDispatch, nRead}; throws on a GPU error. */
async function play(device, recording, pipelines, state) {
    const buffers = new Map(), binds = new Map();
    const results = [];
    let encoder = null, nDispatch = 0;

    const commands = () => (encoder ??= device.createCommandEncoder());
    const submit = () => {
        if (encoder) device.queue.submit([encoder.finish()]);
        encoder = null;
    };

    async function read(source, offset, size) {
        const staging = device.createBuffer({
            size: Math.ceil(size / 4) * 4,
            usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
        });
        commands().copyBufferToBuffer(source, offset, staging, 0, staging.size);
        submit();
        await staging.mapAsync(GPUMapMode.READ);
        if (state.trouble) throw new Error(state.trouble);
        results.push(new Uint32Array([size]), staging.getMappedRange().slice(0, size));
        staging.destroy();
    }

    const run = {
        [DEVICE]() {},
        [BUFFER]([id, size, usage]) {
            const kind = usage === 2 ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE;
            buffers.set(id, device.createBuffer({
                size: Math.max(4, Math.ceil(size / 4) * 4),
                usage: kind | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
            }));
        },
        [FREE]([id]) {
            buffers.get(id).destroy();
            buffers.delete(id);
        },
        [WRITE]([id, offset], bytes) {
            device.queue.writeBuffer(buffers.get(id), offset, bytes);
        },
        [PIPELINE]() {},
        [BIND](words) {
            const entries = [];
            for (let i = 2; i < words.length; i += 3) {
                const [id, offset, size] = words.subarray(i, i + 3);
                const buffer = buffers.get(id);
                const resource = { buffer, offset, size: size || buffer.size - offset };
                entries.push({ binding: entries.length, resource });
            }
            const { layout } = pipelines.get(words[1]);
            binds.set(words[0], device.createBindGroup({ layout, entries }));
        },
        [DISPATCH]([pipeline, bind, x, y, z]) {
            const pass = commands().beginComputePass();
            pass.setPipeline(pipelines.get(pipeline).pipeline);
            pass.setBindGroup(0, binds.get(bind));
            pass.dispatchWorkgroups(x, y, z);
            pass.end();
            nDispatch++;
        },
        [COPY]([to, toOffset, from, fromOffset, size]) {
            const [target, source] = [buffers.get(to), buffers.get(from)];
            commands().copyBufferToBuffer(source, fromOffset, target, toOffset, size);
        },
        [SUBMIT]() { submit(); },
        async [READ]([id, offset, size]) { await read(buffers.get(id), offset, size); },
    };
    for (const { op, words, bytes } of records(recording)) await run[op](words, bytes);
    if (state.trouble) throw new Error(state.trouble);
    for (const buffer of buffers.values()) buffer.destroy();
    return { blob: new Blob(results), nDispatch, nRead: results.length / 2 };
}
