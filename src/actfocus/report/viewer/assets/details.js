// All figures of one token.

function drawDetails(place, token, episode, colouring) {
  const role = ROLES[token.role];
  const rows = [
    ["Role", role.name, role.help],
    ["Token id", String(token.id), ""],
    ["Position", `${token.place + 1} of ${episode.length}, turn ${token.turn + 1}`, ""],
    ...figureRows(token, colouring),
  ];
  const list = make("dl", { className: "figures" });
  for (const [name, value, help, current] of rows) {
    const entry = make("div", { className: current ? "current" : "" },
      make("dt", { title: help }, name), make("dd", {}, value));
    list.append(entry);
  }
  place.replaceChildren(make("p", { className: "token-text" }, quoted(token)), list, ...remark(token, episode));
}

function figureRows(token, colouring) {
  return Object.entries(FIGURES)
    .filter(([name]) => name in token.figures)
    .map(([name, { title, help }]) => [title, figureText(name, token.figures[name]), help, name === colouring]);
}

function quoted(token) {
  if (token.text) return `“${visibleToken(token.text).replaceAll("\n", "")}”`;
  return token.whole ? `part of “${visible(token.whole)}”` : "writes nothing";
}

function remark(token, episode) {
  if (token.role === "0") return [make("p", { className: "hint" }, "Not sampled: weight 0, never trained.")];
  if (!episode.trained) return [make("p", { className: "hint" }, "The step did not train on this trajectory.")];
  return [];
}

/** What a screen reader says of a token. */
function spoken(token, colouring) {
  const parts = [quoted(token), ROLES[token.role].name];
  if (colouring !== "role") parts.push(`${titleOf(colouring)} ${figureText(colouring, token.figures[colouring])}`);
  return parts.join(", ");
}
