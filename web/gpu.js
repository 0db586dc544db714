// gpu: the other half of src/gpu/gpu_web.c. Owns the adapter, its description and how a device is
// got again when one was lost; hands the core's calls, which point into its memory, to device.js.
//
// Knows no kernel. Flow: web/engine.js connects it with the core; web/device.js after.
// @ts-check

import {codes} from "./errors.js";
import {Device, sleep} from "./device.js";

const NO_DEVICE = codes.indexOf("device");

const wantedFeatures = ["subgroups", "shader-f16", "timestamp-query"];
const wantedLimits = ["maxBufferSize", "maxStorageBufferBindingSize", "maxUniformBufferBindingSize",
    "maxStorageBuffersPerShaderStage", "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX", "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ", "maxComputeWorkgroupsPerDimension"];
const software = /swiftshader|llvmpipe|lavapipe|basic render|\bwarp\b/i;
const vendors = {amd: "AMD", apple: "Apple", arm: "ARM", intel: "Intel", nvidia: "NVIDIA",
    qualcomm: "Qualcomm", microsoft: "Microsoft", samsung: "Samsung"};

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** The adapter's name as well as the browser tells it. */
function adapterName(info) {
    if (software.test(`${info.architecture} ${info.device} ${info.description}`))
        return /swiftshader/i.test(info.architecture) ? "SwiftShader"
            : info.description || info.device || info.architecture;
    if (info.description || info.device) return info.description || info.device;
    const vendor = vendors[info.vendor] ?? info.vendor;
    return [vendor, info.architecture].filter(Boolean).join(" ") || "GPU";
}

/**
 * @typedef {object} Info
 * @property {string} name e.g. "NVIDIA ampere", "SwiftShader (software)"
 * @property {"gpu" | "software"} kind
 * @property {string} backend "WebGPU", or what of if the browser tells more
 * @property {string[]} features
 * @property {Record<string, number>} limits
 * @property {string} bareName without " (software)"
 * @property {number[]} subgroups least and greatest size; 0: there are none
 */

/** @param {any} adapter with what is not in every browser @returns {Info} */
function describe(adapter) {
    const info = adapter.info ?? {};
    const name = adapterName(info);
    const isSoftware = Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) ||
        software.test(`${info.vendor} ${info.architecture} ${info.device} ${info.description}`);
    /** @type {Record<string, number>} */
    const limits = {};
    for (const limit of wantedLimits)
        if (adapter.limits[limit] !== undefined) limits[limit] = adapter.limits[limit];
    return {
        name: isSoftware ? `${name} (software)` : name,
        kind: isSoftware ? "software" : "gpu",
        backend: info.backend ?? "WebGPU",
        features: wantedFeatures.filter((f) => adapter.features.has(f)),
        limits,
        bareName: name,
        subgroups: adapter.features.has("subgroups")
            ? [info.subgroupMinSize ?? 4, info.subgroupMaxSize ?? 128] : [0, 0],
    };
}

/**
 * A device with its adapter's features and limits; null and the reason when there is none.
 * @param {GPUPowerPreference} powerPreference
 * @returns {Promise<{device: GPUDevice | null, info?: Info, reason?: string}>}
 */
async function openDevice(powerPreference) {
    const {gpu} = navigator;
    if (!gpu) return {device: null, reason: "this browser has no WebGPU"};
    try {
        const adapter = await gpu.requestAdapter({powerPreference}) ??
            await gpu.requestAdapter({forceFallbackAdapter: true});
        if (!adapter) return {device: null, reason: "the browser finds no adapter"};
        const info = describe(adapter);
        const device = await adapter.requestDevice({
            label: "carat",
            requiredFeatures: /** @type {GPUFeatureName[]} */ (info.features),
            requiredLimits: info.limits,
        });
        return {device, info};
    } catch (e) {
        const {message} = /** @type {Error} */ (e);
        return {device: null, reason: `the browser gave no device: ${message}`};
    }
}

export class Gpu {
    /** Why the last open() gave null: half a sentence. */
    static reason = "it was not asked for";
    #powerPreference;
    /** @type {GPUDevice | null} */
    #device = null; // open, and not in use by the core
    /** @type {Device | null} */
    #now = null; // in use

    /** @param {GPUPowerPreference} [powerPreference] */
    constructor(powerPreference = "high-performance") {
        this.#powerPreference = powerPreference;
        /** What the browser tells of the adapter.
         * @type {Info | null} */
        this.info = null;
    }

    /** The best adapter; null when there is none (see Gpu.reason).
     * @param {{powerPreference?: GPUPowerPreference}} [options]
     * @returns {Promise<Gpu | null>} */
    static async open({powerPreference} = {}) {
        const gpu = new Gpu(powerPreference);
        return await gpu.reopen(1) ? gpu : null;
    }

