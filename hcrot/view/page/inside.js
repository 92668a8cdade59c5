// Look inside: the U-Net's picture with a number in each box; a click shows a layer's outputs, gradients, attention and its two passes.
import { classButtons, choiceField, el, numberField, short, stretch } from "./dom.js";
import { heat, paint, unpack } from "./pictures.js";
import { ask } from "./socket.js";
import { picture } from "./unet.js";

const MEASURES = [
  { value: "rms", text: "size of the output" }, { value: "gradient", text: "gradient that comes back" },
  { value: "parameter_gradient", text: "gradient of its weights" }, { value: "forward", text: "ms forward" }, { value: "backward", text: "ms backward" },
];
let page, digit, time, timeText, seed, measure, net, images, words, details, section_, about = null, layer = null, chosen = null;

export function build(section, given) {
  [page, section_] = [given, section];
  digit = classButtons("inside-digit", false, [3]);
  timeText = el("span", {}, "300");
  time = el("input", { type: "range", id: "inside-time", min: 0, max: 999, value: 300, input: () => { timeText.textContent = time.value; }, change: () => look() });
  seed = numberField("Seed", "inside-seed", 0, 0, 2 ** 31);
  measure = choiceField("Bars show", "inside-measure", MEASURES, "gradient");
  measure.select.addEventListener("change", redraw);
  digit.changed = () => look();
  net = el("div", { class: "card net" });
  images = el("div", { class: "halves" });
  words = el("p", { class: "numbers" });
  details = el("div", { class: "card", id: "inside-layer", hidden: true });
  section.append(
    el("p", { class: "about" }, "The network draws a picture, noise is added up to t, the network says which, and the error goes back through it. ",
      "Click a layer. Broken lines are the skips."),
    el("div", { class: "row" }, digit.box),
    el("div", { class: "row" }, el("label", { class: "wide" }, el("span", {}, "Noise, t = ", timeText), time), seed.box, measure.box,
      el("button", { class: "main", id: "inside-look", click: () => look() }, "Look")),
    words, net, el("p", {}), details, el("details", {}, el("summary", {}, "What the network was shown, and what it said"), images));
}

export function offer(network) {
  digit.offer(network);
  stretch(time, network.times, 0, 1);
  timeText.textContent = time.value;
  [about, layer, chosen] = [null, null, null];
  if (section_ && !section_.hidden) look();
}

export function shown(visible) {
  if (visible && !about) look();
}

export function repaint() {
  if (layer) showLayer();
}

function look() {
  section_.dataset.state = "looking";
  const asked = { network: page.network().name, labels: digit.value, seed: seed.value, t: Number(time.value) };
  ask("look", "inside", chosen ? { ...asked, layer: chosen } : asked, (message) => {
    if (message.kind === "network") {
      about = message;
      redraw();
    } else if (message.kind === "layer") {
      layer = message;
      showLayer();
    } else if (message.kind !== "begun") section_.dataset.state = "done";
  });
}

function redraw() {
  if (!about) return;
  net.replaceChildren(picture(about.nodes, about.skips, measure.value, chosen, choose));
  words.textContent = `${about.parameters.toLocaleString("en")} parameters, forward ${short(about.forward)} ms, backward ${short(about.backward)} ms, loss ${short(about.loss)}`;
  const captions = { x0: "x₀, what it drew", xt: "x_t, what it is shown", output: "what it says", target: "what it should say" };
  images.replaceChildren(...Object.entries(captions).map(([name, text]) => {
    const canvas = el("canvas", { class: "pictures" });
    paint(canvas, unpack(about.images[name]));
    return el("figure", {}, el("figcaption", {}, text), canvas);
  }));
}

function choose(name) {
  chosen = name;
  look();
}

/** Everything about the layer that was clicked. */
function showLayer() {
  details.hidden = false;
  details.replaceChildren(
    el("h2", {}, `${layer.name} (${layer.class})`),
    layer.parts.length ? el("div", { class: "row" }, "Its parts:", layer.parts.map((part) =>
      el("button", { click: () => choose(part) }, part.slice(layer.name.length + 1)))) : null,
    el("div", { class: "halves" }, mapsOf("Output", layer.output), mapsOf("Gradient that came back to it", layer.gradients)),
    layer.attention ? attention(layer.attention) : null,
    el("div", { class: "halves" },
      el("details", { open: true }, el("summary", {}, "forward"), el("pre", {}, layer.forward_source || "none of its own")),
      el("details", { open: true }, el("summary", {}, "backward"), el("pre", {}, layer.backward_source || "none of its own"))));
}

function mapsOf(title, found) {
  if (!found) return el("div", {}, el("h3", {}, title), el("p", { class: "numbers" }, "None: nothing is asked back of it."));
  const maps = unpack(found.maps), canvas = el("canvas", { class: "pictures pixels" });
  heat(canvas, maps, { columns: maps.shape[0] === 1 ? 1 : 8 });
  return el("div", {}, el("h3", {}, title),
    el("p", { class: "numbers" }, `${found.channels} channels, root mean square ${short(found.rms)}, from ${short(found.min)} to ${short(found.max)}`), canvas);
}

/** Where each pixel looks: the pixel is chosen by a click, and its row of the map shown as a picture, head by head. */
function attention({ heads, queries, keys, maps }) {
  const all = unpack(maps), side = Math.round(Math.sqrt(keys)), text = el("figcaption", {});
  const canvas = el("canvas", { class: "pictures pixels", id: "inside-attention", role: "img", "aria-label": "Attention of one pixel" });
  const choice = el("input", { type: "range", min: 0, max: queries - 1, value: Math.floor(queries / 2), "aria-label": "Pixel", input: show });
  function show() {
    const query = Number(choice.value), bytes = new Uint8Array(heads * keys);
    for (let h = 0; h < heads; h++) bytes.set(all.bytes.subarray((h * queries + query) * keys, (h * queries + query + 1) * keys), h * keys);
    heat(canvas, { shape: [heads, 1, keys / side, side], bytes }, { columns: heads });
    text.textContent = `Where pixel (${Math.floor(query / side)}, ${query % side}) looks, head by head`;
  }
  show();
  return el("div", {}, el("h3", {}, "Attention"), el("figure", {}, text, canvas), choice);
}
