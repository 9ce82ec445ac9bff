// Bundles the gallery's scripts and styles: node build.mjs OUTPUT_FOLDER
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const out = process.argv[2];
if (!out) throw new Error("usage: node build.mjs OUTPUT_FOLDER");

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["tradeoff", "model", "wall", "prove", "compare"].map((page) => `src/pages/${page}.js`).concat("src/style.css"),
  outdir: out,
  entryNames: "[name]",
  bundle: true,
  minify: true,
  format: "iife", // pages opened from disk may run classic scripts, not modules
  target: "es2022",
  legalComments: "none", // all licences are in LICENSES.txt
  metafile: true,
  external: ["../ort/ort.mjs"], // fetched when a proof is asked for
});

// ONNX Runtime as its authors built it: the WebAssembly backend alone.
const runtime = path.join(path.dirname(createRequire(import.meta.url).resolve("onnxruntime-web")), "..", "dist");
await copyFile(path.join(here, "src", "icon.svg"), path.join(out, "icon.svg"));
await mkdir(path.join(out, "ort"), { recursive: true });
await copyFile(path.join(runtime, "ort.wasm.min.mjs"), path.join(out, "ort", "ort.mjs"));
for (const file of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await copyFile(path.join(runtime, file), path.join(out, "ort", file));
}

// The licences of what is passed on here.
const packages = new Set(Object.keys(metafile.inputs).flatMap((file) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? []));
const texts = [...packages, "onnxruntime-web"].sort().map(async (name) => {
  const folder = path.join(here, "node_modules", name);
  const { version, license, repository } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? await readFile(path.join(folder, file), "utf8") : `Its text: ${repository.url}`;
  return `${name} ${version}, ${license}\n\n${text.trim()}\n`;
});
await writeFile(path.join(out, "LICENSES.txt"), (await Promise.all(texts)).join("\n\n"));
