// What the page holds, and how one trajectory is unpacked: only the one that is shown.

function readEmbedded() {
  const element = byId("data");
  const data = JSON.parse(element.textContent);
  element.remove(); // megabytes that are held in `data` now
  return data;
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** The tokens of an episode, and its messages as {kind, turn, tokens}. */
async function readTokens(episode, table) {
  const packed = await unpack(episode.tokens);
  const names = Object.keys(packed.figures);
  let sampled = 0;
  const tokens = packed.pieces.map((number, place) => {
    const [id, text, whole = ""] = table[number];
    const role = packed.roles[place];
    const token = { place, id, text, whole, role, figures: {} };
    if (role !== "0") {
      for (const name of names) token.figures[name] = packed.figures[name][sampled];
      sampled += 1;
    }
    return token;
  });
  return { tokens, messages: readMessages(packed.messages, tokens), names };
}

function readMessages(packed, tokens) {
  let start = 0;
  return packed.map(([kind, turn, end]) => {
    const message = { kind, turn, tokens: tokens.slice(start, end) };
    for (const token of message.tokens) Object.assign(token, { kind, turn });
    start = end;
    return message;
  });
}

const textOf = (tokens) => tokens.map((token) => token.text).join("");

const isMalformed = (problem) => Boolean(problem) && !problem.startsWith("unknown action");
const isUnknownAction = (problem) => Boolean(problem) && problem.startsWith("unknown action");
