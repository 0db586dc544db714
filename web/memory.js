// memory: a folder in memory, for files that the engine writes and JavaScript hands on.
//
// Does not know what they hold. Flow: adapters.js and trainer.js give it to the engine's Files.
// @ts-check

/** @typedef {import("./wasi.js").Directory} Directory */

/** Bytes that grow. */
class Growing {
    #bytes = new Uint8Array(0);
    size = 0;

    /** @param {number} at @param {Uint8Array} to */
    read(at, to) {
        to.set(this.#bytes.subarray(at, at + to.length));
    }

    /** @param {number} at @param {Uint8Array} from */
    write(at, from) {
        const end = at + from.length;
        if (end > this.#bytes.length) {
            const more = new Uint8Array(Math.max(end, 2 * this.#bytes.length));
            more.set(this.#bytes);
            this.#bytes = more;
        }
        this.#bytes.set(from, at);
        this.size = Math.max(this.size, end);
    }

    /** @param {number} size smaller than it was */
    truncate(size) {
        this.size = size;
    }

    bytes() {
        return this.#bytes.subarray(0, this.size);
    }
}

/** @implements {Directory} */
export class MemoryFolder {
    /** @type {Map<string, Growing>} */
    #files = new Map();

    /** @param {string} name @param {boolean} create */
    open(name, create) {
        if (create) this.#files.set(name, new Growing());
        return this.#files.get(name) ?? null;
    }

    /** A file, or what is in a folder. @param {string} from @param {string} to */
    rename(from, to) {
        for (const [name, file] of [...this.#files]) {
            if (name !== from && !name.startsWith(`${from}/`)) continue;
            this.#files.delete(name);
            this.#files.set(to + name.slice(from.length), file);
        }
    }

    /** @param {string} name */
    remove(name) {
        this.#files.delete(name);
    }

    /** @param {string} name of one that is there */
    bytes(name) {
        return /** @type {Growing} */ (this.#files.get(name)).bytes();
    }
}
