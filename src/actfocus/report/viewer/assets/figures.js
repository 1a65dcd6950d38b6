// The figures of a token: their names, their words, and how a value becomes one of a few levels of colour.
// A level is a class, so that every level has a text colour that can be read on it, and the legend shows
// exactly what the tokens show.

const ROLES = {
  0: { name: "context", letter: "C", help: "not sampled: prompt, observation, template; never trained" },
  1: { name: "reasoning", letter: "R", help: "sampled, between the think tags" },
  2: { name: "action", letter: "A", help: "sampled, between the answer tags: what the environment sees" },
  3: { name: "other", letter: "O", help: "sampled, in neither: tags, end of turn, malformed replies" },
  "?": { name: "unknown", letter: "?", help: "the record holds no roles" },
};

const SIGNALS = {
  energy: "energy under the reference: higher is less certain",
  entropy: "entropy under the reference",
  nll: "minus the log-probability when trained",
  shift: "log-probability when trained, less the reference's",
};

// kind: `magnitude` from the lowest to the highest value, `from zero` likewise from 0, `signed` around 0.
// `reversed`: the lowest value is the darkest. `plus`: what the page adds to the packed value.
const FIGURES = {
  weights: { title: "Weight", kind: "from zero", help: "share in the policy loss" },
  signal: { title: "Energy", kind: "magnitude", help: "" },
  advantages: { title: "Advantage", kind: "signed", help: "above 0: made more likely" },
  ratio: { title: "Ratio", kind: "signed", plus: 1, help: "probability now / when sampled" },
  to_reference: {
    title: "To reference", kind: "signed",
    help: "log-prob ratio to the reference: above 0 is likelier than before training",
  },
  entropy: { title: "Entropy", kind: "from zero", help: "entropy of the policy here" },
  logprobs: { title: "Log-prob", kind: "magnitude", reversed: true, help: "log-probability when sampled" },
  old_logprobs: { title: "Trainer log-prob", kind: "magnitude", reversed: true, help: "the same, computed for training" },
  ref_logprobs: { title: "Reference log-prob", kind: "magnitude", reversed: true, help: "log-probability under the reference" },
  values: { title: "Value", kind: "signed", help: "the critic's estimate of the return" },
};

const COLOURINGS = ["role", "weights", "signal", "advantages", "ratio", "to_reference", "entropy", "logprobs", "values"];
const DARKEST = 6;
const STRONGEST = 4;

function nameSignal(signal) {
  FIGURES.signal.title = signal === "nll" ? "NLL" : signal[0].toUpperCase() + signal.slice(1);
  FIGURES.signal.help = SIGNALS[signal] ?? "the signal that ranks action tokens";
  if (signal === "entropy") FIGURES.signal.title = "Reference entropy";
}

const titleOf = (colouring) => (colouring === "role" ? "Role" : FIGURES[colouring].title);

/** The value as text. */
function figureText(name, value) {
  if (value === null || value === undefined) return "–";
  const plus = FIGURES[name].plus;
  return plus === undefined ? digits(value) : digits(value + plus, 7);
}

/** The range of each figure over all steps: colours mean the same everywhere on the page. */
function mergeRanges(steps) {
  const merged = {};
  for (const { ranges } of steps) {
    for (const [name, [low, high]] of Object.entries(ranges)) {
      const [l, h] = merged[name] ?? [Infinity, -Infinity];
      merged[name] = [Math.min(l, low), Math.max(h, high)];
    }
  }
  return merged;
}

/** The lowest and highest value that have a colour of their own. */
function bounds(name, range) {
  const { kind } = FIGURES[name];
  if (kind === "from zero") return [0, Math.max(range[1], 0)];
  if (kind === "magnitude") return range;
  const bound = Math.max(Math.abs(range[0]), Math.abs(range[1]));
  return [-bound, bound];
}

/** The class of a value: m0 … m6, n4 … n1, z, p1 … p4, or `none`. */
function levelOf(name, value, range) {
  if (value === null || value === undefined || !range) return "none";
  const [low, high] = bounds(name, range);
  if (FIGURES[name].kind === "signed") {
    if (value === 0 || high === 0) return "z";
    const strength = Math.min(STRONGEST, Math.ceil((Math.abs(value) / high) * STRONGEST));
    return (value < 0 ? "n" : "p") + strength;
  }
  if (high === low) return "m3";
  const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return "m" + Math.round((FIGURES[name].reversed ? 1 - share : share) * DARKEST);
}

function levelsOf(name) {
  if (FIGURES[name].kind === "signed") return ["n4", "n3", "n2", "n1", "z", "p1", "p2", "p3", "p4"];
  return Array.from({ length: DARKEST + 1 }, (_, level) => `m${level}`);
}

/** The legend of a colouring, into `place`. */
function drawLegend(place, colouring, ranges, names) {
  const figure = FIGURES[colouring];
  if (colouring === "role") return place.replaceChildren(...roleLegend());
  const range = ranges[colouring];
  if (!names.includes(colouring) || !range) {
    const why = "the step did not train on it, or the run does not record it";
    return place.replaceChildren(make("p", {}, `“${figure.title}” is not recorded for this trajectory: ${why}.`));
  }
  const [low, high] = bounds(colouring, range);
  const ends = [low, high].map((value) => figureText(colouring, value));
  if (figure.reversed) ends.reverse();
  const swatches = levelsOf(colouring).map((level) => make("span", { className: `swatch ${level}` }));
  place.replaceChildren(
    make("span", { className: "name" }, figure.title),
    make("span", {}, ends[0]), make("span", { className: "swatches", "aria-hidden": "true" }, ...swatches),
    make("span", {}, ends[1]), make("span", { className: "help" }, legendWords(figure)),
  );
}

function legendWords(figure) {
  if (figure.kind === "signed") return `${figure.help}; ${figure.plus ? "below 1" : "below 0"} is hatched`;
  return `${figure.help}; the stronger the shade, the ${figure.reversed ? "less likely" : "more"}`;
}

function roleLegend() {
  return ["2", "1", "3", "0"].map((role) => {
    const { name, letter, help } = ROLES[role];
    return make("span", { className: "role-sample", title: help },
      make("span", { className: `t by-role r${role}` }, `${letter} ${name}`));
  });
}
