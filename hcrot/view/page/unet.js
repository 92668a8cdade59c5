// The picture of a U-Net, from what the server says of the model: levels from top to bottom, the way down at the left, up at the right.
import { short, svg } from "./dom.js";

const BOX = { width: 62, height: 40, gap: 12, row: 92, top: 74, left: 14 };
const NAMES = { resnet: "residual", attention: "attention", conv: "conv", down: "halve", up: "double", norm: "norm", embedding: "embedding" };

/** An <svg> whose boxes call `clicked(name)`. `measure` is the key of the number that a box's bar shows. */
export function picture(nodes, skips, measure, chosen, clicked) {
  const places = placed(nodes), width = Math.max(...Object.values(places).map(({ x }) => x)) + BOX.width + BOX.left;
  const height = Math.max(...Object.values(places).map(({ y }) => y)) + BOX.height + 26;
  const root = svg("svg", { class: "net", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "The layers of the network" });
  root.append(svg("defs", {}, svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" },
    svg("path", { d: "M0 0L8 4L0 8z", fill: "context-stroke" }))));
  const way = nodes.filter(({ side }) => side !== "time");
  for (let k = 1; k < way.length; k++) root.append(line(places[way[k - 1].name], places[way[k].name]));
  for (const [from, to] of skips) root.append(arc(places[from], places[to]));
  const largest = Math.max(...nodes.map((node) => node[measure] ?? 0)) || 1;
  for (const node of nodes) root.append(boxOf(node, places[node.name], Math.max(0, node[measure] ?? 0) / largest, measure, node.name === chosen, clicked));
  for (const node of firstOfLevels(way)) {
    root.append(svg("text", { class: "faint", x: BOX.left, y: places[node.name].y - 8 }, `${node.shape[1]}x${node.shape[2]} pixels, ${node.shape[0]} channels`));
  }
  return root;
}

/** Where each box is. The way down ends where the mid block begins, and the way up is shifted so that it begins after that. */
function placed(nodes) {
  const places = {}, depth = Math.max(...nodes.map(({ level }) => level));
  let x = BOX.left;
  const step = BOX.width + BOX.gap;
  let times = 0;
  for (const node of nodes) {
    if (node.side === "time") {
      places[node.name] = { x: BOX.left + times++ * (step + 26), y: 8, wide: 22 };
      continue;
    }
    // the mid block lies below the deepest level, so that the U has a bottom
    const row = node.side === "mid" ? depth + 1 : node.level;
    places[node.name] = { x, y: BOX.top + row * BOX.row };
    x += step;
  }
  return compressed(nodes, places, step);
}

/** Boxes that stand in different rows may overlap in x: each side is drawn together, so that the picture is not too wide. */
function compressed(nodes, places, step) {
  const rows = {};
  for (const node of nodes.filter(({ side }) => side !== "time")) (rows[`${node.side} ${places[node.name].y}`] ??= []).push(node);
  const sides = (side) => Object.keys(rows).filter((key) => key.startsWith(side)).map((key) => rows[key]);
  let indent = 0, right = 0;
  for (const row of sides("down")) {
    row.forEach((node, k) => { places[node.name].x = BOX.left + indent + k * step; });
    right = Math.max(right, BOX.left + indent + row.length * step);
    indent += 0.45 * step;
  }
  const middle = sides("mid")[0] ?? [], start = Math.max(BOX.left + indent, right - 0.6 * step);
  middle.forEach((node, k) => { places[node.name].x = start + k * step; });
  const edge = Math.max(right, start + middle.length * step) + 0.3 * step;
  const up = sides("up"), widest = Math.max(...up.map((row) => row.length)), total = up.length;
  up.forEach((row, r) => row.forEach((node, k) => {
    places[node.name].x = edge + (widest - row.length) * step * 0.5 + k * step - (total - 1 - r) * 0 + r * 0.45 * step - 0.45 * step;
  }));
  return places;
}

function boxOf(node, { x, y, wide = 0 }, share, measure, pressed, clicked) {
  const height = node.side === "time" ? 32 : BOX.height, width = BOX.width + wide;
  const group = svg("g", {
    role: "button", tabindex: 0, "data-layer": node.name, "aria-pressed": String(pressed), "aria-label": `${node.name}, ${NAMES[node.kind]}`,
    click: () => clicked(node.name), keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); clicked(node.name); } },
  });
  const label = node.name === "time_embedding" ? "time" : node.name === "class_embedding" ? "class" : NAMES[node.kind];
  group.append(
    svg("title", {}, `${node.name}: ${measure} ${short(node[measure])}`),
    svg("rect", { class: "box", x, y, width, height, rx: 7 }),
    svg("rect", { class: "heat", x: x + 6, y: y + height - 9, width: Math.max(1, (width - 12) * share), height: 4, rx: 2 }),
    svg("text", { x: x + width / 2, y: y + 15, "text-anchor": "middle" }, label),
    svg("text", { class: "faint", x: x + width / 2, y: y + 27, "text-anchor": "middle" }, node.side === "time" ? "" : short(node[measure])),
  );
  return group;
}

function line(a, b) {
  const level = a.y === b.y;
  const from = level ? [a.x + BOX.width, a.y + 20] : [a.x + BOX.width / 2, a.y < b.y ? a.y + BOX.height : a.y];
  const to = level ? [b.x - 2, b.y + 20] : [b.x + BOX.width / 2, a.y < b.y ? b.y - 2 : b.y + BOX.height + 2];
  const bend = (from[1] + to[1]) / 2;
  const d = level ? `M${from}L${to}` : `M${from}C${from[0]} ${bend} ${to[0]} ${bend} ${to}`;
  return svg("path", { class: "flow", d, "marker-end": "url(#tip)" });
}

/** A skip leaves a box at its top and arrives at another's top. */
function arc(a, b) {
  const from = [a.x + BOX.width / 2 + 8, a.y], to = [b.x + BOX.width / 2 - 8, b.y - 2];
  const top = Math.min(from[1], to[1]) - 24 - 0.02 * Math.abs(to[0] - from[0]);
  return svg("path", { class: "skip", d: `M${from}C${from[0] + 20} ${top} ${to[0] - 20} ${top} ${to}`, "marker-end": "url(#tip)" });
}

function firstOfLevels(way) {
  return way.filter((node, k) => node.shape.length === 3 && (k === 0 || (node.side === "down" && way[k - 1].level !== node.level)));
}
