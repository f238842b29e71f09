from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterion.config import OptimizationSection
from posterion.training._schedule import learning_rate_factor, schedule_factor


def factors(total: int, schedule: str, warmup: float) -> list[float]:
    return [schedule_factor(s, total, schedule=schedule, warmup=warmup) for s in range(total)]


def test_constant_after_warmup():
    assert factors(10, "constant", 0.3) == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)


def test_linear_falls_evenly_and_no_step_is_wasted():
    values = factors(10, "linear", 0.2)
    assert values[:3] == pytest.approx([0.5, 1.0, 1.0])
    differences = [a - b for a, b in pairwise(values[2:])]
    assert differences == pytest.approx([1 / 8] * 7)
    assert values[-1] == pytest.approx(1 / 8)


def test_cosine_is_half_way_at_half_time():
    values = factors(100, "cosine", 0.0)
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.5)
    assert values[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert 0 < values[-1] < 0.001


@given(
    total=st.integers(1, 500),
    warmup=st.floats(0.0, 0.99),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)
def test_every_step_learns_and_none_exceeds_the_peak(total: int, warmup: float, schedule: str):
    values = factors(total, schedule, warmup)
    assert all(0 < value <= 1 for value in values)
    peak = max(range(total), key=lambda step: values[step])
    assert values[peak] == 1.0
    assert values[: peak + 1] == sorted(values[: peak + 1])


def test_step_outside_the_run_is_an_error():
    with pytest.raises(ValueError, match="outside"):
        schedule_factor(10, 10, schedule="linear", warmup=0.0)


def test_recipe_section_is_used():
    section = OptimizationSection(schedule="constant", warmup=0.5)
    assert learning_rate_factor(0, 4, section) == 0.5
    assert learning_rate_factor(3, 4, section) == 1.0
