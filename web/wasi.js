// wasi: the file system and the clock of the wasm core: as little of WASI preview 1 as its C
// library calls. One flat directory of named files, which read synchronously; nothing is cached.
//
// Does not know what the files hold or where they are: see source.js for that.
// Flow: web/engine.js before; src/file/source.c and src/model/save.c are at the other end.
// @ts-check

/**
 * @typedef {object} File
 * @property {number} size bytes
 * @property {(offset: number, to: Uint8Array) => void} read fills `to`, or throws
 * @property {(offset: number, from: Uint8Array) => void} [write]
 * @property {(size: number) => void} [truncate]
 * @property {() => void} [flush]
 * @property {() => void} [close]
 */

/**
 * Where files that C creates (sessions, adapters, checkpoints) go.
 * @typedef {object} Directory
 * @property {(name: string, create: boolean) => File | null} open null: there is none
 * @property {(from: string, to: string) => void} rename replaces `to`
 * @property {(name: string) => void} remove
 */

const OK = 0, EBADF = 8, EEXIST = 20, EINVAL = 28, EIO = 29, ENOENT = 44, ENOSPC = 51;
const CHARACTERS = 2, DIRECTORY = 3, REGULAR = 4; // file types
const O_CREAT = 1, O_DIRECTORY = 2, O_EXCL = 4, O_TRUNC = 8;
const ROOT = 3; // the descriptor of the directory; 0 to 2 are the standard streams
const decoder = new TextDecoder();

class Exit extends Error {}

export class Files {
    /** The last thing that a file threw; the core only hears that reading or writing failed. */
    failure = /** @type {any} */ (null);
    /** @type {Map<string, File>} */
    #named = new Map();
    /** Open descriptors. @type {({file: File, at: number, append: boolean} | null)[]} */
    #open = [];
    #line = "";

    /** @param {Directory | null} directory */
    constructor(directory = null) {
        this.directory = directory;
    }

    /** @param {string} name @param {File} file which C opens as "/name" */
    add(name, file) {
        this.#named.set(name, file);
    }

    /** @param {string} name */
    remove(name) {
        this.#named.delete(name);
    }

    /** Works while C sees another directory. @template T
     * @param {Directory} directory @param {() => T} work @returns {T} */
    inside(directory, work) {
        const before = this.directory;
        this.directory = directory;
        try {
            return work();
        } finally {
            this.directory = before;
        }
    }

