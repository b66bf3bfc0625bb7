// Clouds of points as SVG, redrawn from the trait `data` in one go. The frame follows the page's theme.
const WIDTH = 460, HEIGHT = 400, TOP = 30;

function render({ model, el }) {
  const name = model.get("name");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", model.get("alt"));
  svg.style.cssText = "width: 100%; max-width: 560px; font: 13px sans-serif; fill: currentColor";
  svg.classList.add(`ddpm-view-${name}`);
  const text = document.createElement("p");
  text.classList.add(`ddpm-text-${name}`);
  text.setAttribute("aria-live", "polite");
  text.style.cssText = "margin: 4px 0 0 12px; font-size: 14px; font-variant-numeric: tabular-nums";
  el.style.cssText = "color: var(--jp-ui-font-color1, #222); contain: content"; // a redraw lays out nothing else
  el.append(svg, text);

  const draw = () => {
    const { clouds, xlim, ylim, readout, verdict } = model.get("data");
    const sx = (x) => ((x - xlim[0]) / (xlim[1] - xlim[0])) * WIDTH;
    const sy = (y) => HEIGHT - ((y - ylim[0]) / (ylim[1] - ylim[0])) * (HEIGHT - TOP);
    const parts = [`<clipPath id="clip-${name}"><rect y="${TOP}" width="${WIDTH}" height="${HEIGHT - TOP}"/></clipPath><rect y="${TOP}" width="${WIDTH}" height="${HEIGHT - TOP}" fill="none" stroke="currentColor" opacity=".3"/>`];
    clouds.forEach(({ label, colour, opacity, x, y }, i) => {
      const dots = x.map((xi, k) => `M${sx(xi).toFixed(1)} ${sy(y[k]).toFixed(1)}h0`).join(""); // round caps make dots
      parts.push(`<path d="${dots}" stroke="${colour}" opacity="${opacity}" stroke-width="4.5" stroke-linecap="round" clip-path="url(#clip-${name})"/><circle cx="${20 + 140 * i}" cy="14" r="4" fill="${colour}"/><text x="${30 + 140 * i}" y="18">${label}</text>`);
    });
    svg.innerHTML = parts.join("");
    text.replaceChildren(readout);
    const mark = document.createElement("strong");
    mark.textContent = ` ${verdict.good ? "✓" : "✗"} ${verdict.text}`;
    mark.style.color = verdict.colour;
    text.append(mark);
  };
  model.on("change:data", draw);
  draw();
}

export default { render };
