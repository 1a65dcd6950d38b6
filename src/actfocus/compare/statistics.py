"""What a few seeds allow to be said: point estimates and 95 % intervals over runs.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". A stratum
is one task (an environment with an algorithm), its values are one figure per seed. Resampling draws seeds
with replacement within each stratum. N seeds, M other seeds, K strata, R resamples.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Interval = tuple[float, float]
Statistic = Callable[[Sequence[Floats]], Floats]

RESAMPLES = 10_000
BOOTSTRAP_SEED = 2021
CONFIDENCE = 0.95
FEWEST = 3
"""Values in a stratum below which there is no interval: two seeds tell next to nothing of their spread."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, or with the reason why it has none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why_not: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Value and bounds, and the reason if there are none."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return bounds | ({"why_not": self.why_not} if self.why_not else {})


def resample_indices(count: int, stream: str, resamples: int = RESAMPLES) -> Indices:
    """`indices_RN`: seeds drawn with replacement. Equal streams draw alike, whatever else is compared."""
    rng = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(stream.encode())])
    return rng.integers(0, count, (resamples, count))


def mean_of_strata(values: Sequence[Floats]) -> Floats:
    """Mean over strata of the mean over seeds; `values` are K arrays of shape (…, N)."""
    means: Floats = np.stack([stratum.mean(-1) for stratum in values]).mean(0)
    return means


def interquartile_mean(values: Sequence[Floats]) -> Floats:
    """Mean of the middle half of all values of all strata, as rliable and `scipy.stats.trim_mean(…, 0.25)`.

    A quarter of the values is cut at each end, rounded down to whole values: below four it is the mean.
    """
    ordered = np.sort(np.concatenate(values, axis=-1), axis=-1)
    cut = int(0.25 * ordered.shape[-1])
    middle: Floats = ordered[..., cut : ordered.shape[-1] - cut].mean(-1)
    return middle


def percentile_interval(resampled_R: Floats) -> Interval:
    """The middle 95 % of the resampled figures, with linear interpolation between order statistics."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled_R, [tail, 100 - tail])
    return float(low), float(high)


def student_interval(values: Sequence[Floats]) -> Interval:
    """Student's interval of `mean_of_strata`; with several strata the degrees of freedom are Welch's.

    At least two values per stratum, and not all of them equal to their stratum's mean.
    """
    centre = float(mean_of_strata(values))
    variances = np.array([stratum.var(ddof=1) / len(stratum) for stratum in values])
    freedoms = np.array([len(stratum) - 1 for stratum in values])
    freedom = variances.sum() ** 2 / (variances**2 / freedoms).sum()
    quantile = float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2))
    half = quantile * math.sqrt(float(variances.sum())) / len(values)
    return centre - half, centre + half


def estimate(values: Sequence[Floats], statistic: Statistic, streams: Sequence[str]) -> Estimate:
    """A statistic of K strata with its stratified-bootstrap interval; `streams` has one name per stratum."""
    if not values or min(map(len, values)) == 0:
        return Estimate(None, why_not="no run")
    value = float(statistic(values))
    reason = no_interval(values)
    if reason:
        return Estimate(value, why_not=reason)
    drawn = [
        stratum[resample_indices(len(stratum), stream)]
        for stratum, stream in zip(values, streams, strict=True)
    ]
    return Estimate(value, *percentile_interval(statistic(drawn)))


def student(values: Sequence[Floats]) -> Estimate:
    """`mean_of_strata` with Student's interval, or the reason why there is none."""
    if not values or min(map(len, values)) == 0:
        return Estimate(None, why_not="no run")
    reason = no_interval(values)
    bounds = (None, None) if reason else student_interval(values)
    return Estimate(float(mean_of_strata(values)), *bounds, why_not=reason)


def no_interval(values: Sequence[Floats]) -> str | None:
    """Why K strata allow no interval; None if they do."""
    count = min(map(len, values))
    if count < FEWEST:
        return f"{count} {'seed' if count == 1 else 'seeds'}; an interval needs {FEWEST}"
    # Not exactly zero: differences of equal figures may differ by rounding.
    if all(float(np.ptp(stratum)) < 1e-12 for stratum in values):
        return "all seeds are equal: their spread is unknown"
    return None


def wins(ours_N: Floats, theirs_M: Floats) -> Floats:
    """`wins_NM`: 1 where ours is larger, one half where both are equal, else 0."""
    ours, theirs = ours_N[:, None], theirs_M[None, :]
    table: Floats = (ours > theirs) + 0.5 * (ours == theirs)
    return table


def probability_of_improvement(
    ours: Sequence[Floats], theirs: Sequence[Floats], streams: Sequence[str]
) -> Estimate:
    """How likely a run of ours beats a run of theirs: all N · M pairs of a stratum, mean over strata.

    As rliable: the seeds of the two arms are resampled independently.
    """
    if not ours or min(map(len, [*ours, *theirs])) == 0:
        return Estimate(None, why_not="no run")
    tables = [wins(x, y) for x, y in zip(ours, theirs, strict=True)]
    value = float(np.mean([table.mean() for table in tables]))
    fewest = min(map(len, [*ours, *theirs]))
    if fewest < FEWEST:
        return Estimate(value, why_not=no_interval([np.arange(fewest, dtype=np.float64)]))
    if all(float(np.ptp(table)) == 0 for table in tables):
        return Estimate(value, why_not="all pairs of runs agree: no resample differs")
    resampled = [
        _resampled_wins(table, resample_indices(len(x), stream), resample_indices(len(y), f"{stream} theirs"))
        for table, x, y, stream in zip(tables, ours, theirs, streams, strict=True)
    ]
    return Estimate(value, *percentile_interval(np.mean(resampled, axis=0)))


def _resampled_wins(table_NM: Floats, rows_RN: Indices, columns_RM: Indices) -> Floats:
    # As counts instead of an R × N × M array: twenty seeds an arm would make that 32 MB.
    rows_RN = np.apply_along_axis(np.bincount, 1, rows_RN, minlength=table_NM.shape[0])
    columns_RM = np.apply_along_axis(np.bincount, 1, columns_RM, minlength=table_NM.shape[1])
    total: Floats = np.einsum("rn,nm,rm->r", rows_RN, table_NM, columns_RM, optimize=True)
    return total / table_NM.size
