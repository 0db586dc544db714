// Parses JavaScript modules without running them; prints file:line: what is wrong. For check.sh:
//     node tools/parse.mjs FILE...
// One process for all of them; `node --check`, which takes one each, tells the line of an error.

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

// node has modules in vm only behind a flag.
if (!vm.SourceTextModule) {
    const flags = ["--experimental-vm-modules", "--no-warnings", fileURLToPath(import.meta.url)];
    execFileSync(process.execPath, [...flags, ...process.argv.slice(2)], { stdio: "inherit" });
} else {
    for (const file of process.argv.slice(2)) {
        try {
            new vm.SourceTextModule(fs.readFileSync(file, "utf8"), { identifier: file });
        } catch (e) {
            const check = spawnSync(process.execPath, ["--check", file], { encoding: "utf8" });
            const line = /^.*:(\d+)\n/.exec(check.stderr)?.[1] ?? 1;
            console.log(`${file}:${line}: ${e.message}`);
        }
    }
}
