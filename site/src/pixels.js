// Images as float32 pixels [C, H, W] in [0, 1], as the models take them, and onto canvases.

/** The sheet of bundled images: .tile(i) gives float32 pixels [C, H, W], k -> fl32(k / 255) as torch computes it. */
export async function loadSheet(url, { tile: [height, width, channels], columns }) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  return {
    url,
    rows: image.naturalHeight / height,
    columns,
    tile(i) {
      const { data } = context.getImageData((i % columns) * width, Math.floor(i / columns) * height, width, height);
      return fromRgba(data, [channels, height, width]);
    },
  };
}

/** Float32 pixels of canvas data; one channel: the mean of red, green and blue (they agree in grey images). */
export function fromRgba(data, [channels, height, width]) {
  const out = new Float32Array(channels * height * width);
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < channels; c++) {
      const level = channels === 1 ? Math.round((data[4 * p] + data[4 * p + 1] + data[4 * p + 2]) / 3) : data[4 * p + c];
      out[c * height * width + p] = level / 255;
    }
  }
  return out;
}

/** Draws pixels [C, H, W], each first moved by `shift` and cut to [0, 1]. */
export function paint(canvas, pixels, [channels, height, width], shift = 0) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) {
      const value = pixels[(channels === 1 ? 0 : c) * height * width + p] + shift;
      image.data[4 * p + c] = Math.round(255 * Math.min(1, Math.max(0, value)));
    }
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
