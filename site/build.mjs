// Bundles the gallery's scripts and styles: node build.mjs OUTPUT_FOLDER
import { copyFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const out = process.argv[2];
if (!out) throw new Error("usage: node build.mjs OUTPUT_FOLDER");

await build({
  absWorkingDir: here,
  entryPoints: ["tradeoff", "model", "wall", "prove", "compare"].map((page) => `src/pages/${page}.js`).concat("src/style.css"),
  outdir: out,
  entryNames: "[name]",
  chunkNames: "shared-[hash]",
  bundle: true,
  splitting: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked",
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
