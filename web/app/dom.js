// dom: builds elements without a template language. Text goes in as text nodes only, so nothing
// that a user, a file or a model wrote is ever read as HTML here.
//
// Owns: el(), icons, announcements to screen readers. Every view uses it.
// @ts-check

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @param {string} tag
 * @param {Record<string, any>} [props] class, text, hidden, disabled, value, on: {event: handler};
 *        everything else is an attribute
 * @param {...(Child | Child[])} children
 * @returns {any} the element
 */
export function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
        if (value === null || value === undefined) continue;
        if (name === "on") {
            for (const [event, handler] of Object.entries(value))
                node.addEventListener(event, handler);
        } else if (name === "class") node.className = value;
        else if (name === "text") node.textContent = value;
        else if (name === "value" || (typeof value === "boolean" && name in node))
            /** @type {any} */ (node)[name] = value;
        else node.setAttribute(name, String(value));
    }
    append(node, children);
    return node;
}

/** @param {Node} node @param {(Child | Child[])[]} children */
function append(node, children) {
    for (const child of children.flat()) {
        if (child === null || child === undefined || child === false) continue;
        node.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
    }
}

/** Replaces what is in a node. @param {Element} node @param {...(Child | Child[])} children */
export function fill(node, ...children) {
    node.textContent = "";
    append(node, children);
}

/** Makes nodes the children of a parent, in order. Those that stay are not touched: they keep the
 * focus, and a click that began on one ends on it. @param {Element} parent @param {Node[]} nodes */
export function arrange(parent, nodes) {
    for (const child of [...parent.childNodes]) if (!nodes.includes(child)) child.remove();
    nodes.forEach((node, i) => {
        const there = parent.childNodes[i] ?? null;
        if (there !== node) parent.insertBefore(node, there);
    });
}

/** @param {string} id @returns {any} the element of index.html */
export function byId(id) {
    return document.getElementById(id);
}

// Strokes on a grid of 24.
const shapes = {
    plus: "M12 5v14M5 12h14",
    menu: "M4 7h16M4 12h16M4 17h16",
    send: "M12 19V5M6 11l6-6 6 6",
    stop: "M7 7h10v10H7z",
    copy: "M9 9h11v11H9zM15 9V4H4v11h5",
    check: "M5 13l4 4L19 7",
    retry: "M20 12a8 8 0 1 1-2.6-5.9M20 3v4h-4",
    edit: "M4 20l1-4L16 5l3 3L8 19z",
    trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
    search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16 16l4 4",
    theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
    settings: "M4 8h8M16 8h4M4 16h4M12 16h8M14 6v4M10 14v4",
    model: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
    close: "M6 6l12 12M18 6L6 18",
    left: "M14 6l-6 6 6 6",
    right: "M10 6l6 6-6 6",
    down: "M12 5v14M6 13l6 6 6-6",
    pause: "M9 6v12M15 6v12",
    play: "M8 5l10 7-10 7z",
    think: "M9 18h6M10 21h4M8.5 15a6 6 0 1 1 7 0l-.5 1.5h-6z",
    tool: "M14 7a4 4 0 0 0-5 5l-5 5 3 3 5-5a4 4 0 0 0 5-5l-3 2-2-2z",
    file: "M6 3h8l4 4v14H6zM14 3v4h4",
    attach: "M20 11l-9 9a5 5 0 0 1-7-7l9-9a3.4 3.4 0 0 1 5 5l-8.5 8.5a1.7 1.7 0 0 1-2.4-2.4L15 7",
    camera: "M4 8h4l1.5-3h5L16 8h4v11H4zM12 10a3.4 3.4 0 1 0 0 6.8 3.4 3.4 0 0 0 0-6.8z",
    microphone: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM6 11a6 6 0 0 0 12 0M12 17v4",
    download: "M12 4v11M7 11l5 5 5-5M5 20h14",
};

/** @param {keyof typeof shapes} name */
export function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", shapes[name]);
    svg.append(path);
    return svg;
}

/**
 * A button with an icon, named for screen readers and in its tooltip.
 * @param {keyof typeof shapes} shape @param {string} label @param {(event: Event) => void} click
 * @param {string} [className]
 */
export function iconButton(shape, label, click, className = "icon-button") {
    return el("button", {type: "button", class: className, "aria-label": label, title: label,
        on: {click}}, icon(shape));
}

/** Shows for a moment that a button did its work. @param {Element} button @param {string} said */
export function confirmOn(button, said) {
    const before = [...button.childNodes];
    fill(button, icon("check"));
    announce(said);
    setTimeout(() => fill(button, ...before), 1500);
}

/** Has screen readers say something when they are done speaking. @param {string} text */
export function announce(text) {
    const region = byId("announcer");
    region.textContent = "";
    setTimeout(() => { region.textContent = text; }, 50);
}

/** @param {string} text @returns {Promise<boolean>} whether the clipboard took it */
export async function copyText(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        return false;
    }
}
