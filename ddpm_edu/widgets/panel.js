// What drawings share; panels.script puts it before each of them.

// The palette's black and grey vanish on a dark page: they become the colour of the text, and a fainter one.
const INKS = { "#000000": "currentColor", "#666666": "color-mix(in srgb, currentColor 65%, transparent)" };
const ink = (colour) => INKS[colour] ?? colour;

// An empty SVG picture of so many units, as wide as the page allows up to `widest` pixels.
function canvas(model, width, height, widest) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", model.get("alt"));
  svg.style.cssText = `width: 100%; max-width: ${widest}px; font: 13px sans-serif; fill: currentColor`;
  return svg;
}

// Puts the drawing into the page with a line of text below, in the page's colours; returns what writes that line.
function lay({ model, el }, drawing) {
  const name = model.get("name");
  const text = document.createElement("p");
  drawing.classList.add(`ddpm-view-${name}`);
  text.classList.add(`ddpm-text-${name}`);
  text.setAttribute("aria-live", "polite");
  text.style.cssText = "margin: 4px 0 0 12px; font-size: 14px; font-variant-numeric: tabular-nums";
  // a redraw lays out nothing else
  el.style.cssText = "color: var(--jp-ui-font-color1, var(--vscode-editor-foreground, inherit)); contain: content";
  el.append(drawing, text);
  new IntersectionObserver(() => nameSliders(name)).observe(el); // once they are there, and on each return to sight
  return (readout, verdict) => {
    text.replaceChildren(readout);
    if (!verdict) return;
    const mark = document.createElement("strong");
    mark.textContent = `${verdict.good ? "✓" : "✗"} ${verdict.text}`;
    mark.style.cssText = `background: ${verdict.colour}; color: #000; padding: 1px 6px; border-radius: 3px; white-space: nowrap`;
    text.append(" ", mark);
  };
}

// Tells screen readers the label of each slider and, where it chooses among options, the option instead of its number.
function nameSliders(name) {
  for (const slider of document.querySelectorAll(`.ddpm-slider-${name}`)) {
    const handle = slider.querySelector("[role=slider]"), shown = slider.querySelector(".widget-readout");
    if (!handle || handle.hasAttribute("aria-label")) continue;
    handle.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
    const tell = () => shown.checkVisibility() && handle.setAttribute("aria-valuetext", shown.textContent);
    new MutationObserver(tell).observe(shown, { childList: true, characterData: true, subtree: true });
    tell();
  }
}

