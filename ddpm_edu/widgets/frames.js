// Precomputed pictures: the trait `value`, linked to a slider in the browser, chooses one. No kernel is asked. They are
// decoded once, here: a picture that is decoded when it is first shown comes a frame late. What it shares with others is
// in panel.js.
async function render({ model, el }) {
  const pictures = await Promise.all(model.get("frames").map((png) => createImageBitmap(new Blob([png], { type: "image/png" }))));
  const view = document.createElement("canvas"), { width, height } = pictures[0];
  Object.assign(view, { width, height });
  view.setAttribute("role", "img");
  view.style.cssText = "width: 288px; max-width: 100%; image-rendering: pixelated; display: block; outline: 1px solid #888";
  const context = view.getContext("2d");
  const write = lay({ model, el }, view);

  const draw = () => {
    const at = model.get("values").indexOf(model.get("value"));
    if (at < 0) return;
    context.drawImage(pictures[at], 0, 0);
    view.setAttribute("aria-label", `${model.get("alt")} ${model.get("readouts")[at]}`);
    write(model.get("readouts")[at]);
  };
  model.on("change:value", draw);
  draw();
  return () => pictures.forEach((picture) => picture.close());
}

export default { render };
