"""Rates and shapes of series whose truth is in how they are made."""

from __future__ import annotations

import sys
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpleak.compare.shape import Shape, fit, theil_sen
from dumpleak.model.optional_libraries import MissingExtraError

HOURLY = {
    "steady": (Shape.STEADY, [5, 65, 125, 185, 245]),
    "steady, then the load stops": (Shape.STEADY, [5, 65, 125, 185, 245, 245]),
    "three points": (Shape.STEADY, [0, 60, 125]),
    "noise around a line": (Shape.STEADY, [0, 60, 55, 120, 180, 170, 240, 305]),
    "shrinks evenly": (Shape.STEADY, [245, 185, 125, 65]),
    "a cache that fills": (Shape.SATURATING, [600, 900, 1050, 1125, 1125, 1125]),
    "a cache, caught early": (Shape.SATURATING, [600, 900, 1050]),
    "a cache that fills slowly, four dumps": (Shape.SATURATING, [0, 330, 550, 700]),
    "a cache that fills slowly, six dumps": (Shape.SATURATING, [0, 181, 330, 451, 551, 632]),
    "a full cache in the last of three intervals": (Shape.SATURATING, [0, 100, 200, 225]),
    "grows once": (Shape.STEP, [21, 21, 21, 1021, 1021]),
    "grows once, first": (Shape.STEP, [21, 1021, 1021]),
    "up and down": (Shape.SAWTOOTH, [36, 436, 36, 436, 36]),
    "up and down, ends up": (Shape.SAWTOOTH, [36, 436, 36, 436]),
    "nothing": (Shape.FLAT, [527, 527, 527]),
    "as much freed as allocated": (Shape.FLAT, [116060, 116254, 115847, 116045, 116437]),
    "creeps, too few points to tell": (Shape.FLAT, [110591, 110615, 110822]),
    "creeps, steadily": (Shape.STEADY, [110000, 110100, 110200, 110300, 110400]),
    "faster and faster": (Shape.IRREGULAR, [1, 2, 4, 8, 16]),
    "two points": (Shape.IRREGULAR, [1, 2]),
}


def _fit(values: list[int], times: list[float] | None = None):  # type: ignore[no-untyped-def]
    moments = range(len(values)) if times is None else times
    return fit(np.array(moments, np.float64), np.array(values, np.float64))


@pytest.mark.parametrize(("shape", "values"), HOURLY.values(), ids=list(HOURLY))
def test_a_series_gets_its_shape(shape: Shape, values: list[int]) -> None:
    assert _fit(values).shape is shape


@pytest.mark.parametrize(("shape", "values"), HOURLY.values(), ids=list(HOURLY))
def test_the_shape_does_not_depend_on_units_or_level(shape: Shape, values: list[int]) -> None:
    days = [number / 24 for number in range(len(values))]
    scaled = [1000 * value for value in values]
    assert _fit(scaled, days).shape is shape


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=9),
    st.randoms(use_true_random=False),
)
def test_the_slope_alone_is_that_of_the_fit(values: list[int], random: Random) -> None:
    times = np.cumsum([random.uniform(0.1, 9) for _ in values])
    alone = theil_sen(times, np.array(values, np.float64))
    assert alone == pytest.approx(
        fit(times, np.array(values, np.float64)).slope, rel=1e-9, abs=1e-9
    )


def test_one_odd_dump_does_not_move_the_rate() -> None:
    honest = [100 * hour for hour in range(9)]
    odd = [*honest[:4], 5000, *honest[5:]]
    assert _fit(odd).slope == pytest.approx(100)


def test_rates_are_per_unit_of_time_however_unevenly_dumps_were_taken() -> None:
    times = [0.0, 0.5, 3.0, 3.25, 10.0]
    answer = _fit([round(7 + 60 * time) for time in times], times)
    assert answer.slope == pytest.approx(60)
    assert answer.shape is Shape.STEADY


def test_the_test_for_a_trend_is_mann_kendalls() -> None:
    # Five rising points: the exact two-sided chance of that order is 2 / 5!.
    rising = _fit([1, 2, 3, 5, 8])
    assert rising.tau == pytest.approx(1)
    assert rising.p_value == pytest.approx(2 / 120)
    assert (rising.rising, rising.intervals) == (4, 4)
    assert _fit([8, 5, 3, 2, 1]).tau == pytest.approx(-1)


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"dumpleak\[trend\]"):
        _fit([1, 2, 3])


@given(st.lists(st.integers(0, 2**45), min_size=2, max_size=12))
def test_any_series_has_a_shape_and_a_rate_between_its_extremes(values: list[int]) -> None:
    answer = _fit(values)
    changes = [after - before for before, after in pairwise(values)]
    assert min(changes) - 1e-3 <= answer.slope <= max(changes) + 1e-3
    assert 0 <= answer.p_value <= 1
    assert (answer.shape is Shape.FLAT) or len(set(values)) > 1
