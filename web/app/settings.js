// settings: what the user chose, kept in localStorage; null means the model's own default.
//
// Owns: the values, their limits, and their translation into the options of carat. Does not know
// the dialog (view/settings.js). theme.js reads the same record before the first paint.
// @ts-check

const key = "carat.settings";

export const defaults = {
    system: "",
    /** @type {number | null} */ temperature: null,
    /** @type {number | null} */ topK: null,
    /** @type {number | null} */ topP: null,
    /** @type {number | null} */ minP: null,
    /** @type {number | null} */ seed: null,
    /** @type {number | null} */ maxTokens: null,
    /** @type {number | null} */ contextLength: null,
    /** @type {number | null} */ imageTokens: null,
    thinking: false,
    tools: false,
    /** @type {"auto" | "gpu" | "cpu"} */ device: "auto",
    /** @type {"auto" | "light" | "dark"} */ theme: "auto",
    /** Whether it was said why there is no quick GPU. */
    told: false,
    /** The model to start with: {kind: "nano"}, {kind: "opfs", name} or {kind: "ollama", name}. */
    model: {kind: "nano"},
};

/** The numbers and what they may be. */
export const numbers = {
    temperature: {label: "Temperature", min: 0, max: 2, step: 0.05,
        help: "0 always takes the likeliest word; more is more varied."},
    topK: {label: "Top-k", min: 0, max: 1000, step: 1,
        help: "Choose among this many of the likeliest tokens; 0: all."},
    topP: {label: "Top-p", min: 0, max: 1, step: 0.01,
        help: "Choose among the likeliest tokens that sum up to this."},
    minP: {label: "Min-p", min: 0, max: 1, step: 0.01,
        help: "Leave out tokens less likely than this share of the likeliest."},
    seed: {label: "Seed", min: 0, max: 2 ** 32 - 1, step: 1,
        help: "The same seed gives the same answer again; empty: a new one every time."},
    maxTokens: {label: "Longest answer", min: 1, max: 131072, step: 1, help: "In tokens."},
    contextLength: {label: "Context length", min: 256, max: 262144, step: 1,
        help: "How many tokens of a conversation the model sees. More takes more memory."},
};

/** @param {any} raw a record from storage: anything */
function clean(raw) {
    const values = {...defaults};
    if (!raw || typeof raw !== "object") return values;
    for (const [name, {min, max}] of Object.entries(numbers)) {
        const n = raw[name];
        if (typeof n === "number" && n >= min && n <= max) /** @type {any} */ (values)[name] = n;
    }
    if ([70, 140, 280, 560, 1120].includes(raw.imageTokens)) values.imageTokens = raw.imageTokens;
    if (typeof raw.system === "string") values.system = raw.system;
    for (const name of ["thinking", "tools", "told"])
        if (typeof raw[name] === "boolean") /** @type {any} */ (values)[name] = raw[name];
    if (["auto", "gpu", "cpu"].includes(raw.device)) values.device = raw.device;
    if (["auto", "light", "dark"].includes(raw.theme)) values.theme = raw.theme;
    if (["nano", "opfs", "ollama"].includes(raw.model?.kind)) values.model = raw.model;
    return values;
}

function read() {
    try {
        return clean(JSON.parse(localStorage.getItem(key) ?? "null"));
    } catch {
        return {...defaults}; // storage that is switched off or damaged
    }
}

class Settings extends EventTarget {
    values = read();

    /** @param {Partial<typeof defaults>} changes */
    set(changes) {
        this.values = clean({...this.values, ...changes});
        try {
            localStorage.setItem(key, JSON.stringify(this.values));
        } catch {
            // They hold for this visit.
        }
        this.dispatchEvent(new Event("change"));
    }

    /** The options of carat.chat() that were chosen. */
    answerOptions() {
        const {thinking, ...all} = this.values;
        const {temperature, topK, topP, minP, seed, maxTokens, imageTokens} = all;
        const chosen = Object.entries({temperature, topK, topP, minP, seed, maxTokens, imageTokens})
            .filter(([, value]) => value !== null);
        return {...Object.fromEntries(chosen), thinking};
    }

    /** The options of Carat.load() that were chosen. */
    loadOptions() {
        const {contextLength, device} = this.values;
        return contextLength === null ? {device} : {device, contextLength};
    }
}

export const settings = new Settings();
