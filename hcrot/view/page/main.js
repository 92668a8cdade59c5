// Tabs, theme, the list of networks, and what the status line says.
import { el } from "./dom.js";
import { askOnce, connect } from "./socket.js";
import * as breaking from "./break.js";
import * as draw from "./draw.js";
import * as edit from "./edit.js";
import * as inside from "./inside.js";
import * as train from "./train.js";

const tabs = { draw, edit, inside, train, break: breaking };
const buttons = [...document.querySelectorAll("[role=tab]")], status = document.getElementById("status");
const select = document.getElementById("network");
let networks = [], built = false;

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

/** Show one tab. Others keep what they show, but do no work while nobody sees them. */
function show(name, focus = false) {
  for (const button of buttons) {
    const chosen = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) button.focus();
  }
  for (const other of Object.keys(tabs)) {
    document.getElementById(other).hidden = other !== name;
    tabs[other].shown?.(other === name);
  }
  select.parentElement.hidden = ["train", "break"].includes(name); // they use networks of their own
  history.replaceState(null, "", `#${name}`);
}

function network() {
  return networks.find((known) => known.name === select.value) ?? networks[0];
}

/** "16x16", and what a second network makes of it. */
function sizes({ size, enlarged }) {
  return enlarged ? `${size}x${size}, enlarged to ${enlarged}x${enlarged}` : `${size}x${size}`;
}

async function refresh() {
  const about = await askOnce("about");
  const before = select.value;
  networks = about.networks;
  select.replaceChildren(...networks.map((known) => el("option", { value: known.name }, `${known.name} (${sizes(known)})`)));
  if (networks.some(({ name }) => name === before)) select.value = before;
  if (!built) {
    built = true;
    for (const [name, tab] of Object.entries(tabs)) tab.build(document.getElementById(name), { network, about, say, refresh });
    show(tabs[location.hash.slice(1)] ? location.hash.slice(1) : "draw");
  }
  for (const tab of Object.values(tabs)) tab.offer?.(network());
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  for (const tab of Object.values(tabs)) tab.repaint?.(); // heat maps have the page's colour where they are zero
}

for (const button of buttons) button.addEventListener("click", () => show(button.id.slice(4)));
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!way) return;
  const at = buttons.findIndex((button) => button.getAttribute("aria-selected") === "true");
  show(buttons[(at + way + buttons.length) % buttons.length].id.slice(4), true);
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = buttons[Number(event.key) - 1]; // 1 to 5
  if (button) show(button.id.slice(4), true);
});
select.addEventListener("change", () => { for (const tab of Object.values(tabs)) tab.offer?.(network()); });
document.getElementById("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
connect(say, () => refresh().catch((error) => say(error.message, true)));
