// Elements in one call, and the few kinds of fields that all tabs share.

/** el("p", {class: "about"}, "text", child, ...): functions among the attributes become listeners, booleans come or go. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A number with its label. What is typed outside the bounds comes back inside them, so that the server is asked for what it can do. */
export function numberField(label, id, value, least, most, step = 1) {
  const input = el("input", { type: "number", id, value, min: least, max: most, step });
  const read = () => {
    const typed = Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : value;
    const kept = Math.min(Math.max(typed, least), most);
    return step === 1 ? Math.round(kept) : kept;
  };
  input.addEventListener("change", () => { input.value = read(); });
  return { box: el("label", {}, label, input), input, get value() { return read(); }, set value(number) { input.value = number; } };
}

export function choiceField(label, id, choices, value) {
  const select = el("select", { id });
  const field = {
    box: el("label", {}, label, select), select,
    get value() { return select.value; },
    set value(chosen) { select.value = chosen; },
    /** New choices; what was chosen stays chosen if it is still there. */
    offer(words) {
      const before = select.value;
      select.replaceChildren(...words.map((word) => el("option", { value: word.value ?? word }, word.text ?? word)));
      if ([...select.options].some((option) => option.value === before)) select.value = before;
    },
  };
  field.offer(choices);
  if (value !== undefined) select.value = value;
  return field;
}

/** Buttons for classes, of which several or exactly one are pressed; "any" is null. */
export function classButtons(id, several, pressed) {
  const box = el("div", { class: "digits", id, role: "group", "aria-label": "Classes" });
  const field = {
    box, pressed: new Set(pressed), changed: () => {},
    offer(network) {
      const labels = network.classes.map((name, index) => [index, name]);
      if (network.guided) labels.push([null, "any"]);
      field.pressed = new Set([...field.pressed].filter((label) => labels.some(([known]) => known === label)));
      if (!field.pressed.size && labels.length) field.pressed.add(labels[0][0]);
      box.replaceChildren(...labels.map(([label, name]) => el("button", {
        type: "button", "aria-pressed": String(field.pressed.has(label)), "data-label": String(label), click: (event) => press(label, event.currentTarget),
      }, name)));
    },
    get value() { return [...field.pressed].sort((a, b) => (a ?? 99) - (b ?? 99)); },
  };
  function press(label, button) {
    if (!several) field.pressed = new Set([label]);
    else if (!field.pressed.has(label)) field.pressed.add(label);
    else if (field.pressed.size > 1) field.pressed.delete(label);
    for (const other of box.children) other.setAttribute("aria-pressed", "false");
    for (const label_ of field.pressed) box.querySelector(`[data-label="${label_}"]`).setAttribute("aria-pressed", "true");
    field.changed(button);
  }
  return field;
}

/** 0.01234 -> "0.0123", of any size, and a dash where there is nothing. */
export function short(number, digits = 3) {
  if (number == null) return "–";
  const size = Math.abs(number);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? number.toExponential(1) : String(Number(number.toPrecision(digits)));
}

/** Let a slider of time reach from one share of the times to another; where it stands stays the same share. */
export function stretch(slider, times, least, most) {
  const share = Number(slider.value) / Number(slider.dataset.times ?? 1000);
  slider.dataset.times = times;
  [slider.min, slider.max] = [Math.round(least * times), Math.min(Math.round(most * times), times - 1)];
  slider.value = Math.round(share * times);
}
