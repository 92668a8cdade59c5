// Train: start a run of hcrot train, or follow one that is there. While the tab is seen it asks once a second for what is new.
import { chart } from "./chart.js";
import { choiceField, el, numberField, short } from "./dom.js";
import { askOnce } from "./socket.js";

const QUARTERS = ["least noise", "less", "more", "most noise"];
let page, name, data, minutes, lr, batch, seed, runs, stop, resume, rate, change, words, charts, samples, log, lines = 0, last = null, before = "", visible = false, timer = null, begun = false, shownRun = "", rateShown = null;

export function build(section, given) {
  page = given;
  name = el("input", { type: "text", id: "train-name", value: "first", maxlength: 40 });
  data = choiceField("Pictures", "train-data", given.about.data);
  minutes = numberField("Minutes", "train-minutes", 3, 0.05, 10000, 0.05);
  lr = numberField("Learning rate", "train-lr", 0.001, 2e-7, 1, 0.0001);
  batch = numberField("Batch", "train-batch", 64, 1, 4096);
  seed = numberField("Seed", "train-seed", 0, 0, 2 ** 31);
  runs = choiceField("Run", "train-run", []);
  runs.select.addEventListener("change", () => { lines = -1; poll(); });
  stop = el("button", { id: "train-stop", disabled: true, click: () => act("stop", { name: runs.value }) }, "Stop and save");
  resume = el("button", { id: "train-resume", disabled: true, click: () => act("resume", { name: runs.value, minutes: minutes.value, lr: rate.value, data: data.value }) }, "Go on");
  rate = numberField("Its learning rate", "train-rate", 0.001, 2e-7, 1, 0.0001);
  change = el("button", { id: "train-change", disabled: true, click: () => act("change", { name: runs.value, lr: rate.value }) }, "Change");
  [words, charts, samples] = [el("p", { class: "numbers", id: "train-words" }), el("div", { class: "halves", id: "train-charts" }), el("div", {})];
  log = el("pre", { id: "train-log" });
  section.append(
    el("p", { class: "about" }, "A run is a process of its own: closing this page does not end it. “Stop” lets it end its step and save; “Go on” gives it as many minutes as stand here. “Change” gives it another highest learning rate while it runs; “Go on” takes that rate, too."),
    el("div", { class: "row" }, el("label", {}, "Name", name), data.box, minutes.box, lr.box, batch.box, seed.box,
      el("button", { class: "main", id: "train-start", click: start }, "Start")),
    el("div", { class: "row" }, runs.box, stop, resume, rate.box, change), words, charts, samples, el("details", { open: true }, el("summary", {}, "What it says"), log));
}

export function shown(now) {
  visible = now;
  if (now) poll();
}

async function start() {
  const asked = { name: name.value, data: data.value, minutes: minutes.value, lr: lr.value, batch: batch.value, seed: seed.value };
  if (await act("start", asked)) runs.value = asked.name;
  lines = -1;
}

async function act(doing, asked) {
  try {
    await askOnce(doing, asked);
    await list();
    return true;
  } catch {
    return false; // the status line says why
  }
}

async function list() {
  const found = (await askOnce("runs")).runs;
  runs.offer(found.map((run) => ({ value: run.name, text: `${run.name}${run.state === "stopped" ? "" : ` (${run.state})`}` })));
}

/** One question at a time: a slow tab asks less often, and nobody waits for it. */
async function poll() {
  clearTimeout(timer);
  if (!visible || begun) return;
  begun = true;
  try {
    await list();
    if (runs.value) show(await askOnce("follow", { name: runs.value, lines: Math.max(0, lines) }));
    else words.textContent = "No run yet.";
  } catch { /* the status line says why */ }
  begun = false;
  timer = setTimeout(poll, 1000);
}

function show(run) {
  if (run.name !== runs.value) return; // asked before another one was chosen
  if (run.name !== shownRun) {
    [shownRun, last] = [run.name, null];
    charts.replaceChildren();
    samples.replaceChildren();
    delete samples.dataset.shown;
  }
  const now = `${run.name} ${run.state}`;
  if (now !== before) page.refresh().catch(() => {}); // a run that has ended has a network that can be used
  before = now;
  stop.disabled = change.disabled = run.state === "stopped" || run.state !== "running" && run.lr === null;
  if (run.lr !== null && rateShown !== `${run.name} ${run.lr}`) { // a number that is being typed stays
    rate.value = run.lr;
    rateShown = `${run.name} ${run.lr}`;
  }
  resume.disabled = run.state !== "stopped";
  log.textContent = run.log;
  if (run.curves) {
    lines = run.lines;
    const { step, loss, grad_norm, quarters } = run.curves;
    charts.replaceChildren(
      el("div", { class: "card" }, chart([{ name: "loss", x: step, y: loss }], { log: true, title: "Loss" })),
      el("div", { class: "card" }, chart([{ name: "gradient", x: step, y: grad_norm }], { log: true, title: "Norm of the gradient" })));
    if (quarters.length) {
      const curves = quarters.map((y, k) => ({ name: QUARTERS[k], x: step, y }));
      charts.append(el("div", { class: "card" }, chart(curves, { log: true, title: "Loss by time: how noisy the picture was" })));
    }
  }
  last = run.last;
  const state = `${run.name} is ${run.state}`;
  if (last) words.textContent = `${state}: step ${last.step}, loss ${short(last.loss)}, learning rate ${short(last.lr)}${run.lr === null ? "" : ` of at most ${short(run.lr)}`}, ${Math.round(last.seconds ?? 0)} s`;
  else words.textContent = `${state}: it has not begun to learn yet`;
  const latest = run.pictures.at(-1);
  if (latest && samples.dataset.shown !== `${run.name}/${latest}`) {
    samples.dataset.shown = `${run.name}/${latest}`;
    samples.replaceChildren(el("figure", {}, el("figcaption", {}, latest), el("img", { class: "samples", alt: `samples of ${run.name}`, src: `/runs/${run.name}/${latest}` })));
  } else if (!latest) samples.replaceChildren();
}
