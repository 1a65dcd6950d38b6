// The step's trajectories by group, with their returns; and which of them the filter lets through.

function readFilter() {
  const number = (id) => {
    const text = byId(id).value.trim().replace(",", ".").replace("−", "-");
    const value = text === "" ? null : Number(text);
    byId(id).setAttribute("aria-invalid", String(Number.isNaN(value)));
    return Number.isNaN(value) ? null : value;
  };
  return {
    success: byId("filter-success").value,
    problem: byId("filter-problem").value,
    low: number("filter-low"),
    high: number("filter-high"),
  };
}

function matches(episode, filter) {
  if (filter.success && episode.success !== (filter.success === "yes")) return false;
  const total = episode.return ?? NaN; // one that is not known is in no range; null would count as 0
  if (filter.low !== null && !(total >= filter.low)) return false;
  if (filter.high !== null && !(total <= filter.high)) return false;
  if (filter.problem === "malformed") return episode.problems.some(isMalformed);
  if (filter.problem === "unknown") return episode.problems.some(isUnknownAction);
  return filter.problem !== "none" || !episode.problems.some(Boolean);
}

function drawGroups(place, episodes, isShown, choose) {
  const groups = new Map();
  episodes.forEach((episode, number) => {
    if (!groups.has(episode.group)) groups.set(episode.group, []);
    groups.get(episode.group).push({ episode, number });
  });
  const returns = episodes.map((episode) => episode.return ?? 0);
  const scale = { low: Math.min(0, ...returns), high: Math.max(0, ...returns) };
  place.replaceChildren(...[...groups].map(([group, members]) => drawGroup(group, members, scale, isShown, choose)));
}

function drawGroup(group, members, scale, isShown, choose) {
  const buttons = members.map(({ episode, number }) => drawMember(episode, number, scale, isShown(number), choose));
  const title = make("h3", {}, `Group ${group}`);
  if (members.some(({ episode }) => episode.trained)) title.append(make("span", { className: "tag" }, "trained"));
  return make("section", { className: "group", "aria-label": `Group ${group}` },
    title, make("p", { className: "group-figures" }, groupFigures(members)),
    make("div", { className: "members" }, ...buttons));
}

function groupFigures(members) {
  const returns = members.map(({ episode }) => episode.return).filter((value) => value !== null);
  const solved = members.filter(({ episode }) => episode.success).length;
  if (!returns.length) return `${solved} of ${members.length} solved`;
  const mean = returns.reduce((sum, value) => sum + value, 0) / returns.length;
  const variance = returns.reduce((sum, value) => sum + (value - mean) ** 2, 0) / returns.length;
  const deviation = Math.sqrt(variance) > 1e-12 * Math.abs(mean) ? Math.sqrt(variance) : 0; // else rounding errors
  return `mean ${digits(mean, 3)} · sd ${digits(deviation, 3)} · ${solved} of ${members.length} solved`;
}

function drawMember(episode, number, scale, isShown, choose) {
  const button = make("button", { type: "button", className: "member", disabled: !isShown, "data-n": number },
    make("span", { className: "mark", "aria-hidden": "true" }, mark(episode)), make("span", {}, digits(episode.return, 3)));
  const span = scale.high - scale.low || 1;
  button.style.setProperty("--low", (Math.min(0, episode.return ?? 0) - scale.low) / span);
  button.style.setProperty("--high", (Math.max(0, episode.return ?? 0) - scale.low) / span);
  button.setAttribute("aria-label", memberWords(episode));
  button.title = memberWords(episode);
  button.addEventListener("click", () => choose(number));
  return button;
}

function mark(episode) {
  const solved = episode.success === null ? "?" : episode.success ? "✓" : "○";
  return episode.problems.some(Boolean) ? `${solved}!` : solved;
}

function memberWords(episode) {
  const parts = [`Member ${episode.member}`, `return ${digits(episode.return)}`];
  if (episode.success !== null) parts.push(episode.success ? "solved" : "not solved");
  if (episode.problems.some(isMalformed)) parts.push("malformed reply");
  if (episode.problems.some(isUnknownAction)) parts.push("unknown action");
  return parts.join(", ");
}

function markCurrent(place, number) {
  for (const button of place.querySelectorAll(".member")) {
    if (Number(button.dataset.n) === number) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}
