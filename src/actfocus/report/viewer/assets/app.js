// The page's state, and what changes it: steps, trajectories, colours, filter, keys, new steps of a live run.

const state = {
  data: readEmbedded(),
  ranges: {},
  at: -1, // place of the step in data.steps
  number: -1, // place of the episode in the step
  shown: null, // its tokens, once unpacked
  current: null, // the token whose figures are shown
  stop: null, // the span of the token that Tab leads to
  colouring: "role",
  filter: null,
  ticket: 0,
};

const NO_TOKEN = byId("details-body").firstElementChild; // what stands there while no token is chosen
const THEMES = [["light dark", "Theme: system"], ["light", "Theme: light"], ["dark", "Theme: dark"]];

const step = () => state.data.steps[state.at];
const episode = () => step().episodes[state.number];
const isShown = (number) => matches(step().episodes[number], state.filter);
const matching = () => step().episodes.map((_, number) => number).filter(isShown);

// Steps and trajectories. ---------------------------------------------------------------------------------

function showStep(at) {
  if (at < 0 || at >= state.data.steps.length) return;
  const before = state.number >= 0 ? episode() : null;
  state.at = at;
  drawStepControls();
  redrawGroups();
  showEpisode(samePlace(before));
}

/** The same group and member as before, else the first that the filter lets through. */
function samePlace(before) {
  const found = matching();
  const same = found.find((number) => {
    const { group, member } = step().episodes[number];
    return before && group === before.group && member === before.member;
  });
  return same ?? found[0] ?? -1;
}

function drawStepControls() {
  const slider = byId("step");
  slider.max = state.data.steps.length - 1;
  slider.value = state.at;
  slider.disabled = state.data.steps.length < 2;
  slider.setAttribute("aria-valuetext", `Step ${step().step}`);
  byId("step-name").textContent = `${step().step} of ${state.data.run.steps}`;
  byId("step-back").disabled = state.at === 0;
  byId("step-on").disabled = state.at === state.data.steps.length - 1;
}

function redrawGroups() {
  drawGroups(byId("groups"), step().episodes, isShown, showEpisode);
  drawMatchCount();
}

function drawMatchCount() {
  const { episodes, recorded } = step();
  const rest = recorded > episodes.length ? `, ${recorded} recorded` : "";
  byId("match-count").textContent = `${matching().length} of ${episodes.length} trajectories${rest}`;
}

async function showEpisode(number) {
  const ticket = (state.ticket += 1);
  state.number = number;
  state.shown = null; // while the new tokens are unpacked, the old ones are still in the document: none is chosen
  state.current = null;
  byId("details-body").replaceChildren(NO_TOKEN);
  markCurrent(byId("groups"), number);
  drawHeading();
  if (number < 0) {
    byId("tokens").replaceChildren(make("p", { className: "hint" }, "No trajectory of this step passes the filter."));
    byId("facts").replaceChildren();
    byId("legend").replaceChildren();
    byId("trajectory").dataset.shown = `${step().step}/none`;
    return;
  }
  const shown = await readTokens(episode(), state.data.pieces).catch((error) => {
    notice("broken", `This trajectory cannot be drawn in this browser (${error.name}): it needs to be of 2024 or newer.`);
  });
  if (!shown || ticket !== state.ticket) return; // another one was chosen in the meantime
  state.shown = shown;
  drawConversation(byId("tokens"), shown, episode(), state.data.run.game);
  const first = shown.tokens.find((token) => token.kind === "reply") ?? shown.tokens[0];
  if (first) leadTabTo(spanOf(first));
  drawFacts();
  recolour();
  byId("trajectory").dataset.shown = `${step().step}/${number}`;
}

function drawHeading() {
  const found = matching();
  const place = found.indexOf(state.number);
  byId("back").disabled = place <= 0;
  byId("on").disabled = place < 0 || place === found.length - 1;
  if (state.number < 0) return byId("trajectory-title").replaceChildren("No trajectory");
  byId("trajectory-title").replaceChildren(
    `Group ${episode().group}, member ${episode().member}`,
    make("span", { className: "count" }, `${place + 1} of ${found.length}`));
}

