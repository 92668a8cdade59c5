// Edit: finish a scribble (SDEdit), fill a hole (RePaint), morph between two pictures.
import { classButtons, choiceField, el, numberField, stretch } from "./dom.js";
import { Pad } from "./pad.js";
import { paint, unpack } from "./pictures.js";
import { ask, cancel } from "./socket.js";

const pad = new Pad("edit-pad");
let page, becomes, level, steps, guidance, seed, sampler, here, there, first, second, otherSeed, tools, colour, box;

export function build(section, given) {
  page = given;
  becomes = classButtons("edit-class", false, [3]);
  level = el("input", { type: "range", id: "edit-level", min: 20, max: 980, value: 550, "aria-label": "How far it is noised" });
  steps = numberField("Steps", "edit-steps", 25, 2, 250);
  guidance = numberField("Guidance", "edit-guidance", 1.5, 0, 20, 0.1);
  seed = numberField("Seed", "edit-seed", 0, 0, 2 ** 31);
  sampler = choiceField("Sampler (to finish)", "edit-sampler", ["ddim", "ddpm", "sde-dpmsolver++"], "ddim");
  otherSeed = numberField("Seed of the second", "edit-other-seed", 1, 0, 2 ** 31);
  [first, second] = [choiceField("From", "edit-first", []), choiceField("To", "edit-second", [])];
  [here, there] = ["edit-result", "edit-between"].map((id) => ({
    canvas: el("canvas", { class: "pictures", id, hidden: true, role: "img", "aria-label": "Result" }), caption: el("figcaption", {}),
  }));
  tools = Object.entries({ pen: "Pen", rubber: "Rub out" }).map(([name, text]) => el("button", {
    id: `edit-${name}`, "aria-pressed": String(name === "pen"), click: () => use(name),
  }, text));
  colour = el("input", { type: "color", id: "edit-colour", value: "#d0402b", "aria-label": "Colour of the pen", input: () => { pad.colour = colour.value; } });
  pad.colour = colour.value;
  box = el("div", { class: "card", id: "edit-box" },
    el("div", { class: "row" }, steps.box, guidance.box, seed.box, sampler.box),
    el("label", {}, el("span", { class: "numbers" }, "How far it is noised: little keeps what is drawn, much keeps only the large shape"), level),
    el("h3", {}, "What it is to be"), becomes.box, el("p", {}),
    el("div", { class: "row" },
      el("button", { class: "main", id: "edit-finish", click: () => start("finish", "finished by SDEdit") }, "Finish the scribble"),
      el("button", { class: "main", id: "edit-fill", click: () => start("fill", "filled by RePaint") }, "Fill what is rubbed out"),
      el("button", { id: "edit-stop", click: () => cancel("edit") }, "Stop")),
    el("figure", {}, here.caption, here.canvas));
  section.append(
    el("p", { class: "about" }, "Scribble a picture, or take one that the network draws. Let it be finished; or rub out a part (orange) and let that be drawn anew. ",
      "The rest stays as it is, pixel by pixel, until a second network enlarges it."),
    el("div", { class: "halves" },
      el("div", {}, el("div", { class: "row" }, tools, colour,
        el("button", { id: "edit-clear", click: () => pad.clear() }, "Clear"),
        el("button", { id: "edit-pick", click: pick }, "Take a drawn one")), pad.canvas),
      box),
    el("div", { class: "card morph" }, el("h2", {}, "Morph"),
      el("p", { class: "about" }, "Two pictures are noised alike, mixed, and what is mixed becomes a picture again."),
      el("div", { class: "row" }, first.box, second.box, otherSeed.box, el("button", { class: "main", id: "edit-morph", click: morph }, "Morph")),
      el("figure", {}, there.caption, there.canvas)));
}

export function offer(network) {
  pad.resize(network.size, network.channels);
  colour.hidden = network.channels !== 3;
  becomes.offer(network);
  stretch(level, network.times, 0.02, 0.98);
  const words = network.classes.map((text, value) => ({ text, value: String(value) }));
  first.offer(words);
  second.offer(words);
  if (words.length > 8 && first.value === second.value) [first.value, second.value] = ["3", "8"];
}

function use(name) {
  pad.tool = name;
  for (const tool of tools) tool.setAttribute("aria-pressed", String(tool.id === `edit-${name}`));
}

function values() {
  return {
    network: page.network().name, labels: becomes.value, steps: steps.value, guidance: guidance.value, seed: seed.value,
    sampler: sampler.value, level: Number(level.value), count: 6,
  };
}

function start(doing, words) {
  follow(doing, { ...values(), picture: pad.picture, hole: pad.rubbedOut }, words, here);
}

function morph() {
  const labels = page.network().classes.length ? [Number(first.value), Number(second.value)] : [0];
  follow("morph", { ...values(), labels, other_seed: otherSeed.value, count: 9 }, "from one to the other", there);
}

/** Show what comes: on the way the predicted ends, at last the pictures. */
function follow(doing, asked, words, { canvas, caption }) {
  box.dataset.state = "drawing";
  canvas.scrollIntoView({ block: "nearest", behavior: "smooth" });
  ask(doing, "edit", asked, (message) => {
    if (message.kind === "step") {
      show(canvas, message.x0);
      caption.textContent = `on the way, t = ${Math.round(message.t)}: the predicted ends`;
    } else if (message.kind === "images") {
      show(canvas, message.images);
      caption.textContent = `${message.images.shape[0]} pictures, ${words}`;
    } else if (message.kind !== "begun") box.dataset.state = "done";
  });
}

/** Six in two rows, a row of nine as it is. */
function show(canvas, images) {
  paint(canvas, unpack(images), { columns: images.shape[0] > 6 ? images.shape[0] : 3 });
}

function pick() {
  ask("pick", "edit", values(), (message) => { if (message.kind === "images") pad.load(unpack(message.images)); });
}
