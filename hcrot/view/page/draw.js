// Draw: the same pictures in up to four columns, each with its own sampler, steps, guidance and seed. Steps are kept, to scrub back.
import { classButtons, choiceField, el, numberField } from "./dom.js";
import { paint, unpack } from "./pictures.js";
import { ask, cancel } from "./socket.js";

const SAMPLERS = ["ddpm", "ddim", "pndm", "dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "euler-a", "heun"];
const MOST = 4;
const KEPT = 30_000_000; // bytes of a column's frames: of a longer drawing every second one is forgotten, again and again
let columns = [], digits, holder, slider, place, run, stop, differ, page, running = false;

export function build(section, given) {
  page = given;
  digits = classButtons("draw-digits", true, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  run = el("button", { class: "main", id: "draw-run", click: start }, "Draw");
  stop = el("button", { id: "draw-stop", disabled: true, click: () => cancel("draw") }, "Stop");
  const add = el("button", { id: "draw-add", click: () => { if (columns.length < MOST) { addColumn(columns.at(-1)); start(); } } }, "Add a column");
  differ = el("button", { id: "draw-differ", "aria-pressed": "false", click: toggle }, "Show what differs");
  slider = el("input", { type: "range", id: "draw-scrub", min: 0, max: 1000, value: 1000, "aria-label": "Step", input: show });
  place = el("output", { id: "draw-place" });
  holder = el("div", { class: "columns" });
  section.append(
    el("p", { class: "about" }, "Noise becomes pictures, step by step: above what the network is given, below what it takes the end to be. ",
      "A column that is added is a copy with the same seed: change one thing, and see what changes."),
    el("div", { class: "row" }, digits.box), el("div", { class: "row" }, run, stop, add, differ),
    holder, el("div", { class: "scrub" }, slider, place),
  );
  addColumn(null);
}

export function offer(network) {
  digits.offer(network);
}

function addColumn(like) {
  const n = columns.length + 1;
  const sampler = choiceField("Sampler", `sampler-${n}`, SAMPLERS, like?.sampler.value ?? "sde-dpmsolver++");
  const steps = numberField("Steps", `steps-${n}`, like?.steps.value ?? 25, 1, 1000);
  const guidance = numberField("Guidance", `guidance-${n}`, like?.guidance.value ?? 1.5, 0, 20, 0.1);
  const seed = numberField("Seed", `seed-${n}`, like?.seed.value ?? 0, 0, 2 ** 31);
  const noisy = el("canvas", { class: "pictures", hidden: true, role: "img", "aria-label": "what the network is given" });
  const clean = el("canvas", { class: "pictures", hidden: true, role: "img", "aria-label": "the predicted end" });
  const time = el("span", { class: "numbers" });
  const column = { sampler, steps, guidance, seed, noisy, clean, time, frames: [] };
  const remove = el("button", { class: "remove", "aria-label": `Remove column ${n}`, click: () => drop(column) }, "×");
  column.card = el("div", { class: "card", "data-column": n },
    el("div", { class: "fields" }, sampler.box, steps.box, guidance.box, seed.box),
    el("figure", {}, el("figcaption", {}, "x", el("sub", {}, "t"), " ", time), noisy),
    el("figure", {}, el("figcaption", {}, "predicted x", el("sub", {}, "0")), clean),
    n > 1 ? remove : null);
  for (const field of [steps, guidance, seed]) field.input.addEventListener("keydown", (event) => { if (event.key === "Enter") start(); });
  columns.push(column);
  holder.append(column.card);
}

function drop(column) {
  if (running) cancel("draw");
  columns = columns.filter((other) => other !== column);
  column.card.remove();
}

function start() {
  const values = columns.map(({ sampler, steps, guidance, seed }) => ({
    sampler: sampler.value, steps: steps.value, guidance: guidance.value, seed: seed.value,
  }));
  for (const column of columns) column.frames = [];
  const drawing = [...columns]; // a column that is removed meanwhile must not shift the others
  slider.value = slider.max;
  state(true);
  ask("draw", "draw", { network: page.network().name, labels: digits.value, count: 10, columns: values }, (message) => {
    const column = drawing[message.column];
    if (message.kind === "step" || message.kind === "picture") {
      if (bytesOf(column.frames) > KEPT) column.frames = column.frames.filter((_, index) => index % 2 === 0);
      const { step, t, second } = message;
      column.frames.push({ step, t, second, x: unpack(message.x), x0: unpack(message.x0) });
      if (slider.value === slider.max) show();
    } else if (["done", "error", "cancelled"].includes(message.kind)) state(false);
  });
}

function bytesOf(frames) {
  return frames.reduce((sum, { x, x0 }) => sum + x.bytes.length + x0.bytes.length, 0);
}

function state(drawing) {
  running = drawing;
  stop.disabled = !drawing;
  holder.dataset.state = drawing ? "drawing" : "done"; // for who waits for the end
}

function toggle() {
  differ.setAttribute("aria-pressed", String(differ.getAttribute("aria-pressed") === "false"));
  show();
}

/** Every column at the same share of its own way. */
function show() {
  const share = slider.value / slider.max, difference = differ.getAttribute("aria-pressed") === "true";
  const frameOf = ({ frames }) => frames[Math.round(share * (frames.length - 1))];
  const first = columns[0] && frameOf(columns[0]);
  for (const column of columns) {
    const frame = frameOf(column);
    if (!frame) continue;
    const other = difference && column !== columns[0] && first?.x.bytes.length === frame.x.bytes.length ? first : null;
    paint(column.noisy, frame.x, { other: other?.x });
    paint(column.clean, frame.x0, { other: other?.x0 });
    column.time.textContent = frame.t < 0 ? "done" : `t = ${Math.round(frame.t)}${frame.second ? ", second network" : ""}`;
  }
  place.textContent = first ? `step ${first.step} of ${columns[0].frames.at(-1).step}` : "";
}