function drawFacts() {
  const { success, return: total, ended, length, sampled, seed, trained, scores } = episode();
  const actions = state.shown.tokens.filter((token) => token.role === "2").length;
  const solved = success === null ? null : success ? "✓ solved" : "○ not solved";
  const facts = [
    solved, `return ${digits(total)}`, ended && `ended: ${visible(ended)}`,
    `${length} tokens, ${sampled} sampled, ${actions} of action`,
    ...Object.entries(scores).map(([name, value]) => `${visible(name)} ${digits(value)}`),
    trained ? "trained on" : "not trained on", seed && `level seed ${visible(seed)}`,
  ];
  byId("facts").replaceChildren(...facts.filter(Boolean).map((fact) => make("span", {}, fact)));
}

function moveEpisode(by) {
  if (state.at < 0) return; // a live run before its first step
  const found = matching();
  const next = found[found.indexOf(state.number) + by];
  if (next === undefined) return;
  showEpisode(next);
  byId("trajectory").scrollIntoView({ block: "nearest" });
}

// Colours. ------------------------------------------------------------------------------------------------

function drawColourings() {
  const radios = COLOURINGS.map((name, place) => {
    const has = name === "role" || name in state.ranges;
    const radio = make("input", { type: "radio", name: "colour", value: name, disabled: !has, checked: name === state.colouring });
    radio.addEventListener("change", () => colourBy(name));
    const title = has ? `${name === "role" ? "what a token is for" : FIGURES[name].help} (${place + 1})` : "not recorded in this run";
    return make("label", { title, className: has ? "" : "absent" }, radio, make("span", {}, titleOf(name)));
  });
  byId("colours").replaceChildren(...radios);
}

function colourBy(name) {
  state.colouring = name;
  for (const radio of byId("colours").querySelectorAll("input")) radio.checked = radio.value === name;
  recolour();
}

function recolour() {
  if (!state.shown) return;
  colourTokens(byId("tokens"), state.shown.tokens, state.colouring, state.ranges);
  drawLegend(byId("legend"), state.colouring, state.ranges, state.shown.names);
  if (state.current) choose(state.current);
}

function cycleColouring(by) {
  const there = COLOURINGS.filter((name) => name === "role" || name in state.ranges);
  colourBy(there[(there.indexOf(state.colouring) + by + there.length) % there.length]);
}

// Tokens. -------------------------------------------------------------------------------------------------

const spanOf = (token) => byId("tokens").querySelector(`[data-i="${token.place}"]`);
const tokenOf = (target) => {
  const span = target instanceof Element && target.closest(".t[data-i]");
  return span && state.shown ? state.shown.tokens[span.dataset.i] : null;
};

/** Show the figures of a token; it becomes the one that Tab leads to. */
function choose(token) {
  if (state.current) spanOf(state.current).classList.remove("current");
  const span = spanOf(token);
  state.current = token;
  span.classList.add("current");
  leadTabTo(span);
  drawDetails(byId("details-body"), token, episode(), state.colouring);
}

/** Of all tokens one is a stop of Tab; arrow keys go on from there. */
function leadTabTo(span) {
  if (state.stop) state.stop.tabIndex = -1;
  state.stop = span;
  span.tabIndex = 0;
}

function focusToken(token) {
  if (!token) return;
  const fold = spanOf(token).closest("details");
  if (fold) fold.open = true;
  spanOf(token).focus();
}

function moveToken(by) {
  const { tokens } = state.shown;
  let place = (state.current?.place ?? -1) + by;
  while (tokens[place] && spanOf(tokens[place]).closest("details:not([open])")) place += Math.sign(by);
  focusToken(tokens[place]);
}

