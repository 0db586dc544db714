// tools: two functions that a model may call, when the settings allow it. Both run in the page
// and send nothing: a clock and an addition.
//
// Owns: their descriptions and what they do. chat.js calls them and shows the calls.
// @ts-check

const number = {type: "number"};

export const tools = [
    {
        type: /** @type {"function"} */ ("function"),
        function: {
            name: "get_time",
            description: "Get the local time in a city.",
            parameters: {
                type: "object",
                properties: {city: {type: "string", description: "The city"}},
                required: ["city"],
            },
        },
    },
    {
        type: /** @type {"function"} */ ("function"),
        function: {
            name: "add",
            description: "Add two numbers.",
            parameters: {
                type: "object",
                properties: {
                    a: {...number, description: "First number"},
                    b: {...number, description: "Second number"},
                },
                required: ["a", "b"],
            },
        },
    },
];

/** @param {string} city as in the names of time zones, or anything near it */
function timeZone(city) {
    const wanted = city.trim().replace(/\s+/g, "_").toLowerCase();
    return Intl.supportedValuesOf("timeZone")
        .find((zone) => zone.split("/").at(-1)?.toLowerCase() === wanted);
}

/** @param {string} name @param {Record<string, any>} given @returns {object} */
function run(name, given) {
    if (name === "get_time") {
        const zone = timeZone(String(given.city ?? ""));
        if (!zone) return {error: `no time zone is named after ${given.city}`};
        const options = {timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
        return {time: new Date().toLocaleTimeString("en", /** @type {any} */ (options))};
    }
    if (name === "add") {
        const sum = Number(given.a) + Number(given.b);
        return Number.isFinite(sum) ? {sum} : {error: "a and b must be numbers"};
    }
    return {error: `there is no function ${name}`};
}

/** @param {import("./tree.js").ToolCall} call @returns {string} JSON for the model to read */
export function callTool(call) {
    return JSON.stringify(run(call.name, call.arguments));
}
