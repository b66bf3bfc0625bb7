// Typeset the maths, split what is too tall over several slides, then start the show.
"use strict";

const WIDTH = 1280, HEIGHT = 720, ROOM = HEIGHT - 16 - 32; // less the padding above and the footer, in deck.css
const FIGURE = 1.3; // how much larger than its pixels a figure is shown, if there is room
const LEGIBLE = (14 * 96) / (11 * 110); // and at least: its text is 11 pt at 110 dots per inch, and 14 pt on a slide
const LONELY = ROOM / 5; // what is lower than that should not be alone on a page
const SCALE = 0.9; // of the maths, which would else look larger than the text around it
const DIVISIBLE = "section, .cell, ul, ol, table, tbody, pre.output";

window.MathJax = {
  tex: { inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]], processEscapes: true, tags: "ams" },
  svg: { fontCache: "local", scale: SCALE },
  options: { enableMenu: false },
  startup: { pageReady: () => MathJax.startup.defaultPageReady().then(start) },
};

async function start() {
  const pages = [...document.querySelectorAll(".slides > section > section")];
  pages.forEach((page) => page.classList.add("page"));
  await Promise.all([...document.querySelectorAll(".panel")].map(revive));
  await Promise.all([...document.images].map((picture) => picture.decode()));
  document.querySelectorAll('mjx-container:not([display="true"])').forEach(hold);
  pages.forEach(fit);
  document.querySelectorAll(".slides > section").forEach(sign);
  document.querySelector(".reveal").classList.add("ready");
  await Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: 0, center: false, minScale: 0.1, maxScale: 10,
    hash: true, slideNumber: "c/t", transition: "none", plugins: [RevealNotes],
  });
}

// No line is broken between a formula and what stands beside it with no blank between, such as a bracket or a comma.
function hold(formula) {
  const { previousSibling: before, nextSibling: after } = formula;
  const open = before instanceof Text ? before.data.match(/\S*$/)[0] : "";
  const close = after instanceof Text ? after.data.match(/^\S*/)[0] : "";
  if (!open && !close) return;
  const held = document.createElement("span");
  held.className = "held";
  formula.before(held);
  held.append(formula);
  if (open) held.prepend(before.splitText(before.length - open.length));
  if (close) after.splitText(close.length), held.append(after);
}

function size(page, most) {
  for (const picture of page.querySelectorAll("img")) {
    const fits = Math.min(most, (ROOM - 60) / picture.naturalHeight);
    picture.style.width = `${Math.ceil(fits * picture.naturalWidth)}px`;
  }
}

// Displayed maths that is wider than the slide is made smaller; a page that is a little too tall gets smaller figures or
// is set tighter, and one that is much too tall is split.
function fit(page) {
  for (const formula of page.querySelectorAll('mjx-container[display="true"]')) {
    for (let scale = 88; scale > 50 && formula.offsetWidth > formula.parentElement.clientWidth; scale -= 2) {
      formula.style.fontSize = `${scale}%`;
    }
  }
  size(page, FIGURE);
  if (height(page) <= ROOM) return;
  size(page, LEGIBLE);
  if (height(page) <= ROOM) return;
  page.classList.add("tight");
  if (height(page) <= ROOM) return;
  page.classList.remove("tight");
  size(page, FIGURE);
  const rest = split(page);
  if (rest) fit(rest);
}

// The parts of an element in order: what a slide cannot be cut through.
function parts(element) {
  if (!divisible(element)) return element.matches("aside") ? [] : [element];
  return [...element.children].flatMap(parts);
}

// Code and picture stay with what was printed, and a table in one piece, where a slide has room for all of it.
function divisible(element) {
  const together = element.matches("table, pre.output") || element.querySelector(":scope > .highlight, :scope > .output");
  return element.matches(DIVISIBLE) && !(together && element.offsetHeight <= ROOM);
}

function topOf(element) {
  return element.getBoundingClientRect().top;
}

function bottomOf(element) {
  return element.getBoundingClientRect().bottom;
}

function height(page) {
  const all = parts(page);
  return all.length ? bottomOf(all.at(-1)) - topOf(all[0]) : 0;
}

// Move what does not fit to a new page after this one, and return that.
function split(page) {
  const cut = place(parts(page));
  if (!cut) {
    page.tabIndex = 0; // one part that is too tall: the arrow keys scroll it
    return null;
  }
  const rest = document.createRange();
  rest.setStartBefore(cut);
  rest.setEndAfter(page.lastElementChild);
  const next = page.cloneNode(false);
  next.append(rest.extractContents());
  next.classList.add("continued");
  for (const table of next.querySelectorAll("table:not(:has(thead))")) {
    table.prepend(page.querySelector("table:last-of-type > thead").cloneNode(true));
  }
  next.querySelector(".cell").classList.remove("fragment"); // a new page shows at once what it starts with
  for (const notes of next.querySelectorAll("aside")) page.append(notes);
  page.after(next);
  return next;
}

// The first element that has to move so that no part reaches below the slide; null if that would be all. If little
// would move, the part before it goes too, so that nobody looks at two lonely lines.
function place(all) {
  const start = topOf(all[0]), end = bottomOf(all.at(-1));
  const over = all.findIndex((part) => bottomOf(part) > start + ROOM);
  let first = withLead(all, over);
  if (first > 1 && end - topOf(all[first]) < LONELY) {
    const earlier = withLead(all, first - 1);
    const stays = topOf(all[earlier]) - start, moves = end - topOf(all[earlier]);
    if (stays > end - topOf(all[first]) && moves <= ROOM) first = earlier;
  }
  if (first === 0) return null;
  let cut = all[first]; // or of what it opens, the outermost: no empty cell stays behind
  while (cut.parentElement.firstElementChild === cut) cut = cut.parentElement;
  return cut;
}

// The index of a part, or of the heading or line that leads to it, unless the page begins with that.
function withLead(all, index) {
  let first = index;
  while (first > 0 && leads(all[first - 1])) first -= 1;
  return first || index;
}

// A heading, or a line that announces what follows, stays with it.
function leads(element) {
  return element.matches("h1, h2, h3, h4") || /[:,]$/.test(element.textContent.trim());
}

// Every page says at its foot which section it belongs to.
function sign(slide) {
  const title = slide.querySelector("h1, h2, h3");
  for (const page of title ? slide.children : []) {
    const foot = document.createElement("footer");
    foot.setAttribute("aria-hidden", "true");
    foot.innerHTML = title.innerHTML;
    page.append(foot);
  }
}
