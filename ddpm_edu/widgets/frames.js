// Precomputed pictures: the trait `value`, linked to a slider in the browser, chooses one. No kernel is asked.
function render({ model, el }) {
  const name = model.get("name");
  const urls = model.get("frames").map((view) => URL.createObjectURL(new Blob([view], { type: "image/png" })));
  const img = document.createElement("img");
  img.classList.add(`ddpm-view-${name}`);
  img.style.cssText = "width: 288px; max-width: 100%; image-rendering: pixelated; display: block";
  const text = document.createElement("p");
  text.classList.add(`ddpm-text-${name}`);
  text.setAttribute("aria-live", "polite");
  text.style.cssText = "margin: 6px 0 0; font-size: 14px; font-variant-numeric: tabular-nums";
  el.style.cssText = "color: var(--jp-ui-font-color1, #222); contain: content"; // a redraw lays out nothing else
  el.append(img, text);

  const draw = () => {
    const at = model.get("values").indexOf(model.get("value"));
    if (at < 0) return;
    img.src = urls[at];
    img.alt = `${model.get("alt")} ${model.get("readouts")[at]}`;
    text.textContent = model.get("readouts")[at];
  };
  model.on("change:value", draw);
  draw();
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
