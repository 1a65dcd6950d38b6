// The chosen trajectories, drawn as the viewer draws one; and the figures of the token that is pointed at.

const page = {
  data: readEmbedded(),
  ranges: {},
  colouring: "role",
  drawn: [], // {place, tokens, names, current} of each conversation
};

const REPORTED = ["role", "weights", "signal", "advantages", "ratio", "entropy", "logprobs"];

async function drawTrajectories() {
  const [step] = page.data.steps;
  nameSignal(page.data.run.signal);
  page.ranges = mergeRanges([step]);
  for (const place of document.querySelectorAll(".conversation[data-number]")) {
    const episode = step.episodes[place.dataset.number];
    const { tokens, messages, names } = await readTokens(episode, page.data.pieces);
    drawConversation(place, { tokens, messages }, episode, page.data.run.game);
    const drawn = { place, tokens, names, current: null };
    page.drawn.push(drawn);
    listen(drawn);
  }
  drawChoice();
  byId("roles").replaceChildren(make("span", { className: "name" }, "Role"), ...roleSamples());
  byId("keys").hidden = false;
  colourBy(page.ranges.weights && uneven() ? "weights" : "role");
  byId("trajectories").dataset.drawn = page.drawn.length;
}

/** Whether the weights differ: where all are 1, their colour says nothing. */
function uneven() {
  const weights = page.drawn.flatMap(({ tokens }) => tokens.map((token) => token.figures.weights));
  return new Set(weights.filter((weight) => weight !== undefined && weight !== null)).size > 1;
}

/** The marks that a role has besides any colour: a letter and an underline. */
function roleSamples() {
  return ["2", "1", "3", "0"].map((role) => {
    const { name, letter, help } = ROLES[role];
    const sample = make("span", { className: `t r${role}`, title: help }, name);
    if (role !== "0") sample.dataset.run = letter;
    return make("span", { className: "role-sample" }, sample);
  });
}

// Colours. ------------------------------------------------------------------------------------------------

function drawChoice() {
  const there = REPORTED.filter((name) => name === "role" || name in page.ranges);
  const radios = there.map((name) => {
    const radio = make("input", { type: "radio", name: "colour", value: name });
    radio.addEventListener("change", () => colourBy(name));
    return make("label", {}, radio, make("span", {}, titleOf(name)));
  });
  byId("colours").replaceChildren(...radios);
  byId("colouring").hidden = false;
}

function colourBy(name) {
  page.colouring = name;
  for (const radio of byId("colours").querySelectorAll("input")) radio.checked = radio.value === name;
  for (const { place, tokens } of page.drawn) {
    colourTokens(place, tokens, name, page.ranges);
    for (const span of place.querySelectorAll(".t")) span.title = tokens[span.dataset.i].role === "0" ? "" : figuresOf(tokens[span.dataset.i]).join(", ");
  }
  byId("roles").hidden = name === "role"; // the legend says it then
  drawLegend(byId("legend"), name, page.ranges, Object.keys(page.ranges));
}

// Tokens. -------------------------------------------------------------------------------------------------

function figuresOf(token) {
  const named = REPORTED.filter((name) => name in token.figures);
  return [ROLES[token.role].name, ...named.map((name) => `${titleOf(name).toLowerCase()} ${figureText(name, token.figures[name])}`)];
}

function listen(drawn) {
  const { place, tokens } = drawn;
  const tokenOf = (target) => {
    const span = target instanceof Element && target.closest(".t[data-i]");
    return span ? tokens[span.dataset.i] : null;
  };
  const first = tokens.find((token) => token.role !== "0") ?? tokens[0];
  if (first) moveTab(drawn, first);
  place.addEventListener("pointerover", (event) => showToken(tokenOf(event.target)));
  place.addEventListener("pointerleave", () => showToken(null));
  place.addEventListener("focusin", (event) => {
    const token = tokenOf(event.target);
    if (token) moveTab(drawn, token);
    showToken(token);
  });
  place.addEventListener("focusout", () => showToken(null));
  place.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const token = tokenOf(event.target);
    const next = token && target(tokens, token.place, event.key);
    if (event.key === "Escape") event.target.blur();
    if (!next) return;
    event.preventDefault();
    const span = spanIn(drawn, next);
    const folded = span.closest("details.message");
    if (folded) folded.open = true; // what is folded takes no focus
    span.focus();
  });
}

/** The token that a key leads to. */
function target(tokens, place, key) {
  const isAction = (token) => token.role === "2" && tokens[token.place - 1]?.role !== "2";
  if (key === "ArrowRight") return tokens[place + 1];
  if (key === "ArrowLeft") return tokens[place - 1];
  if (key === "Home") return tokens[0];
  if (key === "End") return tokens.at(-1);
  if (key === "a") return tokens.find((token) => token.place > place && isAction(token));
  if (key === "A") return tokens.findLast((token) => token.place < place && isAction(token));
  return null;
}

const spanIn = ({ place }, token) => place.querySelector(`[data-i="${token.place}"]`);

/** One token of a conversation is what Tab leads to: the last one that had the focus. */
function moveTab(drawn, token) {
  if (drawn.current) spanIn(drawn, drawn.current).tabIndex = -1;
  drawn.current = token;
  spanIn(drawn, token).tabIndex = 0;
}

function showToken(token) {
  byId("token").hidden = !token;
  if (!token) return;
  const parts = [...figuresOf(token), `turn ${token.turn + 1}`].map((part) => make("span", {}, part));
  byId("token").replaceChildren(make("span", { className: "text" }, quoted(token)), ...parts);
}

drawTrajectories().catch((error) => {
  const problem = `The trajectories cannot be drawn in this browser (${error.name}): it needs to be of 2024 or newer.`;
  byId("legend").replaceChildren(make("p", {}, problem));
});