    /** @returns {File | null} */
    #find(name, create) {
        return this.#named.get(name) ?? this.directory?.open(name, create) ?? null;
    }

    /** Runs what a file does; an exception becomes an error number. */
    #try(action) {
        try {
            return action() ?? OK;
        } catch (e) {
            this.failure = e;
            const {name, code} = this.failure;
            return name === "QuotaExceededError" || code === "quota" ? ENOSPC : EIO;
        }
    }

    #openFile(name, flags) {
        if (flags & O_DIRECTORY || name === "" || name === ".") return -EINVAL;
        let file = this.#find(name, false);
        if (file && flags & O_CREAT && flags & O_EXCL) return -EEXIST;
        if (!file && flags & O_CREAT) file = this.#find(name, true);
        if (!file) return -ENOENT;
        if (flags & O_TRUNC) file.truncate?.(0);
        let fd = this.#open.findIndex((f, i) => i > ROOT && !f);
        if (fd < 0) fd = Math.max(this.#open.length, ROOT + 1);
        this.#open[fd] = {file, at: 0, append: false};
        return fd;
    }

    /** Text for stderr: whole lines go to the log. */
    #print(bytes, log) {
        const lines = (this.#line + decoder.decode(bytes)).split("\n");
        this.#line = lines.pop() ?? "";
        for (const line of lines) log(line);
    }

    /**
     * The functions of module "wasi_snapshot_preview1".
     * @param {() => WebAssembly.Memory} memory
     * @param {(line: string) => void} log
     */
    imports(memory, log) {
        let view = new DataView(new ArrayBuffer(0));
        const data = () => {
            const buffer = memory().buffer;
            return view.buffer === buffer ? view : (view = new DataView(buffer));
        };
        const bytes = (at, n) => new Uint8Array(memory().buffer, at, n);
        const text = (at, n) => decoder.decode(bytes(at, n));

        /** Calls step(piece) for each piece of an iovec until it moves less than the whole. */
        const each = (iovs, n, out, step) => {
            let sum = 0;
            for (let i = 0; i < n; i++) {
                const size = data().getUint32(iovs + 8 * i + 4, true);
                const moved = step(bytes(data().getUint32(iovs + 8 * i, true), size), sum);
                sum += moved;
                if (moved < size) break;
            }
            data().setUint32(out, sum, true);
        };
        const read = (fd, iovs, n, offset, out) => this.#try(() => {
            const {file} = this.#open[fd] ?? {};
            if (!file) return EBADF;
            each(iovs, n, out, (piece, done) => {
                const left = Math.max(0, file.size - offset - done);
                const size = Math.min(piece.length, left);
                if (size) file.read(offset + done, piece.subarray(0, size));
                return size;
            });
        });
        const stat = (file, out) => {
            bytes(out, 64).fill(0);
            bytes(out + 16, 1)[0] = REGULAR;
            data().setBigUint64(out + 32, BigInt(file.size), true);
            return OK;
        };

        return {
            clock_time_get(id, _precision, out) {
                const ms = id === 0 ? Date.now() : performance.now();
                data().setBigUint64(out, BigInt(Math.round(ms * 1e6)), true);
                return OK;
            },
            fd_close: (fd) => this.#try(() => {
                const open = this.#open[fd];
                if (!open) return EBADF;
                this.#open[fd] = null;
                open.file.flush?.();
            }),
            fd_fdstat_get: (fd, out) => {
                if (fd > ROOT && !this.#open[fd]) return EBADF;
                bytes(out, 8).fill(0);
                bytes(out, 1)[0] = fd < ROOT ? CHARACTERS : fd === ROOT ? DIRECTORY : REGULAR;
                bytes(out + 8, 16).fill(255); // every right
                return OK;
            },
            fd_fdstat_set_flags: () => OK,
            fd_filestat_get: (fd, out) => {
                const open = this.#open[fd];
                return open ? stat(open.file, out) : EBADF;
            },
            fd_pread: (fd, iovs, n, offset, out) => read(fd, iovs, n, Number(offset), out),
            fd_prestat_dir_name: (fd, at, n) => {
                if (fd !== ROOT || n !== 1) return EBADF;
                bytes(at, 1)[0] = 47; // "/"
                return OK;
            },
            fd_prestat_get: (fd, out) => {
                if (fd !== ROOT) return EBADF;
                data().setUint32(out, 0, true); // a directory
                data().setUint32(out + 4, 1, true); // bytes of its name
                return OK;
            },
            fd_read: (fd, iovs, n, out) => {
                const open = this.#open[fd];
                if (!open) return EBADF;
                const error = read(fd, iovs, n, open.at, out);
                if (!error) open.at += data().getUint32(out, true);
                return error;
            },
            fd_seek: (fd, offset, whence, out) => {
                const open = this.#open[fd];
                if (!open) return EBADF;
                const from = [0, open.at, open.file.size][whence] ?? NaN;
                const at = from + Number(offset);
                if (!(at >= 0)) return EINVAL;
                open.at = at;
                data().setBigUint64(out, BigInt(at), true);
                return OK;
            },
            fd_write: (fd, iovs, n, out) => this.#try(() => {
                const open = this.#open[fd];
                if (!open && fd !== 1 && fd !== 2) return EBADF;
                each(iovs, n, out, (piece) => {
                    if (!open) {
                        this.#print(piece.slice(), log);
                    } else {
                        if (!open.file.write) throw new Error("the file cannot be written");
                        open.file.write(open.at, piece);
                        open.at += piece.length;
                    }
                    return piece.length;
                });
            }),
            fd_sync: () => OK, // fd_close flushes
            path_create_directory: () => OK, // there is one directory: names may have slashes
            path_remove_directory: () => OK,
            path_filestat_get: (_dir, _links, path, n, out) => {
                const file = this.#find(text(path, n), false);
                return file ? stat(file, out) : ENOENT;
            },
            path_open: (_dir, _links, path, n, flags, _rights, _inheriting, _fdflags, out) =>
                this.#try(() => {
                    const fd = this.#openFile(text(path, n), flags);
                    if (fd < 0) return -fd;
                    data().setUint32(out, fd, true);
                }),
            path_rename: (_from, path, n, _to, newPath, newN) => this.#try(() => {
                if (!this.directory) return ENOENT;
                this.directory.rename(text(path, n), text(newPath, newN));
            }),
            path_unlink_file: (_dir, path, n) => this.#try(() => {
                if (!this.directory) return ENOENT;
                this.directory.remove(text(path, n));
            }),
            proc_exit(code) {
                throw new Exit(`the core ended with code ${code}`);
            },
        };
    }
}
