// Sliders where no kernel runs. Every state that they lead to is in the page (tools/alive.py); what draws it is the same
// code as in the notebook, which finds here the few methods of a widget's model that it uses: get, and on.
"use strict";

const PANELS = {}; // by the id of the cell: { view, packed }

async function revive(place) {
  const { view, packed } = PANELS[place.dataset.cell];
  const { traits, controls, trait, states } = await unpack(packed);
  const listeners = {};
  const model = {
    get: (name) => traits[name],
    on: (events, listener) => events.split(" ").forEach((event) => (listeners[event] ??= []).push(listener)),
  };
  const set = (name, value) => {
    traits[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
  };
  const move = () => {
    for (const { at, sets } of controls) for (const link of sets) set(link.trait, link.values[at]);
    if (states) set(trait, states[controls.reduce((row, { at, shown }) => row * shown.length + at, 0)]);
  };
  const column = document.createElement("div"), drawing = document.createElement("div");
  column.className = "controls-of-panel";
  drawing.className = "drawing-of-panel";
  column.append(...controls.map((control) => slider(control, move)));
  place.append(column, drawing);
  await view.render({ model, el: drawing });
}

const bytes = (letters) => Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));

async function unpack(packed) {
  const unzipped = new Blob([bytes(packed)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const known = await new Response(unzipped).json();
  for (const name of known.pictures) known.traits[name] = known.traits[name].map(bytes);
  return known;
}

// A label, the handle, and what it says of its place. A hand that lets go gives the keys back to the slides, and so do Esc
// and Enter: in full screen the browser keeps Esc to itself.
function slider(control, move) {
  const label = document.createElement("label"), range = document.createElement("input");
  const said = document.createElement("span"); // an output would be what the label belongs to
  Object.assign(range, { type: "range", min: 0, max: control.shown.length - 1, value: control.at });
  range.setAttribute("aria-label", control.label);
  said.setAttribute("aria-hidden", "true");
  const tell = () => {
    said.textContent = control.shown[control.at];
    range.setAttribute("aria-valuetext", said.textContent);
  };
  range.addEventListener("input", () => {
    control.at = Number(range.value);
    tell();
    move();
  });
  range.addEventListener("pointerup", () => range.blur());
  range.addEventListener("keydown", (event) => {
    if (!["Escape", "Enter"].includes(event.key)) return;
    event.stopPropagation(); // to the slides Esc would mean: show all of them
    range.blur();
  });
  tell();
  label.append(control.label, said, range);
  return label;
}
