// Curves as SVG, redrawn from the trait `data` in one go. Colours of axes and text follow the page's theme.
const WIDTH = 620, HEIGHT = 320, LEFT = 64, RIGHT = 16, TOP = 34, BOTTOM = 46;

function render({ model, el }) {
  const name = model.get("name");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", model.get("alt"));
  svg.style.cssText = "width: 100%; max-width: 760px; font: 13px sans-serif; fill: currentColor";
  svg.classList.add(`ddpm-view-${name}`);
  const text = document.createElement("p");
  text.classList.add(`ddpm-text-${name}`);
  text.setAttribute("aria-live", "polite");
  text.style.cssText = "margin: 4px 0 0 12px; font-size: 14px; font-variant-numeric: tabular-nums";
  el.style.cssText = "color: var(--jp-ui-font-color1, #222); contain: content"; // a redraw lays out nothing else
  el.append(svg, text);

  const draw = () => {
    const { series, xlabel, ylabel, xlim, ylim, xticks, yticks, xlabels, ylabels, readout, verdict } = model.get("data");
    const sx = (x) => LEFT + ((x - xlim[0]) / (xlim[1] - xlim[0])) * (WIDTH - LEFT - RIGHT);
    const sy = (y) => HEIGHT - BOTTOM - ((y - ylim[0]) / (ylim[1] - ylim[0])) * (HEIGHT - TOP - BOTTOM);
    const parts = [`<clipPath id="clip-${name}"><rect x="${LEFT}" y="${TOP - 2}" width="${WIDTH - LEFT - RIGHT}" height="${HEIGHT - TOP - BOTTOM + 4}"/></clipPath>`];
    const minus = (number) => String(number).replace("-", "−");
    xticks.forEach((tick, i) =>
      parts.push(`<line x1="${sx(tick)}" x2="${sx(tick)}" y1="${TOP}" y2="${HEIGHT - BOTTOM}" stroke="currentColor" opacity=".12"/><text x="${sx(tick)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${xlabels ? xlabels[i] : minus(tick)}</text>`));
    yticks.forEach((tick, i) =>
      parts.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${sy(tick)}" y2="${sy(tick)}" stroke="currentColor" opacity=".12"/><text x="${LEFT - 8}" y="${sy(tick) + 4}" text-anchor="end">${ylabels ? ylabels[i] : minus(tick)}</text>`));
    parts.push(`<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${xlabel}</text>`);
    parts.push(`<text transform="translate(16 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${ylabel}</text>`);
    const bars = series.filter(({ kind }) => kind === "bar");
    const zero = sy(Math.min(Math.max(0, ylim[0]), ylim[1]));
    series.forEach((one, i) => {
      const { label, colour, dash, x, y, kind } = one;
      const points = x.map((xi, k) => `${sx(xi).toFixed(1)},${sy(y[k]).toFixed(1)}`).join(" ");
      const clip = `clip-path="url(#clip-${name})"`;
      if (kind === "bar") {
        const wide = 0.8 / bars.length, left = (bars.indexOf(one) - bars.length / 2) * wide;
        x.forEach((xi, k) => {
          const top = sy(y[k]), width = sx(xi + wide) - sx(xi);
          parts.push(`<rect x="${sx(xi + left).toFixed(1)}" width="${width.toFixed(1)}" y="${Math.min(top, zero).toFixed(1)}" height="${Math.abs(top - zero).toFixed(1)}" fill="${colour}" ${clip}/>`);
        });
      }
      if (kind === "area")
        parts.push(`<polygon points="${sx(x[0])},${zero} ${points} ${sx(x[x.length - 1])},${zero}" fill="${colour}" opacity=".25" ${clip}/>`);
      if (kind !== "bar") parts.push(`<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="2.5" stroke-dasharray="${dash}" ${clip}/>`);
      const ly = 14, lx = LEFT + 12 + Math.min(180, (WIDTH - LEFT - RIGHT) / series.length) * i; // the legend is a row above the plot, where no curve goes
      parts.push(`<line x1="${lx}" x2="${lx + 26}" y1="${ly}" y2="${ly}" stroke="${colour}" stroke-width="2.5" stroke-dasharray="${dash}"/><text x="${lx + 34}" y="${ly + 4}">${label}</text>`);
    });
    svg.innerHTML = parts.join("");
    text.replaceChildren(readout);
    if (verdict) {
      const mark = document.createElement("strong");
      mark.textContent = ` ${verdict.good ? "✓" : "✗"} ${verdict.text}`;
      mark.style.color = verdict.colour;
      text.append(mark);
    }
  };
  model.on("change:data", draw);
  draw();
}

export default { render };
