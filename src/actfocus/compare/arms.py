"""Arms: the token weights that are compared, and the words that name them.

    uniform                                          plain PPO or GRPO
    actfocus                                         the paper's weights
    NAME=alpha:0.3,beta:0.5,signal:entropy,other_weight:1

What an arm leaves out is ActFocus's, and NAME= may be left out too.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from actfocus.config import Config, FocusConfig, explain
from actfocus.errors import ConfigError, did_you_mean

UNIFORM = FocusConfig(alpha=1.0, beta=0.0)
ACTFOCUS = FocusConfig(alpha=0.1, beta=0.5)
SHIPPED = {"uniform": UNIFORM, "actfocus": ACTFOCUS}
FORM = "NAME=alpha:0.3,beta:0.5,signal:energy,other_weight:1"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""It becomes a part of file names."""


@dataclass(frozen=True)
class Arm:
    """Token weights under a name."""

    name: str
    focus: FocusConfig


def canonical(focus: FocusConfig) -> FocusConfig:
    """The same weights, written in one way: equal weights are equal objects."""
    signal = focus.signal if focus.beta > 0 else "energy"  # nothing is added, so nothing is ranked
    other = None if focus.other_weight == focus.alpha else focus.other_weight
    return FocusConfig(alpha=focus.alpha, beta=focus.beta, signal=signal, other_weight=other)


def label(focus: FocusConfig) -> str:
    """A name for weights that have none: `uniform`, `actfocus`, or what sets them apart from ActFocus."""
    focus = canonical(focus)
    for name, known in SHIPPED.items():
        if focus == known:
            return name
    parts = [f"alpha{exact(focus.alpha)}"] if focus.alpha != ACTFOCUS.alpha else []
    parts += [f"beta{exact(focus.beta)}"] if focus.beta != ACTFOCUS.beta else []
    parts += [focus.signal] if focus.signal != ACTFOCUS.signal else []
    parts += [f"other{exact(focus.other_weight)}"] if focus.other_weight is not None else []
    return "-".join(parts)


def exact(value: float) -> str:
    """As short as it can be: two values never have one name."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def parse_arm(text: str) -> Arm:
    """The arm that `--arm` names; raises `ConfigError`."""
    if text in SHIPPED:
        return Arm(text, SHIPPED[text])
    name, equals, body = text.partition("=")
    if not equals:
        name, body = "", text
    if ":" not in body:
        hint = did_you_mean(text, SHIPPED) or f"; it is uniform, actfocus or {FORM}"
        raise ConfigError(f"--arm: unknown arm {text!r}{hint}")
    focus = _parse_focus(text, body)
    name = name or label(focus)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--arm {text}: a name has letters, digits and . _ + - only, and 64 of them at most, got {name!r}"
        )
    if name in SHIPPED and canonical(focus) != SHIPPED[name]:
        raise ConfigError(f"--arm {text}: the name {name!r} has its own settings: choose another one")
    return Arm(name, focus)


def _parse_focus(text: str, body: str) -> FocusConfig:
    known = list(FocusConfig.model_fields)
    given: dict[str, str | float] = {}
    for part in body.split(","):
        key, colon, value = (word.strip() for word in part.partition(":"))
        key = key.replace("-", "_")
        if key not in known:
            hint = did_you_mean(key, known) or f"; it is one of {', '.join(known)}"
            raise ConfigError(f"--arm {text}: unknown setting {key!r}{hint}")
        if not colon or not value:
            raise ConfigError(f"--arm {text}: {key} needs a value, as in {key}:0.3")
        if key in given:
            raise ConfigError(f"--arm {text}: {key} is given twice")
        given[key] = value if key == "signal" else _number(text, key, value)
    try:
        return FocusConfig.model_validate(ACTFOCUS.model_dump() | given)
    except ValidationError as error:
        raise ConfigError(f"--arm {text}: {explain(error, Config)}") from None


def _number(text: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"--arm {text}: {key} should be a number, got {value!r}") from None


def choose_arms(texts: Sequence[str], alphas: Iterable[float], betas: Iterable[float]) -> list[Arm]:
    """The arms of a grid: the named ones, then those of the two sweeps that are not among them.

    Each sweep varies one setting of ActFocus. Raises `ConfigError` if two arms have one name or the same
    weights.
    """
    arms: list[Arm] = []
    for arm in map(parse_arm, texts):
        for other in arms:
            if other.name == arm.name:
                raise ConfigError(f"--arm: there are two arms {arm.name!r}: name one of them otherwise")
            if canonical(other.focus) == canonical(arm.focus):
                raise ConfigError(f"--arm: {other.name!r} and {arm.name!r} have the same weights: drop one")
        arms.append(arm)
    sweeps = [("--alphas", "alpha", value) for value in alphas]
    sweeps += [("--betas", "beta", value) for value in betas]
    for option, key, value in sweeps:
        try:
            focus = FocusConfig.model_validate(ACTFOCUS.model_dump() | {key: value})
        except ValidationError as error:
            raise ConfigError(f"{option}: {explain(error, Config)}") from None
        if canonical(focus) not in [canonical(arm.focus) for arm in arms]:
            arms.append(Arm(label(focus), focus))
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--arm: {name!r} is the name of a sweep's arm: name yours otherwise")
    return arms


def under_known_names(arms: Iterable[Arm], known: Iterable[Arm]) -> list[Arm]:
    """The arms; those whose weights are a known arm's are that arm, so that no arm falls apart in two."""
    names = {canonical(arm.focus): arm for arm in reversed(list(known))}  # the first name counts
    return [names.get(canonical(arm.focus), arm) for arm in arms]
