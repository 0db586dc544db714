// save: hands files to the user, as downloads.
//
// Owns: their addresses, which live for a minute. Nothing is ever shown or run from them.
// @ts-check

import {el} from "./dom.js";

/** @param {File[]} files */
export function save(files) {
    for (const file of files) {
        const link = el("a", {href: URL.createObjectURL(file), download: file.name});
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
    }
}
