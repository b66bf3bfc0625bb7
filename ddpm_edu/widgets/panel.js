// What drawings share; panels.script puts it before each of them.

// The palette's black and grey vanish on a dark page: they become the colour of the text, and a fainter one.
const INKS = { "#000000": "currentColor", "#666666": "color-mix(in srgb, currentColor 65%, transparent)" };
const ink = (colour) => INKS[colour] ?? colour;

const SVG = "http://www.w3.org/2000/svg";

// An empty SVG picture of so many units, as wide as the page allows up to `widest` pixels.
function canvas(model, width, height, widest) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", model.get("alt"));
  svg.style.cssText = `width: 100%; max-width: ${widest}px; font: 13px sans-serif; fill: currentColor`;
  return svg;
}

// Makes the children of an SVG element those that are described, each as [tag, attributes, text]. What is there already is
// left alone: whatever is set is laid out and painted anew, and that takes longer than to find out that it did not change.
function patch(parent, described) {
  described.forEach(([tag, attributes, text = ""], k) => {
    let child = parent.children[k];
    if (child?.localName !== tag) {
      const made = document.createElementNS(SVG, tag);
      child ? child.replaceWith(made) : parent.append(made);
      child = made;
    }
    for (const key of child.getAttributeNames()) if (!(key in attributes)) child.removeAttribute(key);
    for (const [key, value] of Object.entries(attributes)) if (child.getAttribute(key) !== String(value)) child.setAttribute(key, value);
    if (child.textContent !== text) child.textContent = text;
  });
  while (parent.children.length > described.length) parent.lastElementChild.remove();
}

// Puts the drawing into the page with a line of text below, in the page's colours; returns what writes that line.
function lay({ model, el }, drawing) {
  const name = model.get("name");
  const text = document.createElement("p"), said = text.appendChild(document.createTextNode(""));
  const mark = document.createElement("strong");
  drawing.classList.add(`ddpm-view-${name}`);
  text.classList.add(`ddpm-text-${name}`);
  text.setAttribute("aria-live", "polite");
  text.style.cssText = "margin: 4px 0 0 12px; font-size: 14px; font-variant-numeric: tabular-nums";
  // a redraw lays out nothing else
  el.style.cssText = "color: var(--jp-ui-font-color1, var(--vscode-editor-foreground, inherit)); contain: content";
  el.append(drawing, text);
  new IntersectionObserver(() => nameSliders(`.ddpm-slider-${name}`)).observe(el); // once they are there, and on each return to sight
  return (readout, verdict) => {
    said.data = verdict ? `${readout} ` : readout;
    if (!verdict) return mark.remove();
    const told = `${verdict.good ? "✓" : "✗"} ${verdict.text}`;
    if (mark.isConnected && mark.textContent === told) return;
    mark.textContent = told;
    mark.style.cssText = `background: ${verdict.colour}; color: #000; padding: 1px 6px; border-radius: 3px; white-space: nowrap`;
    text.append(mark);
  };
}

// Tells screen readers the label of each slider and, where it chooses among options, the option instead of its number; and
// keeps its keys from the notebook, which in Jupyter Notebook 7 would go to another cell at an arrow key.
function nameSliders(selector) {
  for (const slider of document.querySelectorAll(selector)) {
    const handle = slider.querySelector("[role=slider]"), shown = slider.querySelector(".widget-readout");
    if (!handle || handle.hasAttribute("aria-label")) continue;
    handle.dataset.lmSuppressShortcuts = "true";
    handle.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
    // whether it is shown is asked of its own style: a question to the page would make it lay itself out at once
    const tell = () => shown.style.display !== "none" && handle.setAttribute("aria-valuetext", shown.textContent);
    new MutationObserver(tell).observe(shown, { childList: true, characterData: true, subtree: true });
    tell();
  }
}

