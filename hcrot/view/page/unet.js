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
  for (const node of lastOfLevels(way)) {
    const { x, y } = places[node.name], [channels, rows, columns] = firstOf(way, node).shape;
    root.append(svg("text", { class: "faint", x: x + BOX.width + 16, y: y + 17 }, `${rows}x${columns} pixels`));
    root.append(svg("text", { class: "faint", x: x + BOX.width + 16, y: y + 30 }, `${channels} channels`));
  }
  return root;
}

/** Where each box is: a row for each level, those of one side one below the other, and the mid block below, so that the U has a bottom. */
function placed(nodes) {
  const places = {}, step = BOX.width + BOX.gap, shift = 0.45 * step;
  const depth = Math.max(...nodes.map(({ level }) => level));
  const rowsOf = (side) => [...Array(depth + 1).keys()].map((level) => nodes.filter((node) => node.side === side && node.level === level));
  const put = (row, x, y) => row.forEach((node, k) => { places[node.name] = { x: x + k * step, y }; });
  const y = (row) => BOX.top + row * BOX.row;
  nodes.filter(({ side }) => side === "time").forEach((node, k) => { places[node.name] = { x: BOX.left + k * (step + 26), y: 8, wide: 22 }; });
  const down = rowsOf("down"), up = rowsOf("up"), middle = nodes.filter(({ side }) => side === "mid");
  down.forEach((row, level) => put(row, BOX.left + level * shift, y(level)));
  const right = Math.max(...down.map((row, level) => BOX.left + level * shift + row.length * step));
  const start = Math.max(BOX.left + (depth + 1) * shift, right - 0.6 * step);
  put(middle, start, y(depth + 1));
  const edge = Math.max(right + 1.4 * step, start + (middle.length + 0.4) * step), widest = Math.max(...up.map((row) => row.length));
  up.forEach((row, level) => put(row, edge + (widest - row.length) * step * 0.5 + (depth - level) * shift * 0.3, y(level)));
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

/** The last box of each level on the way down: beside it there is room. */
function lastOfLevels(way) {
  return way.filter((node, k) => node.side === "down" && (way[k + 1]?.side !== "down" || way[k + 1].level !== node.level));
}

/** The first of a level that is no resampler has the level's size. */
function firstOf(way, node) {
  return way.find(({ side, level, kind }) => side === "down" && level === node.level && kind !== "down");
}
