// The certifier in the browser: a network with its interval bounds as one ONNX graph, run by ONNX Runtime Web.
import { root } from "./dom.js";

let runtime = null;

/** ONNX Runtime, fetched from this site when first asked for. One thread: static hosts isolate no pages. */
async function onnxRuntime() {
  if (!runtime) {
    const folder = new URL(`${root()}assets/ort/`, location.href).href;
    runtime = await import(/* @vite-ignore */ `${folder}ort.mjs`);
    runtime.env.wasm.wasmPaths = folder;
    runtime.env.wasm.numThreads = 1;
  }
  return runtime;
}

export class Certifier {
  constructor(session, ort, shape) {
    Object.assign(this, { session, ort, shape, turn: Promise.resolve() });
  }

  /** Loads the file that `acert-zoo export NAME --onnx-bounds FILE` wrote. `shape`: [C, H, W]. */
  static async load(url, shape) {
    const ort = await onnxRuntime();
    const session = await ort.InferenceSession.create(url, { executionProviders: ["wasm"] });
    return new Certifier(session, ort, shape);
  }

  /** {logits, prediction, margins, robustMargin} of one image at radius eps; the prediction's own margin is Infinity. */
  at(pixels, eps) {
    const result = this.turn.then(() => this.#run(pixels, eps)); // a session runs one thing at a time
    this.turn = result.catch(() => undefined);
    return result;
  }

  async #run(pixels, eps) {
    const { Tensor } = this.ort;
    const result = await this.session.run({ pixels: new Tensor("float32", pixels, [1, ...this.shape]), eps: new Tensor("float32", Float32Array.of(eps), [1]) });
    return {
      logits: [...result.logits.data],
      prediction: Number(result.prediction.data[0]),
      margins: [...result.margins.data],
      robustMargin: result.robust_margin.data[0],
    };
  }

  /**
   * The largest radius at which all margins' bounds are positive, to a relative `tolerance`, from below: the returned
   * radius is one that passed. The bounds fall with eps, so halving finds it; 0 where none passes at 1e-9.
   */
  async radius(pixels, tolerance = 1e-5) {
    const passes = async (eps) => (await this.at(pixels, eps)).robustMargin > 0;
    if (await passes(1)) return 1;
    let high = 1;
    let low = 1 / 64;
    while (!(await passes(low))) {
      high = low;
      low /= 8;
      if (low < 1e-9) return 0;
    }
    while (high / low > 8) {
      const middle = Math.sqrt(low * high);
      if (await passes(middle)) low = middle;
      else high = middle;
    }
    while (high - low > tolerance * high) {
      const middle = Math.fround((low + high) / 2);
      if (middle <= low || middle >= high) break;
      if (await passes(middle)) low = middle;
      else high = middle;
    }
    return low;
  }
}
