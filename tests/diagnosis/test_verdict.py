"""The verdict and the picture, promises: no claim without an interval that excludes 0; too few groups, or too
few whose variance differs, is a verdict too; the picture is there whatever was found, and always the same.
"""

import math
from xml.etree import ElementTree

import pytest

from actfocus.diagnosis.picture import correlation_words, draw_bottleneck
from actfocus.diagnosis.verdict import FEWEST_GROUPS, FEWEST_VARIED, verdict
from actfocus.focus.bottleneck import GroupMeans, RankCorrelation

NAN = math.nan


def correlation(low, high, groups=20):
    rho = (low + high) / 2
    return RankCorrelation(rho, 0.05, low, high, groups, 5000)


def judge(found, variances=None, tokens=100):
    variances = [float(k % 7) for k in range(found.groups)] if variances is None else variances
    return verdict(found, variances, tokens, silent=sum(v == 0 for v in variances))


@pytest.mark.parametrize(
    ("low", "high", "finding", "words"),
    [
        (0.01, 0.7, "evidence", "Evidence that the energy of action tokens is higher"),
        (-0.01, 0.7, "no evidence", "No evidence of an action bottleneck"),
        (-0.7, 0.01, "no evidence", "does not show that there is none"),
        (0.0, 0.7, "no evidence", "holds 0"),
        (-0.7, -0.01, "evidence of the opposite", "but of the opposite"),
    ],
)
def test_claims_no_more_than_the_interval(low, high, finding, words):
    found = judge(correlation(low, high))
    assert found.finding == finding
    assert words in found.text
    assert f"95 % interval {low:+.2f} to {high:+.2f}, 20 groups with action tokens; " in found.text
    assert "of all groups 3 without any variance" in found.text


def test_a_bound_never_loses_its_sign_by_rounding():
    assert "95 % interval +0.004 to +0.70" in judge(correlation(0.004, 0.7)).text
    found = judge(correlation(-0.7, 0.0003)).text
    assert "95 % interval -0.70 to +0.0003" in found and "every ρ up to +0.0003" in found


@pytest.mark.parametrize("low", [0.3, -0.3])
def test_too_little_is_said_to_be_too_little(low):
    strong = correlation(low, 0.9)
    assert judge(strong, tokens=0).finding == "too little data"
    few = judge(correlation(low, 0.9, groups=FEWEST_GROUPS - 1))
    assert few.finding == "too little data" and f"at least {FEWEST_GROUPS}" in few.text
    rare = [0.0] * (20 - FEWEST_VARIED + 1) + [0.1 * k for k in range(1, FEWEST_VARIED)]
    found = judge(strong, rare)
    assert found.finding == "too little data" and "all but 4 of 20" in found.text
    assert judge(correlation(low, 0.9), [0.0, *rare[1:-1], 0.7, 0.8][:20]).finding == "too little data"


def test_constant_sides():
    nothing = RankCorrelation(NAN, NAN, NAN, NAN, 20, 0)
    assert "no group with action tokens has returns that vary" in judge(nothing, [0.0] * 20).text
    assert "vary alike" in judge(nothing, [0.25] * 20).text
    found = judge(nothing)
    assert found.finding == "too little data" and "the mean energy of actions is the same" in found.text


def tables():
    some = GroupMeans((0, 1, 2), (0.0, 0.1, 0.25), (-3.0, -2.0, -1.0))
    return {"all": some, "reasoning": some, "action": GroupMeans((), (), ())}


def test_the_picture_is_always_the_same(tmp_path):
    found = dict.fromkeys(tables(), RankCorrelation(NAN, NAN, NAN, NAN, 0, 0))
    found["all"] = correlation(0.1, 0.5, groups=3)
    images = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = draw_bottleneck(tables(), found, "title & <title>", tmp_path / name)
        assert [path.name for path in paths] == ["bottleneck.png", "bottleneck.svg"]
        images.append([path.read_bytes() for path in paths])
    assert images[0] == images[1]
    svg = images[0][1].decode()
    for words in ("ρ = +0.30 [+0.10, +0.50], 3 groups", "ρ not defined, 0 groups", "no such tokens"):
        assert words in svg


def test_any_title_can_be_drawn(tmp_path):
    """It holds the name of a file or a folder: no formula, nothing that XML forbids, no endless line."""
    found = dict.fromkeys(tables(), RankCorrelation(NAN, NAN, NAN, NAN, 0, 0))
    for title in ("costs $5$ or $\\frac{$", "bell \x07 escape \x1b[31m half \udcff", "long" * 100):
        draw_bottleneck(tables(), found, title, tmp_path)
        svg = (tmp_path / "bottleneck.svg").read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        assert title[:4] in svg
    assert "long" * 40 not in svg


def test_correlation_words():
    assert correlation_words(RankCorrelation(0.5, 0.6, NAN, NAN, 3, 0)) == "ρ = +0.50, 3 groups"
