// Precomputed pictures: the trait `value`, linked to a slider in the browser, chooses one. No kernel is asked. What it shares
// with others is in panel.js.
function render({ model, el }) {
  const urls = model.get("frames").map((view) => URL.createObjectURL(new Blob([view], { type: "image/png" })));
  const img = document.createElement("img");
  img.style.cssText = "width: 288px; max-width: 100%; image-rendering: pixelated; display: block; outline: 1px solid #888";
  const write = lay({ model, el }, img);

  const draw = () => {
    const at = model.get("values").indexOf(model.get("value"));
    if (at < 0) return;
    img.src = urls[at];
    img.alt = `${model.get("alt")} ${model.get("readouts")[at]}`;
    write(model.get("readouts")[at]);
  };
  model.on("change:value", draw);
  draw();
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
