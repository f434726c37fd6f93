// Builds the page into the folder that the programs embed. The same source gives the same bytes.
// `node build.mjs FOLDER` builds into another folder, to compare.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../src/dashboard/assets");
const BYTES_MAX = 300_000;

mkdirSync(target, { recursive: true });
await build({
    absWorkingDir: here,
    entryPoints: { page: "src/main.tsx" },
    outdir: target,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    external: ["/dashboard/*"],
    logLevel: "warning",
});
copyFileSync(join(here, "src/index.html"), join(target, "index.html"));
copyFileSync(join(here, "src/icon.svg"), join(target, "icon.svg"));
const font = "node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2";
copyFileSync(join(here, font), join(target, "inter.woff2"));

// A file's path and bytes, in the order of the paths: what a test computes again.
function digest(root, files) {
    const hash = createHash("sha256");
    for (const file of files.map((file) => relative(root, file).replaceAll("\\", "/")).sort()) {
        const bytes = readFileSync(join(root, file));
        hash.update(`${file}\0${bytes.length}\0`).update(bytes);
    }
    return hash.digest("hex");
}

function under(folder) {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
        const path = join(folder, entry.name);
        return entry.isDirectory() ? under(path) : [path];
    });
}

const sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
const source = [...sources.map((name) => join(here, name)), ...under(join(here, "src"))];
const names = ["icon.svg", "index.html", "inter.woff2", "page.css", "page.js"];
const built = names.map((name) => join(target, name));
// First what was built, then what it was built from.
writeFileSync(join(target, "digest"), `${digest(target, built)}\n${digest(here, source)}\n`);
const bytes = built.reduce((sum, file) => sum + readFileSync(file).length, 0);
console.log(`the page has ${bytes} bytes, at most ${BYTES_MAX}`);
if (bytes > BYTES_MAX) process.exit(1);
