// A static server for the tests of the web: build/web/ as `carat serve` gives it, with the strict
// Content-Security-Policy that carat must work under, range requests, and routes that a test adds.
//
// Owns: HTTP. Does not know browsers. Used by lib.mjs, which starts one for every test, so that
// each test has an origin (and so an OPFS, a cache and a service worker) of its own.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const repository = fileURLToPath(new URL("../../", import.meta.url));
export const webRoot = process.env.TEST_WEB || path.join(repository, "build/web"); // what is served
export const strictCsp = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";

const types = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
};

/** The bytes that a Range header asks for: {start, end}, null for all, false for none. */
export function parseRange(header, size) {
    const m = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
    if (!m || (!m[1] && !m[2])) return null;
    const start = m[1] ? Number(m[1]) : Math.max(0, size - Number(m[2]));
    const end = m[1] && m[2] ? Math.min(Number(m[2]), size - 1) : size - 1;
    return start <= end && start < size ? { start, end } : false;
}

/** Answers with a file's bytes, or the range of them that is asked for. */
export function sendFile(req, res, file, headers = {}) {
    let stat;
    try {
        stat = fs.statSync(file);
    } catch {
        stat = null;
    }
    if (!stat?.isFile()) {
        res.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
        return;
    }
    const etag = `"${stat.size}-${Math.round(stat.mtimeMs)}"`;
    const common = {
        "content-type": types[path.extname(file)] ?? "application/octet-stream",
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
        etag,
        ...headers,
    };
    if (req.headers["if-none-match"] === etag) {
        res.writeHead(304, common).end();
        return;
    }
    const ifRange = req.headers["if-range"];
    const range = !ifRange || ifRange === etag ? parseRange(req.headers.range, stat.size) : null;
    if (range === false) {
        res.writeHead(416, { ...common, "content-range": `bytes */${stat.size}` }).end();
        return;
    }
    const { start, end } = range ?? { start: 0, end: stat.size - 1 };
    if (range) common["content-range"] = `bytes ${start}-${end}/${stat.size}`;
    res.writeHead(range ? 206 : 200, { ...common, "content-length": end - start + 1 });
    if (req.method === "HEAD" || stat.size === 0) res.end();
    else fs.createReadStream(file, { start, end }).on("error", () => res.destroy()).pipe(res);
}

/**
 * Starts a server on a free port of 127.0.0.1.
 *
 * routes: {"/path": handler, "/folder/*": handler}; handler(req, res, url) may be async, and
 * leaves the request to the static files by returning false. csp: the header, null for none.
 *
 * @param {{root?: string, routes?: Object<string, Function>, csp?: string | null}} options
 */
export async function startServer({ root = webRoot, routes = {}, csp = strictCsp } = {}) {
    const table = { ...routes };
    const requests = []; // {method, path, range}
    const violations = []; // reports of the policy, from pages and workers alike
    const blank = "<!doctype html><html lang=en><title>test</title><link rel=icon href=/none>";

    const builtIn = {
        "/blank": (req, res) => void res.setHeader("content-type", types[".html"]).end(blank),
        "/none": (req, res) => void res.writeHead(204).end(),
        "/csp-report": async (req, res) => {
            let text = "";
            for await (const part of req) text += part;
            const report = JSON.parse(text)["csp-report"];
            violations.push(`${report["violated-directive"]} blocked ${report["blocked-uri"]} ` +
                `in ${report["source-file"] ?? report["document-uri"]}:${report["line-number"]}`);
            res.writeHead(204).end();
        },
    };

    function find(name) {
        const all = { ...builtIn, ...table };
        if (all[name]) return all[name];
        const under = (k) => k.endsWith("*") && name.startsWith(k.slice(0, -1));
        const key = Object.keys(all).find(under);
        return key && all[key];
    }

    async function answer(req, res) {
        const url = new URL(req.url, "http://127.0.0.1");
        requests.push({ method: req.method, path: url.pathname, range: req.headers.range ?? null });
        if (csp) res.setHeader("content-security-policy", `${csp}; report-uri /csp-report`);
        res.setHeader("x-content-type-options", "nosniff");
        const handler = find(url.pathname);
        if (handler && (await handler(req, res, url)) !== false) return;
        const name = decodeURIComponent(url.pathname);
        const file = path.join(root, name.endsWith("/") ? `${name}index.html` : name);
        if (!file.startsWith(root)) res.writeHead(403).end();
        else sendFile(req, res, file);
    }

    const server = http.createServer((req, res) => {
        answer(req, res).catch((e) => {
            console.error(`test server: ${req.method} ${req.url}: ${e.stack}`);
            res.destroy();
        });
    });
    const listen = (port) => new Promise((done, failed) => {
        server.once("error", failed);
        server.listen(port, "127.0.0.1", () => done(server.address().port));
    });
    const port = await listen(0);

    return {
        origin: `http://127.0.0.1:${port}`,
        port,
        requests,
        violations,
        routes: table, // a test may add to it while the server runs
        /** Closes the port and every connection: the network is gone. */
        stop: () => new Promise((done) => {
            server.close(done);
            server.closeAllConnections();
        }),
        /** Listens again, on the same port. */
        restart: () => listen(port),
    };
}
