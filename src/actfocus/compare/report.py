"""The report of a comparison in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actfocus.compare import statistics as st
from actfocus.compare.verdict import points
from actfocus.report.output import printable

Data = Mapping[str, Any]


def markdown(report: Data) -> str:
    """The whole `report.md`."""
    parts = [f"# Comparison: {_title(report)}", *_verdicts(report), *_missing(report)]
    for picture, caption in report["pictures"].items():
        parts.append(f"![{picture.replace('_', ' ')}]({picture}.png)\n\n{caption} ([SVG]({picture}.svg)).")
    for comparison in report["comparisons"]:
        parts += _comparison(comparison, report["base"])
    for family in report["together"]:
        parts += _together(family, report["base"])
    for row in report["rates"]:
        parts += _rates(row, report["base"])
    return "\n\n".join([*parts, *_method(report), *_machine(report)]) + "\n"


def verdict_lines(report: Data) -> list[str]:
    """One line a comparison: who, against whom, what may be said."""
    return [f"{name}: {arm} against {report['base']}: {said['text']}" for name, arm, said in _said(report)]


def _said(report: Data) -> list[tuple[str, str, Data]]:
    """Each comparison's name, its arm, and the verdict; those of several comparisons together come last."""
    groups = [(heading(comparison), comparison) for comparison in report["comparisons"]]
    groups += [(family["name"], family) for family in report["together"]]
    return [
        (name, arm, row["verdict"]) for name, group in groups for arm, row in group["against_base"].items()
    ]


def not_alike_lines(report: Data) -> list[str]:
    """One line for each thing that runs were made with and that differs."""
    lines = []
    for key, values in report["not_alike"].items():
        shown = "; ".join(f"{value} ({', '.join(arms)})" for value, arms in values.items())
        lines.append(f"{key}: {shown}")
    return lines


def heading(comparison: Data) -> str:
    """Environment, algorithm, and the learning rate where it is varied."""
    rate = f", learning rate {comparison['lr']:g}" if comparison["lr_varies"] else ""
    return f"{comparison['env']}, {comparison['algorithm']}{rate}"


def _title(report: Data) -> str:
    def names(key: str) -> str:
        return ", ".join(dict.fromkeys(comparison[key] for comparison in report["comparisons"]))

    return f"{names('env')} × {names('algorithm')} × {', '.join(arm['name'] for arm in report['arms'])}"


def _verdicts(report: Data) -> list[str]:
    lines = verdict_lines(report)
    if not lines:
        why = (
            "there is no other arm"
            if report["base"]
            else "no arm has the weights of Uniform (alpha 1, beta 0)"
        )
        return [f"Nothing is compared: {why}."]
    text = "Success after the last step, equal seeds as pairs:\n\n" + "\n".join(f"- {line}" for line in lines)
    intervals = sum(said["low"] is not None for _, _, said in _said(report))
    if intervals > 1:
        text += (
            f"\n\nEach interval stands for itself. Of {intervals} comparisons without any true difference,"
            f" {intervals * (1 - st.CONFIDENCE):.2g} or fewer would claim one on average."
        )
    return [text]


def _missing(report: Data) -> list[str]:
    parts = []
    if report["failed"]:
        lines = [f"- {_cell(name)}: {_cell(reason)}" for name, reason in report["failed"].items()]
        parts.append(
            "**Failed runs.** They are in no figure below: an arm whose runs break looks better than it"
            " is.\n\n" + "\n".join(lines)
        )
    if report["unfinished"]:
        lines = [f"- {_cell(name)}: {state}" for name, state in report["unfinished"].items()]
        parts.append("**Unfinished runs**, in no figure below:\n\n" + "\n".join(lines))
    if report["not_alike"]:
        lines = [f"- {_cell(line)}" for line in not_alike_lines(report)]
        parts.append(
            "**The runs were not made alike.** What differs between arms, seconds above all, may come from"
            " this and not from the weights:\n\n" + "\n".join(lines)
        )
    return parts


def _comparison(comparison: Data, base: str | None) -> list[str]:
    arms = comparison["arms"]
    parts = [f"## {heading(comparison)}"]
    parts.append(_success_table({name: [len(arm["seeds"])] for name, arm in arms.items()}, arms))
    if comparison["against_base"]:
        parts.append(_against_table(comparison["against_base"], base))
    parts.append(_seeds_table(arms))
    rows = [
        [
            name,
            f"{arm['focus']['alpha']:g}",
            f"{arm['focus']['beta']:g}",
            arm["focus"]["signal"] if arm["focus"]["beta"] else "–",
            f"{arm['focus']['other_weight']:g}" if arm["focus"]["other_weight"] is not None else "α",
            _number(arm["seconds_per_run"], ".0f"),
            _number(arm["seconds_per_step"], ".2f"),
            _number(arm["peak_memory_bytes"], ".0f", 2**20),
        ]
        for name, arm in arms.items()
    ]
    heads = ["arm", "α", "β", "signal", "other weight", "seconds a run", "seconds a step", "peak memory, MiB"]
    return [*parts, _table(heads, rows, left=1)]


def _success_table(runs: Mapping[str, Sequence[int]], arms: Data) -> str:
    rows = [
        [
            name,
            " + ".join(map(str, runs[name])),
            *([_number(arm["before"], ".1f", 0.01)] if "before" in arm else []),
            *(share_text(arm[key]) for key in ("final_mean", "final_iqm", "peak_mean", "peak_iqm")),
            share_text(arm["drop_mean"]),
        ]
        for name, arm in arms.items()
    ]
    before = ["before"] if all("before" in arm for arm in arms.values()) else []
    heads = ["success, %", "seeds", *before, "final, mean", "final, IQM", "peak, mean", "peak, IQM"]
    return _table([*heads, "peak − final, points"], rows, left=1)


