// What tests of the package share: a model that is loaded in the page, and closed afterwards.

/** How nano is loaded unless a test says otherwise: on the CPU, which needs no kernels compiled. */
export const onCpu = {device: "cpu", store: false, contextLength: 1024};

/** Calls fn(carat, argument, module) in the page, with nano loaded; inCarat of lib.mjs.
 * @param {Function} inCarat @param {Function} fn @param {unknown} [argument]
 * @param {object} [options] of Carat.load() */
export function withNano(inCarat, fn, argument, options = onCpu) {
    return inCarat(`async (module, argument) => {
        const carat = await module.Carat.load("/models/nano.gguf", ${JSON.stringify(options)});
        try {
            return await (${fn})(carat, argument, module);
        } finally {
            await carat.close();
        }
    }`, argument);
}

/** @param {string} content */
export const user = (content) => ({role: "user", content});
export const sum = [user("What is 23 + 45?")];
export const story = [user("Tell me a story about a fox and a owl.")];
