// One trajectory as a conversation: a card per turn, a span per token. A switch of colours changes classes only.

const HEADINGS = { system: "System", user: "Environment", reply: "Agent" };

function drawConversation(place, shown, episode, game) {
  const cards = groupByTurn(shown.messages).map(([turn, messages]) => drawTurn(turn, messages, episode, game));
  place.replaceChildren(...cards);
  markRuns(place, shown.tokens);
}

function groupByTurn(messages) {
  const turns = new Map();
  for (const message of messages) {
    if (!turns.has(message.turn)) turns.set(message.turn, []);
    turns.get(message.turn).push(message);
  }
  return [...turns];
}

function drawTurn(turn, messages, episode, game) {
  const text = make("div", { className: "messages" }, ...drawMessages(messages));
  const body = make("div", { className: "body" }, text);
  const observation = messages.find((message) => message.kind === "user");
  const picture = observation && pictureOf(textOf(observation.tokens));
  if (picture) body.append(drawBoard(picture, game, turn));
  return make("article", { className: "turn", "aria-label": `Turn ${turn + 1}` }, turnHeading(turn, episode), body);
}

function turnHeading(turn, episode) {
  const heading = make("header", {}, make("h3", {}, `Turn ${turn + 1}`));
  const reward = episode.rewards[turn];
  if (reward !== undefined) heading.append(make("span", { className: "reward" }, `reward ${digits(reward)}`));
  const problem = episode.problems[turn];
  if (problem) heading.append(make("span", { className: "problem" }, `! ${visible(problem)}`));
  return heading;
}

/** The template's tokens go with the message that they open, those at the end with the last one. */
function drawMessages(messages) {
  const drawn = [];
  let opening = [];
  for (const message of messages) {
    if (message.kind === "template") {
      opening = opening.concat(message.tokens);
      continue;
    }
    drawn.push(drawMessage(message.kind, [...opening, ...message.tokens]));
    opening = [];
  }
  if (opening.length) drawn.push(drawMessage("template", opening));
  return drawn;
}

function drawMessage(kind, tokens) {
  const text = make("p", { className: "tokens" }, ...tokens.map(drawToken));
  const heading = HEADINGS[kind] ?? "Template";
  if (kind === "system") { // the same in every trajectory: folded
    const summary = make("summary", {}, `${heading} · ${tokens.length} tokens`);
    return make("details", { className: "message system" }, summary, text);
  }
  return make("section", { className: `message ${kind}` }, make("h4", {}, heading), text);
}

function drawToken(token) {
  const span = make("span", { tabIndex: -1, "data-i": token.place }, tokenText(token));
  span.dataset.role = ROLES[token.role].name;
  span.className = baseClass(token);
  return span;
}

function tokenText(token) {
  if (token.text) return visibleToken(token.text);
  return token.whole ? "⋯" : "∅"; // goes on with a character that is shown already; or writes nothing
}

function baseClass(token) {
  const dim = token.kind === "template" || !token.text ? " dim" : "";
  return `t r${token.role === "?" ? "u" : token.role}${dim}`;
}

/** A letter before every run of one role that was sampled. */
function markRuns(place, tokens) {
  for (const span of place.querySelectorAll(".t")) {
    const token = tokens[span.dataset.i];
    const before = tokens[token.place - 1];
    if (token.role !== "0" && before?.role !== token.role) span.dataset.run = ROLES[token.role].letter;
  }
}

/** Colour all tokens by role or by a figure. */
function colourTokens(place, tokens, colouring, ranges) {
  for (const span of place.querySelectorAll(".t")) {
    const token = tokens[span.dataset.i];
    const level = colouring === "role" ? "by-role" : levelOf(colouring, token.figures[colouring], ranges[colouring]);
    span.className = `${baseClass(token)} ${level}`;
  }
}
