"""The diagnosis as tables for the terminal; they take what `diagnose` returns. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def correlation_table(result: Mapping[str, Any]) -> Table:
    """Spearman's ρ with p and interval, for each signal and scope; the one pre-declared test is marked."""
    resamples = result["bootstrap"]["resamples"]
    table = Table(
        title=f"Variance of the return against the mean signal, over groups ({resamples:,} resamples)",
        title_justify="left",
    )
    for heading in ("signal", "tokens"):
        table.add_column(heading)
    for heading in ("ρ", "95 % interval", "p", "groups", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for signal, by_scope in result["correlations"].items():
        for scope, found in by_scope.items():
            tested = result["tested"] == {"signal": signal, "scope": scope}
            table.add_row(
                signal,
                scope,
                _signed(found["rho"]),
                f"{_signed(found['low'])} to {_signed(found['high'])}" if found["low"] is not None else "–",
                "–" if found["p"] is None else f"{found['p']:.2g}",
                str(found["groups"]),
                "the test" if tested else "explored",
                style="bold" if tested else None,
            )
    return table


def gradient_table(gradient: Mapping[str, Any]) -> Table:
    """Norm and signal-to-noise ratio of the policy gradient per role, before and after weighting."""
    focus = gradient["focus"]
    weights = f"α {focus['alpha']:g}, β {focus['beta']:g}, {focus['signal']}"
    if focus["other_weight"] is not None:
        weights += f", neither span {focus['other_weight']:g}"
    table = Table(
        title=(
            f"Policy gradient of {gradient['groups']} groups whose returns vary, before and after weighting"
            f" ({weights})"
        ),
        title_justify="left",
    )
    table.add_column("tokens")
    for heading in ("weights", "number", "norm", "norm per token", "share %", "signal to noise"):
        table.add_column(heading, justify="left" if heading == "weights" else "right")
    for role in ("reasoning", "action", "other", "all"):
        for when in ("before", "after"):
            found = gradient[when][role]
            share = found["share"]
            table.add_row(
                role if when == "before" else "",
                when,
                f"{found['tokens']:,}" if when == "before" else "",
                _figure(found["total"]),
                _figure(found["per_token"]),
                "" if share is None else f"{100 * share:.1f}",
                _figure(found["signal_to_noise"]),
            )
    return table


def described(result: Mapping[str, Any]) -> list[str]:
    """Everything that is no table, line by line; the verdict comes last."""
    lines = [
        f"{result['episodes']:,} episodes in {result['groups']} groups,"
        f" {result['groups_without_variance']} of them without any variance of the return;"
        f" action tokens are {_percent(result['action_share'])} of what the model wrote.",
        _check(result["signal_check"]),
    ]
    gradient = result["gradient"]
    if gradient is not None:
        lines.append(f"Noise alone would give a signal-to-noise ratio of {gradient['noise_floor']:.3f}.")
    lines += [f"Note: {note}" for note in result["notes"]]
    lines.append(
        f"The verdict rests on one test, named beforehand ({result['tested']['signal']} of"
        f" {result['tested']['scope']} tokens); the other correlations are exploratory."
    )
    lines.append(result["verdict"]["text"])
    return lines


def _check(check: Mapping[str, Any]) -> str:
    if check["energy_moved"] is None:
        return "Energy was not checked: there are no action tokens."
    moved = check["energy_moved_in_sd"]
    return (
        f"Check of the signal: {check['constant']:g} added to all logits of a context changes no probability;"
        f" it moves energy by {check['energy_moved']:.3g} nats ({_figure(moved)} standard deviations of"
        f" action energy) and entropy by {check['entropy_moved']:.1g}. At action tokens energy ranks as"
        f" entropy does with ρ = {_signed(check['energy_entropy_rho'])}."
    )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