def _against_table(rows: Data, base: str | None) -> str:
    cells = [
        [
            name,
            " + ".join(map(str, row["pairs"])),
            _points(row["final_difference"]["bootstrap"]),
            _points(row["final_difference"]["student"], value=False),
            _points(row["peak_difference"]["bootstrap"]),
            _plain(row["final_improvement"]),
            row["verdict"]["text"],
        ]
        for name, row in rows.items()
    ]
    heads = [
        f"against {base}, points",
        "pairs",
        "final, bootstrap",
        "final, Student",
        "peak, bootstrap",
        "P(improvement)",
        "verdict (final)",
    ]
    return _table(heads, cells, left=1)


def _seeds_table(arms: Data) -> str:
    seeds = sorted({seed for arm in arms.values() for seed in arm["seeds"]})
    rows = []
    for name, arm in arms.items():
        final = dict(zip(arm["seeds"], arm["each"]["final"], strict=True))
        rows.append([name, *(_number(final.get(seed), ".1f", 0.01) for seed in seeds)])
    return _table(["final success, %", *(f"seed {seed}" for seed in seeds)], rows, left=1)


def _together(family: Data, base: str | None) -> list[str]:
    parts = [f"## Together: {family['name']}"]
    runs = {name: arm["runs"] for name, arm in family["arms"].items()}
    parts.append(_success_table(runs, family["arms"]))
    if family["against_base"]:
        parts.append(_against_table(family["against_base"], base))
    return parts


def _rates(row: Data, base: str | None) -> list[str]:
    best = ", ".join(f"{name} {rate:g}" for name, rate in row["best"].items())
    parts = [
        f"## Every arm at its best learning rate: {row['env']}, {row['algorithm']}",
        f"Best by mean final success: {best}. They were chosen on the figures below, which makes all of them"
        " look better than they are, and the arm with the widest spread most.",
    ]
    if row["against_base"]:
        parts.append(_against_table(row["against_base"], base))
    return parts


def _method(report: Data) -> list[str]:
    return [
        "## How this was computed",
        f"Success is the share of evaluation episodes solved ({_episodes(report)} a run, on start states"
        " whose seeds training never draws). Final is the evaluation after the last step, peak the best of"
        " all, the one before training included. IQM: the mean without the lowest and the highest quarter of"
        " the values, rounded down to whole ones, as rliable and `scipy.stats.trim_mean` define it;"
        " below four values it is the mean.",
        "Brackets are 95 % intervals by stratified bootstrap (Agarwal et al. 2021): seeds are drawn with"
        f" replacement within each environment with algorithm, {report['resamples']:,} times from bootstrap"
        f" seed {report['bootstrap_seed']}; bounds are percentiles: of three seeds, the lowest and the"
        " highest. Differences are paired: both runs of a pair have the same seed, and so the same levels"
        " to train on. P(improvement) is the share of all pairs of runs, whatever their seeds, in which"
        " the arm is better; ties count half; both arms are resampled independently. “–” instead of brackets:"
        f" no interval, because there are fewer than {st.FEWEST} seeds or because they are all equal (for"
        " P(improvement): because all pairs agree).",
        "A bootstrap of few seeds is too narrow: on normal figures it covers 74 % at 3 seeds, 83 % at 5, 90 %"
        " at 10 (Student's: 95 %). A verdict therefore takes the lowest and the highest bound of the two, and"
        " claims a difference only if both are on the same side of zero.",
        "Seconds a run: all training steps and the evaluations after them, mean over seeds; not the start,"
        " the evaluation before training, checkpoints, pauses, nor what an interruption made to be trained"
        " twice."
        " Seconds a step: without evaluation, the median of the runs' medians. Runs at once slow each other"
        " down. Peak memory: the largest of all seeds, of the whole process, or what torch held on the GPU.",
    ]


def _machine(report: Data) -> list[str]:
    machine = report["machine"]
    versions = ", ".join(f"{key} {_cell(' and '.join(v))}" for key, v in report["versions"].items())
    commands = "\n".join(report["commands"])
    return [
        "## Made by",
        f"```bash\n{commands}\n```",
        f"Report: {machine['platform']}, {machine['cores']} cores{_jobs(machine)}. Runs:"
        f" {versions or 'unknown'}. Seeds: {', '.join(map(str, report['seeds']))}. "
        f"Runs in the figures: {report['runs']}.",
    ]


def _jobs(machine: Data) -> str:
    jobs = machine.get("jobs")
    return f", {jobs} {'run' if jobs == 1 else 'runs'} at once" if jobs else ""


def _episodes(report: Data) -> str:
    return " or ".join(dict.fromkeys(str(comparison["episodes"]) for comparison in report["comparisons"]))


def _bracketed(figure: Data, show: Callable[[float], str], value: bool = True) -> str:
    if figure["value"] is None:
        return "–"
    shown = show(figure["value"]) if value else ""
    bounds = "–" if figure["low"] is None else f"[{show(figure['low'])}, {show(figure['high'])}]"
    return f"{shown} {bounds}".strip()


def share_text(figure: Data) -> str:
    """A share with its interval, in percent."""
    return _bracketed(figure, lambda share: f"{100 * share:.1f}")


def _points(figure: Data, value: bool = True) -> str:
    return _bracketed(figure, points, value)


def _plain(figure: Data) -> str:
    return _bracketed(figure, lambda share: f"{share:.2f}")


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "–" if value is None else format(value / unit, form)


def _cell(text: str) -> str:
    # Names and reasons come from folders and logs: no control characters, no HTML, no new cell.
    return printable(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if number < left else "---:" for number in range(len(heads))]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in [heads, rule, *rows])
