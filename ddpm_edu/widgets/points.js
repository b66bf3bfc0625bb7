// Clouds of points as SVG, redrawn from the trait `data`. What it shares with others is in panel.js.
const WIDTH = 460, HEIGHT = 400, TOP = 30;

function render({ model, el }) {
  const name = model.get("name");
  const svg = canvas(model, WIDTH, HEIGHT, 560);
  svg.innerHTML = `<clipPath id="clip-${name}"><rect y="${TOP}" width="${WIDTH}" height="${HEIGHT - TOP}"/></clipPath><rect y="${TOP}" width="${WIDTH}" height="${HEIGHT - TOP}" fill="none" stroke="currentColor" opacity=".3"/><g></g>`;
  const write = lay({ model, el }, svg);

  const draw = () => {
    const { clouds, xlim, ylim, readout, verdict } = model.get("data");
    const sx = (x) => ((x - xlim[0]) / (xlim[1] - xlim[0])) * WIDTH;
    const sy = (y) => HEIGHT - ((y - ylim[0]) / (ylim[1] - ylim[0])) * (HEIGHT - TOP);
    const parts = clouds.flatMap(({ label, colour, opacity, x, y }, i) => [
      ["path", { d: x.map((xi, k) => `M${sx(xi).toFixed(1)} ${sy(y[k]).toFixed(1)}h0`).join(""), stroke: ink(colour), opacity, "stroke-width": 4.5, "stroke-linecap": "round", "clip-path": `url(#clip-${name})` }], // round caps make dots
      ["circle", { cx: 20 + 140 * i, cy: 14, r: 4, fill: ink(colour) }],
      ["text", { x: 30 + 140 * i, y: 18 }, label],
    ]);
    patch(svg.lastElementChild, parts);
    write(readout, verdict);
  };
  model.on("change:data", draw);
  draw();
}

export default { render };
