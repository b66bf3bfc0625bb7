// Pictures cut out of sheets: a sheet has a row for each frame and a column for each sample and setting, and a move only
// shifts the sheets behind their windows. No kernel is asked. What it shares with others is in panel.js.
const SIZE = 192; // pixels of a window

function render({ model, el }) {
  const samples = model.get("samples"), readouts = model.get("readouts");
  const rows = readouts.length / (2 * samples);
  const urls = model.get("sheets").map((sheet) => URL.createObjectURL(new Blob([sheet], { type: "image/png" })));
  const view = document.createElement("div");
  view.setAttribute("role", "img");
  view.style.cssText = "display: inline-flex; flex-wrap: wrap; gap: 12px; font-size: 14px";
  const windows = urls.map((url, k) => {
    const part = document.createElement("div"), pane = document.createElement("div");
    const columns = model.get("columns")[k];
    pane.style.cssText = `width: ${SIZE}px; height: ${SIZE}px; image-rendering: pixelated; outline: 1px solid #888`;
    pane.style.backgroundImage = `url(${url})`;
    pane.style.backgroundSize = `${columns * SIZE}px ${rows * SIZE}px`;
    part.append(model.get("labels")[k], pane);
    view.append(part);
    return { pane, columns };
  });
  const write = lay({ model, el }, view);

  const draw = () => {
    const frame = model.get("frame"), column = model.get("setting") * samples + model.get("sample") - 1;
    const readout = readouts[column * rows + frame];
    windows.forEach(({ pane, columns }) => {
      pane.style.backgroundPosition = `${-(column % columns) * SIZE}px ${-frame * SIZE}px`;
    });
    view.setAttribute("aria-label", `${model.get("alt")} ${readout}`);
    write(readout);
  };
  model.on("change:frame change:sample change:setting", draw);
  draw();
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
