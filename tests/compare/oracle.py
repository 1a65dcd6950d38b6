"""An independent computation of the statistics, in plain loops over lists: no numpy, no scipy.

Written from the definitions: Agarwal et al. 2021 (stratified bootstrap, inter-quartile mean, probability of
improvement), the linear quantile (type 7), and Student's distribution by integrating its density.
"""

import math


def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def mean_of_strata(strata):
    return mean([mean(stratum) for stratum in strata])


def interquartile_mean(strata):
    """All values in one row; a quarter cut at each end, rounded down to whole values."""
    row = sorted(value for stratum in strata for value in stratum)
    cut = len(row) // 4
    kept = []
    for place, value in enumerate(row):
        if cut <= place < len(row) - cut:
            kept.append(value)
    return mean(kept)


def quantile(values, share):
    row = sorted(values)
    place = share * (len(row) - 1)
    below = math.floor(place)
    above = min(below + 1, len(row) - 1)
    return row[below] + (place - below) * (row[above] - row[below])


def bootstrap(strata, indices, statistic):
    """95 % percentile interval; `indices[k][r]` are the places drawn from stratum k in resample r."""
    found = []
    for resample in range(len(indices[0])):
        drawn = []
        for stratum, places in zip(strata, indices, strict=True):
            drawn.append([stratum[place] for place in places[resample]])
        found.append(statistic(drawn))
    return quantile(found, 0.025), quantile(found, 0.975)


def student(strata):
    centre = mean_of_strata(strata)
    parts = []
    for stratum in strata:
        middle = mean(stratum)
        squares = 0.0
        for value in stratum:
            squares += (value - middle) ** 2
        parts.append(squares / (len(stratum) - 1) / len(stratum))
    top = sum(parts) ** 2
    bottom = 0.0
    for part, stratum in zip(parts, strata, strict=True):
        bottom += part**2 / (len(stratum) - 1)
    half = student_quantile(0.975, top / bottom) * math.sqrt(sum(parts)) / len(strata)
    return centre - half, centre + half


def student_quantile(probability, freedom):
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if student_tail(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_tail(t, freedom, pieces=1000):
    """P(T > t) for t > 0.

    With T = √ν tan θ the density becomes cos(θ)^(ν − 1) on an angle from 0 to π / 2; Simpson's rule.
    """

    def area(start, end):
        width = (end - start) / pieces
        total = 0.0
        for piece in range(pieces + 1):
            weight = 1 if piece in (0, pieces) else 4 if piece % 2 else 2
            cosine = max(0.0, math.cos(start + piece * width))
            total += weight * cosine ** (freedom - 1)
        return total * width / 3

    angle = math.atan(t / math.sqrt(freedom))
    whole = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2)) * math.sqrt(math.pi) / 2
    return 0.5 - area(0.0, angle) / whole / 2


def probability_of_improvement(ours, theirs):
    """Share of pairs in which ours is larger, ties counted half; mean over strata."""
    shares = []
    for x, y in zip(ours, theirs, strict=True):
        won = 0.0
        for a in x:
            for b in y:
                won += 1.0 if a > b else 0.5 if a == b else 0.0
        shares.append(won / (len(x) * len(y)))
    return mean(shares)


def improvement_interval(ours, theirs, rows, columns):
    found = []
    for resample in range(len(rows[0])):
        x = [
            [stratum[place] for place in places[resample]] for stratum, places in zip(ours, rows, strict=True)
        ]
        y = [
            [stratum[place] for place in places[resample]]
            for stratum, places in zip(theirs, columns, strict=True)
        ]
        found.append(probability_of_improvement(x, y))
    return quantile(found, 0.025), quantile(found, 0.975)
