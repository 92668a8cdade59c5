// Curves as SVG: a few lines, one axis, a logarithm if asked for.
import { el, short, svg } from "./dom.js";

const COLOURS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"];
const WIDTH = 460, HEIGHT = 200, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;

/** A box with the chart and its legend. `lines` is [{name, x: [...], y: [...]}]; empty values are left out. */
export function chart(lines, { log = false, title = "" } = {}) {
  const points = lines.map(({ x, y }) => x.map((value, index) => [value, y[index]])
    .filter(([, value]) => value != null && (!log || value > 0)).map(([a, b]) => [a, log ? Math.log10(b) : b]));
  const all = points.flat();
  const box = el("figure", {}, title ? el("figcaption", {}, title) : null);
  if (!all.length) return box.append(el("p", { class: "numbers" }, "Nothing yet.")), box;
  const [x0, x1] = range(all.map(([x]) => x)), [y0, y1] = range(all.map(([, y]) => y));
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title || lines.map((line) => line.name).join(", ") });
  for (let k = 0; k <= 3; k++) {
    const y = y0 + (k / 3) * (y1 - y0);
    picture.append(
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(y), y2: py(y) }),
      svg("text", { class: "faint", x: LEFT - 5, y: py(y) + 3, "text-anchor": "end" }, short(log ? 10 ** y : y, 2)),
    );
  }
  picture.append(
    svg("text", { class: "faint", x: LEFT, y: HEIGHT - 6 }, `step ${short(x0, 6)}`),
    svg("text", { class: "faint", x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, short(x1, 6)),
  );
  points.forEach((line, index) => picture.append(svg("path", {
    stroke: COLOURS[index % COLOURS.length], d: line.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join(""),
  })));
  box.append(picture);
  if (lines.length > 1) {
    box.append(el("div", { class: "legend" }, lines.map((line, index) => {
      const mark = el("i");
      mark.style.background = COLOURS[index % COLOURS.length]; // not an attribute: the page's policy forbids inline style
      return el("span", {}, mark, line.name);
    })));
  }
  return box;
}

function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}
