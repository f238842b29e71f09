from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion.config import OptimizationSection
from posterion.testing import tiny_training
from posterion.training._course import LengthCourse, StepPlan


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    from posterion.data import EncodedDataset

    spec = tiny_training(tmp_path_factory.mktemp("course"), num_texts=60)
    return EncodedDataset(spec.train_path)


def course(dataset, micro_batches: int = 1, **settings) -> LengthCourse:
    optimization = OptimizationSection(batch_tokens=96, **settings)
    return LengthCourse(dataset, optimization=optimization, seed=3, micro_batches=micro_batches)


def rows_of(plan: StepPlan) -> np.ndarray:
    return plan.rows


def test_each_epoch_takes_every_row_once(dataset):
    found = course(dataset, epochs=2)
    ends = [s for s in range(1, found.total_steps + 1) if found.ends_epoch(s)]
    assert len(ends) == 2
    assert ends[-1] == found.total_steps
    for start, end in ((0, ends[0]), (ends[0], ends[1])):
        rows = np.concatenate([rows_of(found.step(s)) for s in range(start, end)])
        assert sorted(rows) == list(range(len(dataset)))


def test_a_step_is_a_function_of_its_number(dataset):
    forwards, backwards = course(dataset, epochs=2), course(dataset, epochs=2)
    steps = range(forwards.total_steps)
    first = {s: rows_of(forwards.step(s)) for s in steps}
    for s in reversed(steps):
        np.testing.assert_array_equal(rows_of(backwards.step(s)), first[s])


def test_epochs_differ(dataset):
    found = course(dataset, epochs=2)
    half = found.total_steps // 2
    assert rows_of(found.step(0)).tolist() != rows_of(found.step(half)).tolist()


def test_fractional_epochs_and_epoch_numbers(dataset):
    whole = course(dataset, epochs=1).total_steps
    found = course(dataset, epochs=1.5)
    assert found.total_steps >= whole + whole // 2
    assert found.epochs_after(0) == 0.0
    assert found.epochs_after(whole) == 1.0
    assert found.epochs == pytest.approx(1.5, abs=1 / whole)


def test_max_steps_ends_the_run(dataset):
    found = course(dataset, epochs=100, max_steps=3)
    assert found.total_steps == 3
    assert found.ends_epoch(3)


def test_counts_agree_with_the_data(dataset):
    plan = course(dataset, micro_batches=4).step(0)
    assert len(plan.micro_batches) == 4
    assert plan.tokens == dataset.lengths[plan.rows].sum()
    assert plan.padded_tokens >= plan.tokens


@settings(deadline=None)
@given(micro_batches=st.integers(1, 20), world_size=st.integers(1, 9))
def test_workers_share_every_micro_batch_once(micro_batches: int, world_size: int):
    parts = [np.array([index]) for index in range(micro_batches)]
    plan = StepPlan(step=0, epoch=0, micro_batches=parts, tokens=1, padded_tokens=1)
    shares = [plan.share(rank, world_size) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(micro_batches))
    assert max(map(len, shares)) == plan.rounds(world_size)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_who_gets_the_larger_of_one_round_gets_the_smaller_of_the_next():
    parts = [np.array([index]) for index in range(4)]
    plan = StepPlan(step=0, epoch=0, micro_batches=parts, tokens=1, padded_tokens=1)
    assert [plan.share(rank, 2) for rank in range(2)] == [[0, 3], [1, 2]]
