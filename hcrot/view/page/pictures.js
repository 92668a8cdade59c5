// Bytes from the server become pictures on canvases.

/** {shape, data} of the server: the shape and the bytes. */
export function unpack(packed) {
  const text = atob(packed.data), bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return { shape: packed.shape, bytes };
}

/** Paint pictures (N, C, H, W) in a grid. `other`, if given, is subtracted first: what is alike becomes black. */
export function paint(canvas, images, { columns = even(images.shape[0]), other = null } = {}) {
  const [count, channels, height, width] = images.shape, gap = 1, rows = Math.ceil(count / columns);
  const small = document.createElement("canvas");
  small.width = columns * (width + gap) - gap;
  small.height = rows * (height + gap) - gap;
  const context = small.getContext("2d"), plane = height * width;
  for (let n = 0; n < count; n++) {
    const data = context.createImageData(width, height);
    for (let p = 0; p < plane; p++) {
      for (let c = 0; c < 3; c++) {
        const at = (n * channels + (channels === 1 ? 0 : c)) * plane + p;
        data.data[4 * p + c] = other ? Math.abs(images.bytes[at] - other.bytes[at]) : images.bytes[at];
      }
      data.data[4 * p + 3] = 255;
    }
    context.putImageData(data, (n % columns) * (width + gap), Math.floor(n / columns) * (height + gap));
  }
  // enlarged smoothly, to some 112 pixels: digits of 14x14 are easier to read without their squares
  const times = Math.max(2, Math.round(112 / width));
  canvas.width = small.width * times;
  canvas.height = small.height * times;
  canvas.hidden = false;
  const large = canvas.getContext("2d");
  large.imageSmoothingQuality = "high";
  large.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** So many columns that rows have at most five pictures and are nearly alike. */
function even(count) {
  return Math.ceil(count / Math.ceil(count / 5));
}

/** One heat map per row of (N, 1, H, W): blue is below zero, red above, and white or black, by the theme, is zero. */
export function heat(canvas, maps, { only = null, columns = 8 } = {}) {
  const [all, , height, width] = maps.shape, plane = height * width;
  const shown = only === null ? [...Array(all).keys()] : [only];
  columns = Math.min(columns, shown.length);
  const dark = document.documentElement.dataset.theme === "dark", gap = 1;
  canvas.width = columns * (width + gap) - gap;
  canvas.height = Math.ceil(shown.length / columns) * (height + gap) - gap;
  const context = canvas.getContext("2d");
  shown.forEach((n, place) => {
    const data = context.createImageData(width, height);
    for (let p = 0; p < plane; p++) data.data.set(colour((maps.bytes[n * plane + p] - 128) / 127, dark), 4 * p);
    context.putImageData(data, (place % columns) * (width + gap), Math.floor(place / columns) * (height + gap));
  });
}

/** Of a number from -1 to 1; the root makes small ones visible. */
export function colour(value, dark) {
  const size = Math.sqrt(Math.min(1, Math.abs(value)));
  const end = value < 0 ? [66, 133, 214] : [222, 96, 58], zero = dark ? [22, 25, 27] : [250, 249, 246];
  return [...end.map((part, index) => zero[index] + size * (part - zero[index])), 255];
}
