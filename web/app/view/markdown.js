// markdown: shows what a model writes, while it writes.
//
// Owns: the way from untrusted Markdown to elements. marked splits the text into blocks; a block
// that did not change keeps its element, so only the end of an answer is drawn again and nothing
// flickers or loses its selection. DOMPurify has the last word on each block. HTML in the text is
// shown as text, pictures are not loaded (nothing is sent anywhere), links open in a new tab.
// @ts-check

import {marked} from "../../vendor/marked.esm.js";
import DOMPurify from "../../vendor/purify.es.mjs";
import {confirmOn, copyText, el, fill, icon} from "../dom.js";

/** @param {string} text */
function escape(text) {
    const names = /** @type {Record<string, string>} */ ({"&": "&amp;", "<": "&lt;", ">": "&gt;",
        "\"": "&quot;", "'": "&#39;"});
    return text.replace(/[&<>"']/g, (c) => names[c]);
}

// Tags without attributes that models write inside of Markdown, in tables above all.
const harmless = /^<\/?(?:br|sub|sup|kbd)\s*\/?>$/i;

marked.use({
    gfm: true,
    breaks: false,
    renderer: {
        html: ({text}) => (harmless.test(text.trim()) ? text : escape(text)),
        image: ({href, text}) => `<em>[picture: ${escape(text || href)}]</em>`,
        // The page's own headings are above those of an answer.
        heading({tokens, depth}) {
            const level = Math.min(6, depth + 2);
            return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
        },
        checkbox: ({checked}) => (checked ? "\u2611 " : "\u2610 "),
    },
});

const rules = {
    ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "a",
        "ul", "ol", "li", "blockquote", "code", "pre", "table", "thead", "tbody", "tr", "th", "td",
        "sub", "sup", "kbd"],
    ALLOWED_ATTR: ["href", "title", "start", "align"],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (/** @type {any} */ node) => {
    if (node.tagName === "A") {
        node.setAttribute("target", "_blank");
        node.setAttribute("rel", "noopener noreferrer nofollow");
    }
});

/** Closes what the end of a text leaves open, so that it does not show as asterisks until its
 * other half arrives, and leaves out a line that is only a mark so far: "-" below a paragraph
 * would make a heading of it. @param {string} raw the last block of a text that goes on */
function closed(raw) {
    const text = raw.trimEnd().replace(/(^|\n)[ \t]*(?:[-=*_+#>]+|\d+[.)])$/, "");
    const line = text.slice(text.lastIndexOf("\n") + 1);
    if ((line.match(/`/g) ?? []).length % 2) return `${text}\``;
    if ((line.match(/\*\*/g) ?? []).length % 2) return line.endsWith("**") ? text.slice(0, -2)
        : `${text}**`;
    return text;
}

/** @param {HTMLElement} from what is copied */
function copyButton(from) {
    const button = el("button", {type: "button", class: "copy", "aria-label": "Copy the code",
        on: {click: async () => {
            const done = await copyText(from.textContent ?? "");
            if (done) confirmOn(button, "Code copied");
        }}}, icon("copy"), "Copy");
    return button;
}

/** A block of code with its language and a copy button. */
class CodeBlock {
    code = el("code");
    label = el("span", {class: "language"});
    element = el("div", {class: "code"},
        el("div", {class: "code-bar"}, this.label, copyButton(this.code)),
        el("pre", {tabindex: "0", "aria-label": "Code"}, this.code));

    /** @param {any} token */
    update(token) {
        const language = (token.lang ?? "").trim().split(/\s/)[0].slice(0, 30) || "text";
        if (this.label.textContent !== language) this.label.textContent = language;
        const before = this.code.textContent ?? "";
        // Appending keeps the reader's selection and costs nothing for what is there already.
        if (before && token.text.startsWith(before))
            this.code.append(token.text.slice(before.length));
        else this.code.textContent = token.text;
    }
}

/** Any other block. */
class ProseBlock {
    element = el("div", {class: "block", dir: "auto"});

    /** @param {any} token @param {any} links definitions of links, from anywhere in the text */
    update(token, links) {
        const html = marked.parser(Object.assign([token], {links}));
        fill(this.element, /** @type {any} */ (DOMPurify.sanitize(html, rules)));
        for (const table of this.element.querySelectorAll("table")) {
            const frame = el("div", {class: "table", tabindex: "0", role: "region",
                "aria-label": "Table"});
            table.replaceWith(frame);
            frame.append(table);
        }
    }
}

/** An element whose Markdown grows. */
export class Markdown {
    element = el("div", {class: "markdown"});
    /** @type {{raw: string, kind: string, links: string, view: CodeBlock | ProseBlock}[]} */
    #blocks = [];
    #text = "";

    /** @param {string} text the whole of it @param {boolean} live whether more will come */
    update(text, live) {
        const key = text + (live ? "" : "\0");
        if (key === this.#text) return;
        this.#text = key;
        let tokens = /** @type {any} */ (marked.lexer(text));
        const last = tokens.at(-1);
        if (live && last && last.type !== "code") {
            const healed = text.slice(0, text.length - last.raw.length) + closed(last.raw);
            tokens = marked.lexer(healed);
        }
        const links = tokens.links;
        let count = 0;
        for (const token of tokens)
            if (token.type !== "space" && token.type !== "def") this.#set(count++, token, links);
        for (const {view} of this.#blocks.splice(count)) view.element.remove();
    }

    /** @param {number} i @param {any} token @param {any} links */
    #set(i, token, links) {
        const kind = token.type === "code" ? "code" : "prose";
        const names = Object.keys(links).join();
        let block = this.#blocks[i];
        if (block?.kind === kind && block.raw === token.raw && block.links === names) return;
        if (!block || block.kind !== kind) {
            const view = kind === "code" ? new CodeBlock() : new ProseBlock();
            if (block) block.view.element.replaceWith(view.element);
            else this.element.append(view.element);
            block = this.#blocks[i] = {raw: "", kind, links: "", view};
        }
        block.raw = token.raw;
        block.links = names;
        block.view.update(token, links);
    }
}
