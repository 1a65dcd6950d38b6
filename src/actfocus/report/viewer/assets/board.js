// The board: the part of an observation between its heading and the line of actions left.

const SYMBOLS = {
  "frozen-lake": {
    P: ["you", "you"], _: ["floor", "frozen"], O: ["danger", "hole"], G: ["goal", "goal"],
    X: ["danger", "you, in a hole"], "√": ["you", "you, on the goal"],
  },
  sokoban: {
    "#": ["wall", "wall"], _: ["floor", "floor"], P: ["you", "you"], X: ["box", "box"], O: ["goal", "target"],
    "√": ["box", "box on the target"], S: ["you", "you, on the target"],
  },
};

/** The picture in an observation, null if it has none. */
function pictureOf(observation) {
  const match = /^\s*Turn \d+ of \d+\.[^\n]*\n([\s\S]*)\nActions left: [^\n]*$/.exec(observation.trimEnd());
  return match ? match[1] : null;
}

/** Rows of short cells at the head of a picture, and the lines behind them. */
function splitPicture(picture) {
  const lines = picture.split("\n");
  const rows = [];
  for (const line of lines) {
    const cells = line.split(" ");
    const fits = cells.length > 1 && cells.every((cell) => cell && [...cell].length <= 2);
    if (!fits || (rows.length && cells.length !== rows[0].length)) break;
    rows.push(cells);
  }
  return rows.length > 1 ? [rows, lines.slice(rows.length)] : [[], lines];
}

function drawBoard(picture, game, turn) {
  const [rows, lines] = splitPicture(picture);
  const parts = [];
  if (rows.length) {
    parts.push(drawGrid(rows, game));
    const key = boardKey(rows, game);
    if (key) parts.push(make("p", { className: "key" }, key));
  }
  const rest = lines.filter((line) => line.trim());
  if (rest.length) parts.push(make("div", { className: rows.length ? "caption" : "screen" }, ...drawLines(rest)));
  return make("figure", { className: "board", "aria-label": `Board of turn ${turn + 1}, before the reply` }, ...parts);
}

function drawGrid(rows, game) {
  const table = make("table", { className: `grid ${game === "sudoku" ? "sudoku" : ""}` });
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) row.append(drawCell(cell, game));
    table.append(row);
  }
  return table;
}

function drawCell(cell, game) {
  if (game === "sudoku") {
    const given = cell.endsWith("*");
    const shown = cell === "." ? "" : cell.replace("*", "");
    const title = shown ? (given ? "given" : "written") : "empty";
    return make("td", { className: given ? "given" : shown ? "written" : "floor", title }, visible(shown));
  }
  const [kind, title] = SYMBOLS[game]?.[cell] ?? ["", ""];
  return make("td", { className: kind, title }, kind === "floor" ? "·" : visible(cell));
}

function boardKey(rows, game) {
  if (game === "sudoku") return "bold: given";
  const seen = new Set(rows.flat());
  const known = Object.entries(SYMBOLS[game] ?? {}).filter(([symbol, [kind]]) => seen.has(symbol) && kind !== "floor");
  return known.map(([symbol, [, title]]) => `${symbol} ${title}`).join(" · ");
}

/** Lines of text; what stands in [brackets] is drawn as a button. */
function drawLines(lines) {
  return lines.map((line) => {
    const parts = line.split(/(\[[^[\]]*\])/).filter(Boolean);
    return make("p", {}, ...parts.map((part) =>
      part.startsWith("[") && part.endsWith("]") ? make("span", { className: "key-cap" }, visible(part)) : visible(part)));
  });
}
