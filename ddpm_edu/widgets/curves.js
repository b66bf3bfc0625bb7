// Curves as SVG, redrawn from the trait `data`. What it shares with others is in panel.js.
const WIDTH = 620, HEIGHT = 320, LEFT = 64, RIGHT = 16, TOP = 34, BOTTOM = 46;

function render({ model, el }) {
  const name = model.get("name");
  const svg = canvas(model, WIDTH, HEIGHT, 760);
  svg.innerHTML = `<clipPath id="clip-${name}"><rect x="${LEFT}" y="${TOP - 2}" width="${WIDTH - LEFT - RIGHT}" height="${HEIGHT - TOP - BOTTOM + 4}"/></clipPath><g></g>`;
  const write = lay({ model, el }, svg);

  const draw = () => {
    const { series, xlabel, ylabel, xlim, ylim, xticks, yticks, xlabels, ylabels, readout, verdict } = model.get("data");
    const sx = (x) => LEFT + ((x - xlim[0]) / (xlim[1] - xlim[0])) * (WIDTH - LEFT - RIGHT);
    const sy = (y) => HEIGHT - BOTTOM - ((y - ylim[0]) / (ylim[1] - ylim[0])) * (HEIGHT - TOP - BOTTOM);
    const minus = (number) => String(number).replace("-", "−");
    const grid = { stroke: "currentColor", opacity: 0.12 };
    const parts = [
      ...xticks.flatMap((tick, i) => [
        ["line", { x1: sx(tick), x2: sx(tick), y1: TOP, y2: HEIGHT - BOTTOM, ...grid }],
        ["text", { x: sx(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, xlabels ? xlabels[i] : minus(tick)],
      ]),
      ...yticks.flatMap((tick, i) => [
        ["line", { x1: LEFT, x2: WIDTH - RIGHT, y1: sy(tick), y2: sy(tick), ...grid }],
        ["text", { x: LEFT - 8, y: sy(tick) + 4, "text-anchor": "end" }, ylabels ? ylabels[i] : minus(tick)],
      ]),
      ["text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, xlabel],
      ["text", { transform: `translate(16 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, ylabel],
    ];
    const bars = series.filter(({ kind }) => kind === "bar");
    const zero = sy(Math.min(Math.max(0, ylim[0]), ylim[1]));
    const clip = { "clip-path": `url(#clip-${name})` };
    series.forEach((one, i) => {
      const { label, dash, x, y, kind } = one, colour = ink(one.colour);
      const line = { fill: "none", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash };
      const points = x.map((xi, k) => `${sx(xi).toFixed(1)},${sy(y[k]).toFixed(1)}`).join(" ");
      if (kind === "bar") {
        const wide = 0.8 / bars.length, left = (bars.indexOf(one) - bars.length / 2) * wide;
        x.forEach((xi, k) => {
          const top = sy(y[k]), width = sx(xi + wide) - sx(xi);
          parts.push(["rect", { x: sx(xi + left).toFixed(1), width: width.toFixed(1), y: Math.min(top, zero).toFixed(1), height: Math.abs(top - zero).toFixed(1), fill: colour, ...clip }]);
        });
      }
      if (kind === "area") parts.push(["polygon", { points: `${sx(x[0])},${zero} ${points} ${sx(x[x.length - 1])},${zero}`, fill: colour, opacity: 0.25, ...clip }]);
      if (kind !== "bar") parts.push(["polyline", { points, ...line, ...clip }]);
      const ly = 14, lx = LEFT + 12 + Math.min(180, (WIDTH - LEFT - RIGHT) / series.length) * i; // the legend is a row above the plot, where no curve goes
      parts.push(["line", { x1: lx, x2: lx + 26, y1: ly, y2: ly, ...line }], ["text", { x: lx + 34, y: ly + 4 }, label]);
    });
    patch(svg.lastElementChild, parts);
    write(readout, verdict);
  };
  model.on("change:data", draw);
  draw();
}

export default { render };