/** To the line above or below: the token nearest in its column. */
function moveLine(by) {
  const from = spanOf(state.current).getBoundingClientRect();
  let best = null;
  for (const token of by < 0 ? state.shown.tokens.slice(0, state.current.place).reverse() : state.shown.tokens.slice(state.current.place + 1)) {
    const box = spanOf(token).getClientRects()[0];
    if (!box || (by < 0 ? box.bottom > from.top + 2 : box.top < from.bottom - 2)) continue;
    if (best && Math.abs(box.top - best.top) > box.height / 2) break; // the next line begins
    const distance = Math.abs(box.left - from.left);
    if (!best || distance < best.distance) best = { token, distance, top: box.top };
  }
  focusToken(best?.token);
}

/** To the next or last beginning of an action. */
function moveAction(by) {
  const tokens = state.shown?.tokens ?? [];
  const starts = tokens.filter((token, place) => token.role === "2" && tokens[place - 1]?.role !== "2");
  const here = state.current?.place ?? -1;
  focusToken(by > 0 ? starts.find((token) => token.place > here) : starts.findLast((token) => token.place < here));
}

const TOKEN_KEYS = {
  ArrowRight: () => moveToken(1),
  ArrowLeft: () => moveToken(-1),
  ArrowDown: () => moveLine(1),
  ArrowUp: () => moveLine(-1),
  Home: () => focusToken(state.shown.tokens.find((token) => token.turn === state.current.turn && token.kind === "reply")),
  End: () => focusToken(state.shown.tokens.findLast((token) => token.turn === state.current.turn)),
};

// Keys. ---------------------------------------------------------------------------------------------------

const KEYS = [
  ["n", "p", "next and previous trajectory", () => moveEpisode(1), () => moveEpisode(-1)],
  [".", ",", "next and previous step", () => showStep(state.at + 1), () => showStep(state.at - 1)],
  ["c", "C", "next and previous colouring; 1 to 9 choose one", () => cycleColouring(1), () => cycleColouring(-1)],
  ["a", "A", "next and previous action", () => moveAction(1), () => moveAction(-1)],
  ["e", null, "into the tokens; arrow keys move there, Home and End to the ends of a reply", enterTokens],
  ["g", null, "into the groups; Tab moves on", focusGroups],
  ["f", null, "to the filter", focusFilter],
  ["t", null, "theme: system, light, dark", () => nextTheme()],
  ["?", null, "these keys", () => byId("help").showModal()],
];

function enterTokens() {
  if (state.shown) focusToken(state.current ?? state.shown.tokens.find((token) => token.kind === "reply") ?? state.shown.tokens[0]);
}

function focusGroups() {
  byId("groups-fold").open = true;
  (byId("groups").querySelector("[aria-current]") ?? byId("groups").querySelector("button:enabled"))?.focus();
}

function focusFilter() {
  byId("groups-fold").open = true;
  byId("filter-success").focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.closest("input:not([type=radio], [type=range]), select")) return;
  const onToken = tokenOf(event.target) !== null || event.target === byId("tokens");
  if (onToken && state.shown && event.key in TOKEN_KEYS) {
    const focused = tokenOf(event.target);
    if (focused && focused !== state.current) choose(focused); // the mouse may have been elsewhere since
    if (state.current) TOKEN_KEYS[event.key]();
    else enterTokens();
    return event.preventDefault();
  }
  const entry = KEYS.find(([key, back]) => event.key === key || event.key === back);
  if (entry) {
    entry[event.key === entry[0] ? 3 : 4]();
    event.preventDefault();
  } else if (/^[1-9]$/.test(event.key)) {
    const name = COLOURINGS[Number(event.key) - 1];
    if (name === "role" || name in state.ranges) colourBy(name);
  }
}

function nextTheme() {
  const root = document.documentElement;
  const place = THEMES.findIndex(([scheme]) => scheme === (root.dataset.theme ?? "light dark"));
  setTheme(THEMES[(place + 1) % THEMES.length]);
}

function setTheme([scheme, name]) {
  document.documentElement.dataset.theme = scheme;
  byId("theme").textContent = name;
}

// A live run. ---------------------------------------------------------------------------------------------

function notice(id, ...content) {
  byId(id)?.remove();
  if (content.length) byId("notices").append(make("p", { id }, ...content));
}

