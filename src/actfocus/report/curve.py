"""The learning curve of a run as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actfocus.config import Config
from actfocus.report.pictures import save_picture


def draw_learning_curve(config: Config, lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the lines of `metrics.jsonl`: evaluated success with its 95 % band, and success while training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    evaluated = [(line["step"], line["evaluation"]) for line in lines if "evaluation" in line]
    trained = [(line["step"], line["success"]) for line in lines if "success" in line]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    if trained:
        axes.plot(*zip(*trained, strict=True), color="0.6", linewidth=1, label="while training")
    steps = [step for step, _ in evaluated]
    axes.plot(steps, [e["success"] for _, e in evaluated], "o-", color="#0b5fa5", label="evaluation")
    axes.fill_between(
        steps, [e["low"] for _, e in evaluated], [e["high"] for _, e in evaluated], color="#0b5fa5", alpha=0.2
    )
    axes.set(xlabel="step", ylabel="success rate", ylim=(0, 1))
    axes.set_title(
        f"{config.env.name}, {config.algorithm.name}, α = {config.focus.alpha:g}, β = {config.focus.beta:g}"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    save_picture(figure, path, ["png"])
