"""Statistics, promises: they agree with plain loops to 1e-9; intervals behave as intervals do; where few or
equal seeds allow none, there is none and a reason; and what the report says of their coverage is true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actfocus.compare import statistics
from actfocus.compare.statistics import (
    Estimate,
    estimate,
    interquartile_mean,
    mean_of_strata,
    percentile_interval,
    probability_of_improvement,
    resample_indices,
    student,
    student_interval,
)
from tests.compare import oracle

RESAMPLES = 300
CLOSE = {"abs": 1e-9, "rel": 1e-9}

# Shares of 64 episodes: ties and equal seeds come by themselves.
shares = st.integers(0, 64).map(lambda count: count / 64)
strata_of = st.lists(st.lists(shares, min_size=3, max_size=9), min_size=1, max_size=3)


def arrays(strata):
    return [np.array(stratum, dtype=np.float64) for stratum in strata]


def names(strata):
    return [f"stratum {number}" for number in range(len(strata))]


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """The oracle's loops are slow."""
    before = resample_indices.__defaults__
    resample_indices.__defaults__ = (RESAMPLES,)
    yield
    resample_indices.__defaults__ = before


def indices(strata, suffix=""):
    return [
        resample_indices(len(s), name + suffix).tolist()
        for s, name in zip(strata, names(strata), strict=True)
    ]


@given(strata_of)
@settings(deadline=None, max_examples=40)
def test_bootstrap_intervals_agree_with_plain_loops(strata):
    for ours, theirs in [
        (mean_of_strata, oracle.mean_of_strata),
        (interquartile_mean, oracle.interquartile_mean),
    ]:
        found = estimate(arrays(strata), ours, names(strata))
        assert found.value == pytest.approx(theirs(strata), **CLOSE)
        if found.low is not None:
            low, high = oracle.bootstrap(strata, indices(strata), theirs)
            assert (found.low, found.high) == pytest.approx((low, high), **CLOSE)


@given(strata_of)
@settings(deadline=None, max_examples=40)
def test_students_interval_agrees_with_an_integrated_density(strata):
    found = student(arrays(strata))
    assert found.value == pytest.approx(oracle.mean_of_strata(strata), **CLOSE)
    if found.low is None:
        assert all(len(set(stratum)) == 1 for stratum in strata)
    else:
        assert (found.low, found.high) == pytest.approx(oracle.student(strata), **CLOSE)


@given(strata_of, st.data())
@settings(deadline=None, max_examples=30)
def test_probability_of_improvement_agrees_with_plain_loops(ours, data):
    theirs = [data.draw(st.lists(shares, min_size=3, max_size=7)) for _ in ours]
    found = probability_of_improvement(arrays(ours), arrays(theirs), names(ours))
    assert found.value == pytest.approx(oracle.probability_of_improvement(ours, theirs), **CLOSE)
    back = probability_of_improvement(arrays(theirs), arrays(ours), names(ours))
    assert found.value + back.value == pytest.approx(1)
    if found.low is not None:
        rows, columns = indices(ours), indices(theirs, " theirs")
        interval = oracle.improvement_interval(ours, theirs, rows, columns)
        assert (found.low, found.high) == pytest.approx(interval, **CLOSE)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=23))
@settings(deadline=None)
def test_iqm_is_scipys_trimmed_mean(values):
    from scipy.stats import trim_mean

    assert float(interquartile_mean([np.array(values)])) == pytest.approx(trim_mean(values, 0.25), **CLOSE)


def test_known_figures():
    assert float(interquartile_mean(arrays([[0.0, 0.2, 0.4, 0.9, 1.0]]))) == pytest.approx(0.5)
    assert float(interquartile_mean(arrays([[0.0, 0.3, 0.9]]))) == pytest.approx(0.4)  # below four: the mean
    # t(0.975, 2) = 4.302653, standard error 1 / √3
    assert student_interval(arrays([[1.0, 2.0, 3.0]])) == pytest.approx(
        (2 - 2.484138, 2 + 2.484138), abs=1e-6
    )
    assert probability_of_improvement(arrays([[1, 2, 3]]), arrays([[2, 2, 2]]), ["x"]).value == 0.5
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


@given(strata_of)
@settings(deadline=None, max_examples=25)
def test_an_interval_lies_around_its_value_and_moves_with_the_data(strata):
    found = student(arrays(strata))
    boot = estimate(arrays(strata), mean_of_strata, names(strata))
    moved = estimate([x + 0.25 for x in arrays(strata)], mean_of_strata, names(strata))
    if boot.low is not None:
        assert boot.low <= boot.high and found.low < found.value < found.high
        flat = [value for stratum in strata for value in stratum]
        assert min(flat) <= boot.low and boot.high <= max(flat)
        assert (moved.low, moved.high) == pytest.approx((boot.low + 0.25, boot.high + 0.25))


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_seeds_have_no_interval(count):
    values = arrays([[0.1, 0.7][:count]])
    for found in (
        estimate(values, mean_of_strata, ["x"]),
        student(values),
        probability_of_improvement(values, arrays([[0.2, 0.3, 0.4]]), ["x"]),
    ):
        assert found.value is not None and found.low is None and found.high is None
        assert f"{count} seed" in found.why_not and "needs 3" in found.why_not
    assert "low" in Estimate(0.5, why_not="x").to_json()


def test_one_small_stratum_takes_the_interval_from_all():
    assert student(arrays([[0.1, 0.2, 0.3], [0.5, 0.6]])).low is None


def test_equal_seeds_have_no_interval():
    for value in (0.0, 0.3):
        assert "equal" in estimate(arrays([[value] * 5]), mean_of_strata, ["x"]).why_not
        assert "equal" in student(arrays([[value] * 5])).why_not
    # Equal but for rounding.
    assert "equal" in student(arrays([[0.3 - 0.2, 0.1, 0.4 - 0.3]])).why_not
    always = probability_of_improvement(arrays([[0.7, 0.8, 0.9]]), arrays([[0.1, 0.2, 0.3]]), ["x"])
    assert (always.value, always.low) == (1.0, None) and always.why_not


def test_nothing_gives_nothing():
    empty = arrays([[]])
    assert estimate(empty, mean_of_strata, ["x"]).value is None
    assert student([]).value is None
    assert probability_of_improvement(empty, arrays([[0.1]]), ["x"]).why_not == "no run"


def test_resamples_depend_on_the_stratum_alone():
    assert (resample_indices(5, "a") == resample_indices(5, "a")).all()
    assert (resample_indices(5, "a") != resample_indices(5, "b")).any()
    assert resample_indices(5, "a").shape == (RESAMPLES, 5)
    assert statistics.RESAMPLES == 10_000


@pytest.mark.parametrize(("seeds", "covered"), [(3, 0.74), (5, 0.83), (10, 0.90)])
def test_the_coverage_that_the_report_speaks_of(seeds, covered):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, seeds, (1000, seeds))
    boot, exact, trials = 0, 0, 1500
    for values in rng.normal(size=(trials, seeds)):
        low, high = percentile_interval(values[drawn].mean(1))
        boot += low <= 0 <= high
        low, high = student_interval([values])
        exact += low <= 0 <= high
    assert boot / trials == pytest.approx(covered, abs=0.03)
    assert exact / trials == pytest.approx(0.95, abs=0.02)