    /** Gets a new device, for the core to take when it sees that its own is lost. A browser may
     * need some seconds to have one again after its GPU process ended.
     * @param {number} [tries] a second apart */
    async reopen(tries = 3) {
        const {device, info, reason} = await openDevice(this.#powerPreference);
        if (!device && tries > 1) {
            await sleep(1000);
            return this.reopen(tries - 1);
        }
        Gpu.reason = reason ?? "";
        this.#device = device;
        if (info) this.info = info;
        return device !== null;
    }

    /** The core's device is lost and there is no other one yet. */
    get lost() {
        return Boolean(this.#now?.lost && !this.#device);
    }

    /** The GPUDevice in use, for tests and measurements. */
    get device() {
        return this.#now?.device ?? this.#device;
    }

    /** Resolves when the device has got on with something, so that a job may be advanced again. */
    async settled() {
        await (this.#now ? this.#now.settled() : sleep(0));
    }

    /** Gives the device back. */
    close() {
        this.#now?.close();
        this.device?.destroy();
        this.#now = null;
        this.#device = null;
    }

    /** The device for the core; it has one at a time. */
    #open() {
        if (!this.#device) return false;
        this.#now = new Device(this.#device, this.info?.kind === "software");
        this.#device = null;
        return true;
    }

    #close() {
        const {device, lost} = /** @type {Device} */ (this.#now);
        this.#now?.close();
        this.#now = null;
        if (lost) device.destroy();
        else this.#device ??= device;
    }

    /** gpu_info as numbers, in the order of gpu_web.c. */
    #numbers() {
        const {limits, kind, features, subgroups} = /** @type {Info} */ (this.info);
        const packed = navigator.gpu.wgslLanguageFeatures;
        return [kind === "software", features.includes("subgroups"), ...subgroups,
            packed?.has("packed_4x8_integer_dot_product") ?? false, limits.maxBufferSize,
            limits.maxStorageBufferBindingSize, limits.maxStorageBuffersPerShaderStage,
            limits.maxComputeWorkgroupStorageSize, limits.maxComputeInvocationsPerWorkgroup,
            limits.maxComputeWorkgroupsPerDimension].map(Number);
    }

    /**
     * The functions of module "gpu" for the core whose memory it is.
     * @param {() => WebAssembly.Memory} memory
     */
    imports(memory) {
        let view = new DataView(new ArrayBuffer(0));
        let bytes = new Uint8Array(0);
        const refresh = () => { // the buffer is another one after the memory has grown
            const {buffer} = memory();
            if (view.buffer === buffer) return;
            view = new DataView(buffer);
            bytes = new Uint8Array(buffer);
        };
        const u32 = (at) => view.getUint32(at, true);
        const f64 = (at) => view.getFloat64(at, true);
        const u64 = (at) => u32(at) + 2 ** 32 * u32(at + 4);
        const text = (at) => decoder.decode(bytes.subarray(at, bytes.indexOf(0, at)));
        const putText = (value, at, cap) => {
            const {written} = encoder.encodeInto(value, bytes.subarray(at, at + cap - 1));
            bytes[at + written] = 0;
        };
        const now = () => /** @type {Device} */ (this.#now);

        return {
            open: (numbers, name, nameCap, backend, backendCap) => {
                if (!this.#open()) return 0;
                refresh();
                const info = /** @type {Info} */ (this.info);
                this.#numbers().forEach((x, i) => view.setFloat64(numbers + 8 * i, x, true));
                putText(info.bareName, name, nameCap);
                putText(info.backend, backend, backendCap);
                return 1;
            },
            close: () => this.#close(),
            error: (message, cap) => {
                const none = {code: NO_DEVICE, message: `gpu: ${Gpu.reason}`};
                const error = this.#now ? this.#now.takeError() : none;
                if (!error.code) return 0;
                refresh();
                putText(error.message, message, cap);
                return error.code;
            },
            buffer: (size, usage, label) => {
                refresh();
                return now().createBuffer(size, usage, text(label));
            },
            free_buffer: (id) => now().freeBuffer(id),
            write: (id, offset, from, n) => {
                refresh();
                now().write(id, offset, bytes.buffer, from, n);
            },
            pipeline: (desc) => {
                refresh();
                /** @type {Record<string, number>} */
                const constants = {};
                for (let i = 0, at = u32(desc + 20); i < u32(desc + 16); i++)
                    constants[text(u32(at + 16 * i))] = f64(at + 16 * i + 8);
                const kinds = bytes.slice(u32(desc + 12), u32(desc + 12) + u32(desc + 8));
                return now().createKernel(text(u32(desc)), text(u32(desc + 4)), kinds, constants);
            },
            free_pipeline: (id) => void now().kernels.drop(id),
            bind: (pipeline, at, n) => {
                refresh();
                return now().createBind(pipeline, Array.from({length: n}, (_, i) => ({
                    buffer: u32(at + 24 * i),
                    offset: u64(at + 24 * i + 8),
                    size: u64(at + 24 * i + 16),
                })));
            },
            free_bind: (id) => void now().binds.drop(id),
            dispatch: (pipeline, bind, x, y, z) => now().dispatch(pipeline, bind, x, y, z),
            copy: (to, toOffset, from, fromOffset, n) =>
                now().copy(to, toOffset, from, fromOffset, n),
            submit: () => now().submit(),
            read: (buffer, offset, n) => now().read(buffer, offset, n),
            poll: (id, to) => now().poll(id, (from) => {
                refresh();
                bytes.set(from, to);
            }),
            pending: () => now().pending(),
        };
    }
}
