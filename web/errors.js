// errors: the one kind of error that the package throws: a code and one sentence; and JSON that is
// written, or such an error.
//
// Knows nothing else. Flow: every other file of the package throws it.
// @ts-check

/** carat_code of carat.h, by number. */
export const codes = ["ok", "argument", "io", "format", "unsupported", "not-found", "memory",
    "device", "device-lost", "context", "aborted"];

export class CaratError extends Error {
    /**
     * @param {string} code see CaratErrorCode in carat.d.ts
     * @param {string} message one sentence that names the thing
     */
    constructor(code, message) {
        super(message);
        this.name = "CaratError";
        this.code = code;
    }
}

/** JSON text of what a caller gave; undefined and null are null.
 * @param {string} what @param {unknown} value */
export function jsonText(what, value) {
    try {
        return value === undefined || value === null ? null : JSON.stringify(value);
    } catch (cause) {
        /* Chromium explains a circle in several lines. */
        const [why] = /** @type {Error} */ (cause).message.split("\n");
        throw new CaratError("argument", `${what}: cannot be written as JSON (${why})`);
    }
}
