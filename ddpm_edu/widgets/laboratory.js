// Two schedules, A and B: drawings over t / T as SVG, the generated density, a strip of noised pictures for each, and
// what can be taken away. Every number comes from the kernel. Black and grey are those of the page's theme.
const WIDTH = 300, HEIGHT = 190, LEFT = 44, RIGHT = 10, TOP = 26, BOTTOM = 26;
const REST = 60; // ms without a change after which the controls have come to rest
const X0 = [-1.5, 1.5];

const make = (parent, tag, attributes = {}, text = "") => {
  const svg = parent instanceof SVGElement || tag === "svg";
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  parent.append(element);
  return element;
};
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const px = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);

function frame(parent, axis, name, k, last) {
  const [low, high] = axis.ylim;
  const py = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const svg = make(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: axis.knots ? "group" : "img", "aria-label": `${axis.title}: ${axis.says}` });
  svg.style.cssText = "width: 100%; font: 12px sans-serif; fill: currentColor; overflow: hidden";
  make(svg, "title", {}, axis.says);
  make(svg, "text", { x: LEFT, y: 16, "font-weight": "bold", "font-size": 13 }, axis.title);
  const clip = make(make(svg, "clipPath", { id: `clip-${name}-${k}` }), "rect", { x: LEFT - 2, y: TOP - 3, width: WIDTH - LEFT - RIGHT + 4, height: HEIGHT - TOP - BOTTOM + 6 });
  axis.ticks.forEach((tick, i) => {
    make(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(tick), y2: py(tick), stroke: "currentColor", opacity: 0.15 });
    make(svg, "text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, axis.labels[i]);
  });
  const marks = last ? [-1, 0, 1] : [0, 0.5, 1];
  marks.forEach((mark) => {
    const x = px(last ? (mark - X0[0]) / (X0[1] - X0[0]) : mark);
    make(svg, "line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, stroke: "currentColor", opacity: 0.15 });
    make(svg, "text", { x, y: HEIGHT - 10, "text-anchor": mark === 1 && !last ? "end" : "middle" }, String(mark).replace("-", "−"));
  });
  make(svg, "text", { x: px(0.75), y: HEIGHT - 10, "text-anchor": "middle", opacity: 0.75 }, last ? "" : "t / T");
  const plot = make(svg, "g", { "clip-path": `url(#${clip.parentNode.id})` });
  if (axis.level !== null && axis.level !== undefined) {
    make(plot, "line", { x1: px(0), x2: px(1), y1: py(axis.level), y2: py(axis.level), stroke: "currentColor", opacity: 0.7, "stroke-width": 2, "stroke-dasharray": "2 3" });
    make(svg, "text", { x: px(1) - 4, y: TOP + 12, "text-anchor": "end" }, "dotted: L_simple");
  }
  return { svg, plot, py };
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function render({ model, el }) {
  const name = model.get("name"), axes = model.get("axes"), looks = model.get("looks"), which = Object.keys(looks);
  const side = model.get("side"), trait = (one) => model.get(`${one.toLowerCase()}_${model.get("families")[one]}`);
  el.style.cssText = "color: var(--jp-ui-font-color1, var(--vscode-editor-foreground, inherit)); contain: content";
  const said = make(el, "div", { class: `ddpm-text-${name}`, "aria-live": "polite" });
  said.style.cssText = "margin: 4px 12px; font: 14px/1.5 sans-serif; font-variant-numeric: tabular-nums";
  const view = make(el, "div", { class: `ddpm-view-${name}`, role: "group", "aria-label": model.get("alt"), style: "max-width: 1080px" });
  const grid = make(view, "div");
  grid.style.cssText = "display: grid; grid-template-columns: repeat(auto-fit, minmax(max(240px, 22%), 1fr)); gap: 2px 10px"; // four in a row or fewer
  const below = make(view, "div");
  below.style.cssText = "display: flex; flex-wrap: wrap; gap: 2px 10px";
  const drawings = axes.map((axis, k) => (k < axes.length - 1 ? frame(grid, axis, name, k) : frame(make(below, "div", { style: "flex: 1 1 250px" }), axis, name, k, true)));
  const pictures = make(below, "div", { style: "flex: 3 1 560px; align-self: center" });
  const dense = drawings.at(-1), data = make(dense.plot, "polygon", { fill: "currentColor", opacity: 0.22 });
  make(dense.svg, "text", { x: px(1), y: 16, "text-anchor": "end" }, "shaded: data");
  const kls = which.map((_, i) => make(dense.svg, "text", { x: px(0) + 4, y: TOP + 12 + 15 * i }));
  const lines = {}, dots = {}, knots = {}, strips = {}, rows = {};
  const letter = (parent, one) => make(parent, "b", { style: `border-bottom: 3px ${looks[one][1] ? "dashed" : "solid"} ${looks[one][0]}; padding: 0 2px` }, one);
  for (const one of which) {
    const [stroke, dash] = looks[one];
    lines[one] = drawings.map(({ plot }) => make(plot, "polyline", { fill: "none", stroke, "stroke-width": 2.5, "stroke-dasharray": dash, "stroke-linejoin": "round" }));
    dots[one] = drawings.map(({ plot }) => make(plot, "path", { stroke, "stroke-width": 6, "stroke-linecap": "round" }));
    knots[one] = [];
    rows[one] = make(said, "div");
  }
  rows.sampler = make(said, "div");
  for (const one of which) {
    const row = make(pictures, "div");
    row.style.cssText = "display: flex; align-items: center; gap: 8px; margin: 4px 0";
    letter(row, one);
    const column = make(row, "div", { style: "flex: 1" });
    const canvas = make(column, "canvas", { role: "img", height: side, style: "width: 100%; display: block; image-rendering: pixelated" });
    strips[one] = { row, canvas, times: make(column, "div", { style: "display: flex; font: 12px sans-serif; font-variant-numeric: tabular-nums" }) };
  }

  // the picture, from bytes to [-1, 1], and its noise
  const bytes = model.get("picture"), noise = model.get("noise");
  const x0 = Float32Array.from(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), (b) => b / 127.5 - 1);
  const eps = new Float32Array(noise.buffer.slice(noise.byteOffset, noise.byteOffset + noise.byteLength));
  function drawStrip(one, strip) {
    const { canvas, times } = strips[one], gap = 2, wide = strip.length * (side + gap) - gap;
    if (canvas.width !== wide) canvas.width = wide;
    canvas.style.maxWidth = `${wide * 1.6}px`;
    times.style.maxWidth = canvas.style.maxWidth;
    const context = canvas.getContext("2d"), image = context.createImageData(side, side);
    strip.forEach(([, signal, rest], k) => {
      for (let i = 0, j = 0; i < x0.length; i += 3, j += 4) {
        for (let c = 0; c < 3; c++) image.data[j + c] = (signal * x0[i + c] + rest * eps[i + c] + 1) * 127.5;
        image.data[j + 3] = 255;
      }
      context.putImageData(image, k * (side + gap), 0);
    });
    canvas.setAttribute("aria-label", `Schedule ${one}: a flower with the noise of t = ${strip.map(([t]) => t).join(", ")}`);
    times.replaceChildren(...strip.map(([t]) => Object.assign(document.createElement("span"), { textContent: `t = ${t}`, style: "flex: 1; text-align: center" })));
  }

  function draw(one) {
    const state = trait(one), bad = Boolean(state.problem), row = rows[one];
    row.replaceChildren();
    letter(row, one);
    if (!bad) row.append(` ${state.readout}`);
    const { good, text, colour } = state.verdict;
    row.append(" ");
    make(row, "strong", { style: `background: ${colour}; color: #000; padding: 1px 6px; border-radius: 3px; white-space: ${bad ? "normal" : "nowrap"}` }, `${good ? "✓" : "✗"} ${text}`);
    for (const button of Object.values(take[one])) {
      button.disabled = bad;
      button.style.opacity = bad ? 0.4 : 1;
    }
    strips[one].row.style.visibility = bad ? "hidden" : "visible";
    lines[one].forEach((line, k) => k < axes.length - 1 && path(one, k, bad ? [] : state.x, bad ? [] : state.y[k]));
    if (!bad) drawStrip(one, state.strip);
    if (!state.knots || String(state.knots) === String(moved[one])) delete moved[one];
    drawKnots(one, knotsOf(one));
  }
  function path(one, k, x, y) {
    const points = x.map((xi, i) => [px(xi).toFixed(1), clamp(drawings[k].py(y[i]), -99, 2 * HEIGHT).toFixed(1)]);
    lines[one][k].setAttribute("points", points.join(" "));
    dots[one][k].setAttribute("d", points.length <= 20 ? points.map((point) => `M${point.join(" ")}h0`).join("") : "");
  }

  // knots: sliders that stand in the drawing of the SNR
  const snr = axes.findIndex((axis) => axis.knots);
  const moved = {}; // knots that the kernel has not drawn yet: what it draws meanwhile is older
  const knotsOf = (one) => moved[one] ?? trait(one).knots;
  function move(one, i, db) {
    const now = knotsOf(one), [low, high] = axes[snr].knots;
    const top = i ? now[i - 1] - 1 : high, bottom = i < now.length - 1 ? now[i + 1] + 1 : low;
    const value = Math.round(clamp(db, bottom, top));
    if (value === now[i]) return;
    const next = now.with ? now.with(i, value) : Object.assign([...now], { [i]: value });
    model.set(`knots_${one.toLowerCase()}`, next);
    model.save_changes();
    drawKnots(one, (moved[one] = next));
  }
  function drawKnots(one, values) {
    const { svg, py } = drawings[snr], handles = knots[one];
    if (!values) {
      handles.splice(0).forEach((handle) => handle.remove());
      return;
    }
    while (handles.length < values.length) {
      const i = handles.length;
      const handle = make(svg, "circle", { r: 7, tabindex: 0, role: "slider", "aria-orientation": "vertical", "aria-valuemin": axes[snr].knots[0], "aria-valuemax": axes[snr].knots[1], "aria-label": `Schedule ${one}: SNR in dB at knot ${i + 1} of ${values.length}`, class: `ddpm-knot-${name}-${one}`, fill: looks[one][0], stroke: "currentColor", "stroke-width": 1.5 });
      handle.style.cssText = "cursor: ns-resize; touch-action: none";
      handle.dataset.lmSuppressShortcuts = "true"; // the arrow keys move the knot, not the notebook's selection
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -999, End: 999 }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation();
        move(one, i, knotsOf(one)[i] + step);
      });
      handle.addEventListener("pointerdown", (event) => {
        handle.setPointerCapture(event.pointerId);
        handle.focus();
        event.preventDefault();
      });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        const [low, high] = axes[snr].ylim;
        move(one, i, low + ((HEIGHT - BOTTOM - at.y) / (HEIGHT - TOP - BOTTOM)) * (high - low));
      });
      handles.push(handle);
    }
    handles.forEach((handle, i) => {
      handle.setAttribute("cx", px(i / (values.length - 1)).toFixed(1));
      handle.setAttribute("cy", py(values[i]).toFixed(1));
      handle.setAttribute("aria-valuenow", values[i]);
      handle.setAttribute("aria-valuetext", `${values[i]} dB`.replace("-", "−"));
    });
  }

  // the density follows when the controls have come to rest
  let timer = 0, down = false;
  const fits = () => {
    const { of } = model.get("density"); // what it was computed of, which may no longer be what is shown
    return of && of.sampler === model.get("settings").text && which.every((one) => of[one] === (trait(one).python ?? trait(one).problem));
  };
  function wait() {
    if (fits()) return drawDensity();
    for (const pale of [dense.plot, ...kls]) pale.setAttribute("opacity", 0.45);
    rows.sampler.textContent = model.get("settings").text;
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (down) return wait();
      model.set("asked", model.get("asked") + 1);
      model.save_changes();
    }, REST);
  }
  function drawDensity() {
    if (!fits()) return wait();
    const density = model.get("density"), k = axes.length - 1;
    clearTimeout(timer);
    const x = density.x.map((xi) => (xi - X0[0]) / (X0[1] - X0[0]));
    const area = x.map((xi, i) => `${px(xi).toFixed(1)},${dense.py(density.data[i]).toFixed(1)}`);
    data.setAttribute("points", [`${px(x[0])},${dense.py(0)}`, ...area, `${px(x.at(-1))},${dense.py(0)}`].join(" "));
    which.forEach((one, i) => {
      path(one, k, density[one] ? x : [], density[one] || []);
      kls[i].textContent = density.kl[one] || "";
    });
    for (const pale of [dense.plot, ...kls]) pale.setAttribute("opacity", 1);
    rows.sampler.textContent = [model.get("settings").text, ...which.map((one) => density.kl[one] && `${density.kl[one]}.`)].filter(Boolean).join(" ");
  }
  const press = () => { down = true; }, release = () => { down = false; };
  document.addEventListener("pointerdown", press, true);
  document.addEventListener("pointerup", release, true);
  document.addEventListener("pointercancel", release, true);

  // what can be taken away
  const bar = make(view, "div"), take = {};
  bar.style.cssText = "display: flex; flex-wrap: wrap; gap: 6px; margin: 8px 12px";
  const button = (text, action) => {
    const one = make(bar, "button", { type: "button" }, text);
    one.style.cssText = "font: 13px sans-serif; padding: 4px 10px; cursor: pointer; color: inherit; background: var(--jp-layout-color2, transparent); border: 1px solid currentColor; border-radius: 3px";
    one.addEventListener("click", action);
    return one;
  };
  const told = make(view, "code", { "aria-live": "polite" });
  told.style.cssText = "display: block; margin: 0 12px; font-size: 12px; min-height: 1.5em; max-height: 6em; overflow: auto; white-space: pre-wrap; user-select: all; color: inherit; background: none";
  for (const one of which)
    take[one] = {
      copy: button(`Copy ${one} as Python`, () => {
        told.textContent = trait(one).python; // shown as well: some pages may not touch the clipboard
        navigator.clipboard?.writeText(trait(one).python).catch(() => {});
      }),
      json: button(`Export ${one} as JSON`, () => model.send({ export: one })),
    };
  button("Save picture", async () => save(await picture(), "schedules.png"));
  const received = (message) => {
    if (!message.text) return;
    const file = `schedule_${message.export}.json`;
    save(new Blob([message.text], { type: "application/json" }), file);
    told.textContent = `python -m ddpm_edu train --schedule ${file}`;
  };

  async function picture() {
    const box = view.getBoundingClientRect(), scale = 2, style = getComputedStyle(el);
    const canvas = Object.assign(document.createElement("canvas"), { width: box.width * scale, height: (bar.getBoundingClientRect().top - box.top + 90) * scale });
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    let ground = el; // the colour behind the drawings, so that the picture is readable on its own
    while (ground && /rgba\(0, 0, 0, 0\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    context.fillStyle = ground ? getComputedStyle(ground).backgroundColor : "white";
    context.fillRect(0, 0, box.width, canvas.height);
    for (const { svg } of drawings) {
      const at = svg.getBoundingClientRect(), copy = svg.cloneNode(true);
      copy.setAttribute("xmlns", SVG);
      copy.setAttribute("width", at.width);
      copy.setAttribute("height", at.height);
      copy.style.color = style.color;
      const image = new Image();
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
      await image.decode();
      context.drawImage(image, at.left - box.left, at.top - box.top, at.width, at.height);
    }
    context.font = "13px sans-serif";
    which.forEach((one) => {
      const at = strips[one].canvas.getBoundingClientRect();
      if (strips[one].row.style.visibility === "hidden") return;
      context.fillStyle = looks[one][0];
      context.fillRect(at.left - box.left - 20, at.top - box.top + at.height / 2 + 4, 12, 3);
      context.fillStyle = style.color;
      context.fillText(one, at.left - box.left - 18, at.top - box.top + at.height / 2);
      context.drawImage(strips[one].canvas, at.left - box.left, at.top - box.top, at.width, at.height);
      for (const time of strips[one].times.children) {
        const { left, right, top } = time.getBoundingClientRect(), { width } = context.measureText(time.textContent);
        context.fillText(time.textContent, (left + right - width) / 2 - box.left, top - box.top + 12);
      }
    });
    context.fillStyle = style.color;
    Object.values(rows).forEach((row, i) => context.fillText(row.textContent, 12, bar.getBoundingClientRect().top - box.top + 20 + 22 * i));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  const nameControls = () => nameSliders(`.ddpm-control-${name}`);
  new IntersectionObserver(nameControls).observe(el); // once they are there, and on each return to sight

  const handlers = [["change:settings", wait], ["change:density", drawDensity], ["msg:custom", received]];
  const redraw = (one) => {
    draw(one);
    wait();
  };
  for (const one of which)
    for (const family of model.get("known")) {
      const drawn = () => model.get("families")[one] === family && redraw(one);
      handlers.push([`change:${one.toLowerCase()}_${family}`, drawn]);
    }
  handlers.push(["change:families", () => {
    which.forEach(redraw);
    setTimeout(nameControls, 100); // once the controls of the family are there
  }]);
  for (const [event, handler] of handlers) model.on(event, handler);
  which.forEach(draw);
  wait();
  return () => {
    clearTimeout(timer);
    for (const [event, handler] of handlers) model.off(event, handler);
    document.removeEventListener("pointerdown", press, true);
    document.removeEventListener("pointerup", release, true);
    document.removeEventListener("pointercancel", release, true);
  };
}

export default { render };
