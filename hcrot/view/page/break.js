// Break: a defect in one layer, a short training beside a right one, and the gradient check's report.
import { chart } from "./chart.js";
import { choiceField, el, numberField, short } from "./dom.js";
import { paint, unpack } from "./pictures.js";
import { ask, cancel } from "./socket.js";

let defects, defect, layer, steps, lr, seed, code, report, curves, pictures, box, losses = [];

export function build(section, { about }) {
  defects = about.defects;
  defect = choiceField("Defect", "break-defect", defects.map(({ name, title }) => ({ value: name, text: title })));
  layer = choiceField("Layer", "break-layer", []);
  steps = numberField("Steps", "break-steps", 200, 1, 2000);
  lr = numberField("Learning rate", "break-lr", 0.003, 1e-6, 1, 0.001);
  seed = numberField("Seed", "break-seed", 0, 0, 2 ** 31);
  defect.select.addEventListener("change", describe);
  [code, report, curves] = [el("div", {}), el("div", { id: "break-report" }), el("div", { id: "break-curves" })];
  pictures = { right: el("canvas", { class: "pictures", hidden: true }), broken: el("canvas", { class: "pictures", hidden: true }) };
  box = el("div", { class: "split", id: "break-box" },
    el("div", { class: "card" }, curves, el("figure", {}, el("figcaption", {}, "right"), pictures.right), el("figure", {}, el("figcaption", {}, "with the defect"), pictures.broken)),
    el("div", { class: "card" }, el("h2", {}, "check_gradients says"), report));
  section.append(
    el("p", { class: "about" }, "A small network learns the 8x8 digits twice, with the same start, the same pictures and the same noise. One of the two has a defect in the backward of one layer. ",
      "Some defects show at once. Others only cost quality, and only the check finds them."),
    el("div", { class: "row" }, defect.box, layer.box, steps.box, lr.box, seed.box,
      el("button", { class: "main", id: "break-run", click: start }, "Train both"), el("button", { id: "break-stop", click: () => cancel("break") }, "Stop")),
    code, el("p", {}), box);
  describe();
}

function describe() {
  const chosen = defects.find(({ name }) => name === defect.value);
  layer.offer(chosen.layers);
  layer.value = chosen.layers.at(-1); // near the output it spoils most of the network
  code.replaceChildren(el("p", { class: "numbers" }, chosen.symptom),
    el("pre", {}, el("code", { class: "bad" }, `wrong   ${chosen.wrong}\n`), el("code", { class: "good" }, `right   ${chosen.right}`)));
}

function start() {
  losses = [];
  report.replaceChildren(el("p", { class: "numbers" }, "checking …"));
  for (const canvas of Object.values(pictures)) canvas.hidden = true;
  box.dataset.state = "training";
  const asked = { defect: defect.value, layer: layer.value, steps: steps.value, lr: lr.value, seed: seed.value };
  ask("break", "break", asked, (message) => {
    if (message.kind === "checked") checked(message);
    else if (message.kind === "losses") {
      losses.push(message);
      if (losses.length % 5 === 0 || message.step === message.of) draw();
    } else if (message.kind === "drawn") {
      for (const name of ["right", "broken"]) paint(pictures[name], unpack(message[name]), { columns: 10 });
    } else if (message.kind !== "begun") box.dataset.state = "done";
  });
}

/** Losses jump with the noise of each batch: a running mean shows where they go. */
function draw() {
  const x = losses.map(({ step }) => step);
  const lines = ["right", "broken"].map((name) => {
    let mean = losses[0][name];
    return { name: name === "broken" ? "with the defect" : name, x, y: losses.map((loss) => (mean = loss[name] == null ? null : 0.9 * (mean ?? loss[name]) + 0.1 * loss[name])) };
  });
  curves.replaceChildren(chart(lines, { log: true, title: `Loss, step ${x.at(-1)} of ${losses[0].of}` }));
}

function checked({ passed, problems, lines, of, wrong }) {
  report.replaceChildren(
    el("p", {}, passed ? `All ${of} gradients agree with differences of outputs.` : `${wrong} of ${of} gradients of this layer are wrong.`),
    ...problems.map((problem) => el("p", {}, el("code", { class: "bad" }, problem))),
    el("div", { class: "scroll" }, el("table", {}, el("tr", {}, ["gradient of", "verdict", "relative error"].map((text) => el("th", {}, text))),
      lines.map((line) => el("tr", { class: line.verdict === "ok" ? "" : "bad" }, el("td", {}, line.name), el("td", {}, line.verdict), el("td", {}, short(line.error, 2)))))));
}
