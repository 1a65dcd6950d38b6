"""Which curves a run has: those whose figures its metrics hold, the others are left out."""

from collections.abc import Callable, Iterable
from typing import Any

from actfocus.report.summary.chart import Chart, Line, Point
from actfocus.report.summary.record import Line as Metrics
from actfocus.report.summary.record import RunRecord, number

ROLES = ("reasoning", "action", "other")

Get = Callable[[Metrics], Any]


def curves(record: RunRecord) -> list[Chart]:
    """All charts that have a point to show, in the page's order."""
    metrics = record.metrics
    charts = [_success(record), _return(record), *_losses(metrics), *_roles(metrics), *_weights(metrics)]
    charts += [
        Chart(
            "Norm of the gradient",
            "Before it is scaled down to optimizer.max_grad_norm; mean over the step's updates.",
            _lines(metrics, [("policy", "all", "grad_norm"), ("critic", "other", "critic_grad_norm")]),
            zero=True,
        ),
        Chart(
            "Faulty replies",
            "Share of the replies that were malformed or named an unknown action.",
            [
                *_lines(metrics, [("training", "training", "problem_share")]),
                *_line("evaluation", "evaluation", metrics, lambda line: _evaluated(line, "problem_share")),
            ],
            percent=True,
            zero=True,
        ),
        Chart(
            "Length of a reply",
            "Sampled tokens per reply, all episodes of the step.",
            _lines(metrics, [("training", "training", "reply_tokens")]),
            zero=True,
        ),
    ]
    return [chart for chart in charts if chart.lines]


def _success(record: RunRecord) -> Chart:
    found = record.evaluations()
    band = [(e["step"], e["low"], e["high"]) for e in found if e["low"] is not None and e["high"] is not None]
    points = [(e["step"], e["success"]) for e in found]
    evaluated = [Line("evaluation", "evaluation", points, band if len(band) == len(points) else ())]
    return Chart(
        "Success",
        "Evaluation: fixed start states, with its 95 % interval. Training: all episodes of the step.",
        [*_lines(record.metrics, [("training", "training", "success")]), *(evaluated if points else [])],
        percent=True,
        whole=True,
    )


def _return(record: RunRecord) -> Chart:
    evaluated = [(e["step"], e["return"]) for e in record.evaluations() if e["return"] is not None]
    return Chart(
        "Return",
        "Mean of the episodes: rewards and penalties of all turns.",
        [
            *_lines(record.metrics, [("training", "training", "return")]),
            *([Line("evaluation", "evaluation", evaluated)] if evaluated else []),
        ],
    )


def _losses(metrics: list[Metrics]) -> list[Chart]:
    return [
        Chart(title, words, _lines(metrics, [(label, "all", key)]), zero=zero)
        for title, words, label, key, zero in (
            (
                "Policy loss",
                "The weighted, clipped surrogate; mean over the step's updates.",
                "policy",
                "policy_loss",
                False,
            ),
            ("KL loss", "Penalty for leaving the reference, before its coefficient.", "KL", "kl_loss", False),
            ("Value loss", "Of PPO's critic.", "value", "value_loss", True),
            ("Entropy", "Of the policy at sampled tokens, in nats.", "entropy", "entropy", False),
        )
    ]


def _roles(metrics: list[Metrics]) -> list[Chart]:
    return [
        Chart(
            "Clip fraction",
            "Share of the tokens whose ratio the clipping holds back.",
            _by_role(metrics, "clip_fraction", with_all=True),
            percent=True,
            zero=True,
        ),
        Chart(
            "Ratio",
            "Mean probability of the sampled tokens now, over that when they were sampled.",
            _by_role(metrics, "ratio", with_all=True),
        ),
        Chart(
            "Share of tokens",
            "Of all sampled tokens.",
            [
                *_lines(metrics, [(role, role, f"{role}_share") for role in ("reasoning", "action")]),
                *_line("other", "other", metrics, _other_share),
            ],
            percent=True,
            zero=True,
        ),
        Chart(
            "Energy",
            "Mean under the reference, in nats: higher is less certain.",
            _by_role(metrics, "energy", with_all=False),
        ),
        *(
            Chart(
                f"Share of the gradient, {when} weighting",
                "Norm of the gradient of each role's tokens, as a share of their sum.",
                _gradient(metrics, when),
                percent=True,
                zero=True,
            )
            for when in ("before", "after")
        ),
    ]


def _weights(metrics: list[Metrics]) -> list[Chart]:
    return [
        Chart(
            "Evenness of the weights",
            "Entropy of the token weights over its largest value: 1 is even weights, less is more focus.",
            _lines(metrics, [("weights", "all", "weight_entropy")]),
        ),
        Chart(
            "Weight of an action token",
            "Mean over the action tokens that the step trained on.",
            _lines(metrics, [("action", "action", "action_weight")]),
            zero=True,
        ),
    ]


def _by_role(metrics: list[Metrics], key: str, *, with_all: bool) -> list[Line]:
    of_all = [("all", "all", key)] if with_all else []
    return _lines(metrics, [*of_all, *((role, role, f"{key}_{role}") for role in ROLES)])


def _gradient(metrics: list[Metrics], when: str) -> list[Line]:
    def share(role: str) -> Get:
        return lambda line: _at(_at(line.get("gradient_share"), when), role)

    return [line for role in ROLES for line in _line(role, role, metrics, share(role))]


def _lines(metrics: list[Metrics], wanted: Iterable[tuple[str, str, str]]) -> list[Line]:
    """Of (label, look, key) those that have a value anywhere."""
    found: list[Line] = []
    for label, look, key in wanted:
        found += _line(label, look, metrics, lambda line, key=key: line.get(key))
    return found


def _line(label: str, look: str, metrics: list[Metrics], get: Get) -> list[Line]:
    points: list[Point] = [
        (line["step"], value) for line in metrics if (value := number(get(line))) is not None
    ]
    return [Line(label, look, points)] if points else []


def _other_share(line: Metrics) -> float | None:
    shares = [number(line.get(f"{role}_share")) for role in ("reasoning", "action")]
    known = [share for share in shares if share is not None]
    return max(0.0, 1 - sum(known)) if len(known) == len(shares) else None


def _evaluated(line: Metrics, key: str) -> Any:
    return _at(line.get("evaluation"), key)


def _at(tree: Any, key: str) -> Any:
    return tree.get(key) if isinstance(tree, dict) else None
