// The browser's side of prefetch.py: it keeps states by the places of the controls, and sets the drawing's trait itself.
const NAP = 40; // milliseconds without a move after which more is asked for
const LIMIT = 3000; // states that are kept

async function initialize({ model }) {
  const ids = [model.get("view"), ...model.get("controls")];
  const [view, ...controls] = await Promise.all(ids.map((id) => model.widget_manager.get_model(id)));
  const trait = model.get("trait");
  const states = new Map();
  const at = () => controls.map((control) => control.get("index" in control.attributes ? "index" : "value"));
  const key = (place) => JSON.stringify(place.map((one) => (typeof one === "number" ? Math.round(one * 1e9) : one)));
  let waiting = 0, fresh = true, moved = null, movedAt = 0, asked, frame, nap;

  const ask = (missing) => {
    asked = key(at());
    try {
      model.send({ at: at(), missing, moved, fresh });
      waiting += 1;
      fresh = false;
    } catch {
      // the kernel has gone: what it has sent can still be drawn
    }
  };
  const askForMore = () => {
    if (!waiting && states.has(key(at()))) ask(false);
  };
  const show = () => {
    const state = states.get(key(at()));
    if (state !== undefined && view.get(trait) !== state) view.set(trait, state);
  };
  // Draws at once, and of the further moves before the next frame only the last.
  const draw = () => {
    if (frame) return;
    show();
    frame = requestAnimationFrame(() => {
      frame = undefined;
      show();
    });
  };
  const move = (axis) => {
    moved = axis;
    movedAt = performance.now();
    if (states.has(key(at()))) draw();
    else if (waiting < 2) ask(true); // one answer may be on its way that is about another place
    clearTimeout(nap);
    nap = setTimeout(askForMore, NAP);
  };
  const learn = ({ states: answer }) => {
    waiting = Math.max(0, waiting - 1); // a second browser on the same kernel hears the answers too
    if (states.size > LIMIT) {
      states.clear();
      fresh = true;
    }
    for (const [place, state] of answer) states.set(key(place), state);
    draw();
    if (!states.has(key(at()))) {
      if (key(at()) !== asked) ask(true); // what was asked for cannot be had, or the control has moved since
    } else if (answer.length && (key(at()) === asked || performance.now() - movedAt > NAP)) askForMore();
  };
  controls.forEach((control, axis) => control.on("change:index change:value", () => move(axis)));
  view.on(`change:${trait}`, show); // what the kernel has sent may be older than what stands here
  model.on("msg:custom", learn);
  ask(true);
}

export default { initialize };
