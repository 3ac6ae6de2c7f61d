"""What a series of values looks like: its rate and its shape.

The rate is the Theil–Sen slope (the median of the slopes between all pairs of points), which one odd
point cannot move; the test for a trend is Mann–Kendall's, as Kendall's tau between time and value. Both
are SciPy's.

A growing series is told apart by how its growth is spread over the intervals: all in one (a step), less and
less (a cache that fills), the same in nearly all (what a leak looks like).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from dumpleak.model.optional_libraries import missing_extra
from windumps.arrays import F64

# Falls up to this share of all rises are noise in a series that grows.
NOISE_SHARE = 0.1
# Falls from this share of all rises on make a series go up and down.
SAWTOOTH_SHARE = 0.5
# A series that moves within this share of its level, back and forth, is flat.
FLAT_SHARE = 0.02
# So is one of too few points for a test that creeps by no more than this.
CREEP_SHARE = 0.005
# One interval with this share of all growth is a step.
STEP_SHARE = 0.9
# An interval agrees with the slope when its own rate is this close, as a share of the slope.
RATE_TOLERANCE = 1 / 3
AGREEING_SHARE = 2 / 3  # of all intervals, in a steady series
# The second half of a saturating series grows this much less than the first.
SATURATING_RATIO = 0.6
# This much less is enough where each of many intervals grows less than the one before it.
SLOWING_RATIO = 0.75
MANY_RATES = 4
# Noise of a steady series around its line, as a share of its range, and the chance that there is no trend.
NOISY_RESIDUAL = 0.1
SIGNIFICANT = 0.05
MIN_NOISY_POINTS = 5  # with fewer, Mann–Kendall's test cannot come out significant


class Shape(StrEnum):
    """How a series runs."""

    STEADY = "steady"
    STEP = "step"
    SATURATING = "saturating"
    SAWTOOTH = "sawtooth"
    FLAT = "flat"
    IRREGULAR = "irregular"


@dataclass(frozen=True)
class Fit:
    """A series of values fitted.

    Attributes:
        slope: Change per unit of time, Theil–Sen.
        low: Lower end of the slope's 95 % confidence interval.
        high: Its upper end.
        tau: Kendall's tau between time and value, -1 to 1; 1 when every value is above all earlier ones.
        p_value: Chance of such a tau without a trend (two-sided Mann–Kendall test).
        shape: See `Shape`.
        rising: Intervals with growth.
        intervals: Intervals in all.
    """

    slope: float
    low: float
    high: float
    tau: float
    p_value: float
    shape: Shape
    rising: int
    intervals: int


def fit(times: F64, values: F64) -> Fit:
    """Fits one series.

    Args:
        times: Ascending, shape (n,), n at least 2; in any unit.
        values: Shape (n,).

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    changes = np.diff(values)
    rising = int((changes > 0).sum())
    if not changes.any():
        return Fit(0.0, 0.0, 0.0, 0.0, 1.0, Shape.FLAT, 0, len(changes))
    try:
        from scipy.stats import theilslopes
    except ImportError as error:
        raise missing_extra("trends", "SciPy", "trend") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # two points have no confidence interval
        slope, intercept, low, high = (float(x) for x in theilslopes(values, times))
    # The test looks at ranks only, and thousands of sites share few orders of them.
    tau, p_value = _mann_kendall(tuple(np.unique(values, return_inverse=True)[1].tolist()))
    residual = float(np.median(np.abs(values - slope * times - intercept)))
    # A series that shrinks has the shape of its mirror image.
    upwards = 1.0 if values[-1] >= values[0] else -1.0
    shape = _shape(times, upwards * values, upwards * slope, residual, p_value)
    return Fit(slope, low, high, tau, p_value, shape, rising, len(changes))


def theil_sen(times: F64, values: F64) -> float:
    """The Theil–Sen slope alone: the median of the slopes between all pairs of points."""
    first, second = np.triu_indices(len(values), 1)
    return float(np.median((values[second] - values[first]) / (times[second] - times[first])))


@lru_cache(maxsize=1 << 16)
def _mann_kendall(ranks: tuple[int, ...]) -> tuple[float, float]:
    """Kendall's tau between time and value, and the chance of it without a trend."""
    from scipy.stats import kendalltau

    tau = kendalltau(range(len(ranks)), ranks)
    return float(tau.statistic), float(tau.pvalue) if len(ranks) > 2 else 1.0


def _shape(times: F64, values: F64, slope: float, residual: float, p_value: float) -> Shape:
    changes = np.diff(values)
    rises, falls = float(changes[changes > 0].sum()), -float(changes[changes < 0].sum())
    span = float(values.max() - values.min())
    if falls > NOISE_SHARE * rises:
        if span <= FLAT_SHARE * float(np.abs(values).max()) and p_value > SIGNIFICANT:
            return Shape.FLAT
        if falls >= SAWTOOTH_SHARE * rises:
            return Shape.SAWTOOTH
        noisy = _steady_with_noise(times, values, span, residual, p_value)
        return Shape.STEADY if noisy else Shape.IRREGULAR
    if len(changes) < 2:
        return Shape.IRREGULAR  # two points have no shape
    if len(values) < MIN_NOISY_POINTS and span <= CREEP_SHARE * float(np.abs(values).max()):
        return Shape.FLAT
    if float(changes.max()) >= STEP_SHARE * rises:
        return Shape.STEP
    rates, late = changes / np.diff(times), _late_to_early(times, values)
    if len(rates) < MANY_RATES:
        # Most of so few always agree with the slope between their points: first and last have to agree too.
        slower = bool(rates[-1] < SATURATING_RATIO * rates[0])
    else:
        slower = bool((np.diff(rates) < 0).all()) and late < SLOWING_RATIO
    agreeing = np.abs(rates - slope) <= RATE_TOLERANCE * slope
    if float(agreeing.mean()) >= AGREEING_SHARE and not slower:
        return Shape.STEADY
    if slower or late < SATURATING_RATIO:
        return Shape.SATURATING
    if _steady_with_noise(times, values, span, residual, p_value):
        return Shape.STEADY
    return Shape.IRREGULAR


def _late_to_early(times: F64, values: F64) -> float:
    """The rate over the second half of the intervals to that over the first; a middle one is in both."""
    half = len(values) // 2
    early = (values[half] - values[0]) / (times[half] - times[0])
    late = (values[-1] - values[-1 - half]) / (times[-1] - times[-1 - half])
    return float(late / early) if early > 0 else float("inf")


def _steady_with_noise(
    times: F64, values: F64, span: float, residual: float, p_value: float
) -> bool:
    return (
        len(values) >= MIN_NOISY_POINTS
        and p_value <= SIGNIFICANT
        and residual <= NOISY_RESIDUAL * span
        and SATURATING_RATIO <= _late_to_early(times, values) <= 1 / SATURATING_RATIO
    )
