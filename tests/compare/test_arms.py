"""Arms, promises: the words of `--arm` give the weights they say, wrong ones are refused by name, and weights
that are equal in effect are one arm."""

import pytest

from actfocus.compare.arms import (
    ACTFOCUS,
    UNIFORM,
    Arm,
    canonical,
    choose_arms,
    label,
    parse_arm,
    under_known_names,
)
from actfocus.config import FocusConfig
from actfocus.errors import ConfigError


def focus(**settings):
    return FocusConfig.model_validate(ACTFOCUS.model_dump() | settings)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("uniform", "uniform", UNIFORM),
        ("actfocus", "actfocus", ACTFOCUS),
        ("mine=alpha:0.3", "mine", focus(alpha=0.3)),
        ("alpha:0.3", "alpha0.3", focus(alpha=0.3)),
        ("signal:entropy", "entropy", focus(signal="entropy")),
        ("x=alpha:0,beta:2,signal:nll", "x", FocusConfig(alpha=0, beta=2, signal="nll")),
        ("alpha:0.3,other-weight:1", "alpha0.3-other1", focus(alpha=0.3, other_weight=1.0)),
        ("alpha:1,beta:0", "uniform", UNIFORM),
    ],
)  # fmt: skip
def test_arm(text, name, expected):
    arm = parse_arm(text)
    assert (arm.name, arm.focus) == (name, expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("actfcus", "did you mean 'actfocus'"),
        ("quick", "NAME=alpha:0.3"),
        ("x=alpha", "unknown arm"),
        ("x=alpha:", "alpha needs a value"),
        ("x=alpah:1", "did you mean 'alpha'"),
        ("x=alpha:lots", "a number, got 'lots'"),
        ("x=alpha:2", "focus.alpha: input should be less than or equal to 1"),
        ("x=beta:nan", "focus.beta"),
        ("x=signal:loud", "focus.signal"),
        ("x=alpha:0,alpha:1", "alpha is given twice"),
        ("a/b=alpha:0", "letters, digits"),
        ("a" * 65 + "=alpha:0", "64 of them at most"),
        ("uniform=alpha:0.5", "has its own settings"),
    ],
)
def test_wrong_arm(text, said):
    with pytest.raises(ConfigError, match="--arm") as error:
        parse_arm(text)
    assert said in str(error.value)


def test_weights_that_are_equal_in_effect_are_one():
    assert canonical(FocusConfig(alpha=1, beta=0, signal="nll", other_weight=1)) == UNIFORM
    assert canonical(FocusConfig(alpha=0.1, other_weight=0.1)) == ACTFOCUS
    assert canonical(focus(signal="nll")) != ACTFOCUS
    assert label(FocusConfig(alpha=1, beta=0, signal="nll")) == "uniform"


def test_weights_that_differ_have_two_labels():
    assert label(focus(alpha=0.1000001)) == "alpha0.1000001" != label(focus(alpha=0.1000002))
    assert label(focus(beta=1e-7, alpha=1 / 3)) == "alpha0.3333333333333333-beta1e-07"


def test_known_weights_keep_their_name():
    known = [Arm("mine", focus(alpha=0.3)), Arm("later", focus(alpha=0.3))]
    other = Arm("other", focus(alpha=0.2))
    assert under_known_names([Arm("x", focus(alpha=0.3, other_weight=0.3)), other], known) == [
        known[0],
        other,
    ]


def test_sweeps_add_what_is_not_there():
    arms = choose_arms(["uniform", "actfocus"], [0, 0.05, 0.1, 0.3, 1], [0, 0.5, 1, 2])
    assert [arm.name for arm in arms] == [
        "uniform", "actfocus", "alpha0", "alpha0.05", "alpha0.3", "alpha1", "beta0", "beta1", "beta2",
    ]  # fmt: skip
    assert {arm.name: arm.focus for arm in arms}["alpha1"] == FocusConfig(alpha=1, beta=0.5)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["uniform", "uniform"], "two arms 'uniform'"),
        (["actfocus", "x=alpha:0.1"], "'actfocus' and 'x' have the same weights"),
        (["alpha0.3=alpha:0.2"], "'alpha0.3' is the name of a sweep's arm"),
    ],
)
def test_no_two_arms_alike(texts, said):
    with pytest.raises(ConfigError, match=said):
        choose_arms(texts, [0.3], [])


def test_a_wrong_value_in_a_sweep_names_the_option():
    with pytest.raises(ConfigError, match=r"--alphas: .*less than or equal to 1"):
        choose_arms(["uniform"], [2], [])
    with pytest.raises(ConfigError, match="--betas"):
        choose_arms(["uniform"], [], [-1])