/** One that stands there stays: a screen reader speaks what is put there anew. */
function keepNotice(id, text) {
  if (!byId(id)) notice(id, text);
}

async function poll() {
  try {
    const news = await askForNews();
    if (news) takeNews(news);
  } finally { // after the answer, so that no step is taken twice
    setTimeout(poll, state.data.live);
  }
}

async function askForNews() {
  const { steps, pieces } = state.data;
  try {
    const answer = await fetch(`steps?after=${steps.at(-1)?.step ?? -1}&pieces=${pieces.length}`);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const news = await answer.json();
    notice("lost");
    return news;
  } catch (error) {
    keepNotice("lost", `The server does not answer (${visible(error.message)}): is actfocus view still running?`);
    return null;
  }
}

function takeNews({ pieces, steps, notes }) {
  showNotes(notes);
  if (!steps.length) return;
  const first = state.data.steps.length === 0;
  state.data.pieces.push(...pieces);
  state.data.steps.push(...steps);
  const had = Object.keys(state.ranges).join();
  state.ranges = mergeRanges(state.data.steps);
  if (first || Object.keys(state.ranges).join() !== had) drawColourings(); // else the keyboard's focus would go
  notice("waiting");
  if (first) return showStep(0);
  drawStepControls();
  const last = state.data.steps.length - 1;
  const button = make("button", { type: "button", id: "newest" }, "Show it");
  button.addEventListener("click", () => { notice("news"); showStep(last); });
  notice("news", `Step ${steps.at(-1).step} has arrived. `, button);
}

function showNotes(notes) {
  notes.forEach((note, place) => keepNotice(`note-${place}`, `⚠ ${visible(note)}`));
}

// The beginning. ------------------------------------------------------------------------------------------

function drawRun() {
  const { name, game, model, algorithm, alpha, beta, signal } = state.data.run;
  byId("run-name").textContent = visible(name);
  byId("run-facts").textContent = visible(
    `${game} · ${model} · ${algorithm.toUpperCase()} · α ${alpha} · β ${beta} · ${signal}`);
  const keys = KEYS.flatMap(([key, back, words]) => [
    make("dt", {}, ...[key, back].filter(Boolean).map((k) => make("kbd", {}, k))), make("dd", {}, words),
  ]);
  byId("keys").replaceChildren(...keys);
}

function listen() {
  byId("step").addEventListener("input", (event) => showStep(Number(event.target.value)));
  byId("step-back").addEventListener("click", () => showStep(state.at - 1));
  byId("step-on").addEventListener("click", () => showStep(state.at + 1));
  byId("back").addEventListener("click", () => moveEpisode(-1));
  byId("on").addEventListener("click", () => moveEpisode(1));
  byId("theme").addEventListener("click", nextTheme);
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("filter").addEventListener("input", refilter);
  byId("filter").addEventListener("reset", () => setTimeout(refilter));
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("tokens").addEventListener("pointerover", (event) => {
    const token = tokenOf(event.target);
    if (token) choose(token);
  });
  byId("tokens").addEventListener("focusin", (event) => {
    const token = tokenOf(event.target);
    if (!token) return;
    choose(token);
    byId("announce").textContent = spoken(token, state.colouring);
  });
  document.addEventListener("keydown", onKey);
}

function refilter() {
  state.filter = readFilter();
  if (state.at < 0) return;
  redrawGroups();
  if (state.number >= 0 && isShown(state.number)) {
    markCurrent(byId("groups"), state.number);
    drawHeading();
  } else {
    showEpisode(samePlace(null));
  }
}

function begin() {
  nameSignal(state.data.run.signal);
  state.ranges = mergeRanges(state.data.steps);
  state.filter = readFilter();
  if (matchMedia("(max-width: 48rem)").matches) byId("groups-fold").open = false;
  setTheme(THEMES[0]);
  drawRun();
  drawColourings();
  listen();
  showNotes(state.data.notes);
  if (state.data.steps.length) showStep(0);
  else notice("waiting", "Nothing is recorded yet. This page shows the first step as soon as there is one.");
  if (state.data.live) setTimeout(poll, state.data.live);
}

begin();
