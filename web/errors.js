// errors: the one kind of error that the package throws: a code and one sentence.
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
