// Text of a run is hostile. It only ever becomes a text node, and whatever would act there instead of being
// seen (control characters, marks that turn the direction of writing, invisible ones) becomes a sign.

const UNSEEN =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]|(?! )\p{Zs}/gu;

// By name: many fonts have no pictures of them.
const CONTROLS = (
  "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
).split(" ");

function sign(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return `‹${CONTROLS[code]}›`;
  if (code === 0x7f) return "‹DEL›";
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

/** The text on one line, every character of it to be seen. */
function visible(text) {
  const shown = String(text).replace(UNSEEN, sign);
  return /^\p{M}/u.test(shown) ? "◌" + shown : shown; // a mark would sit on the text before
}

/** A token's text: a line end is seen as such, and breaks the line. */
function visibleToken(text) {
  return text.split("\n").map((line) => (line ? visible(line) : "")).join("↵\n");
}

/** A number at four digits, with a true minus. */
function digits(value, precision = 4) {
  if (value === null || value === undefined) return "–";
  return String(Number(value.toPrecision(precision))).replace("-", "−");
}

/** An element with properties and children; strings among the children become text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);
