from __future__ import annotations

import numpy as np
import pytest

from posterion.config import OptimizationSection
from posterion.testing import tiny_training
from posterion.training._course import Course


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    from posterion.data import EncodedDataset

    spec = tiny_training(tmp_path_factory.mktemp("course"), num_texts=60)
    return EncodedDataset(spec.train_path)


def course(dataset, world_size: int = 1, **settings) -> Course:
    optimization = OptimizationSection(batch_tokens=96, **settings)
    return Course(dataset, optimization=optimization, seed=3, world_size=world_size)


def rows_of(plan) -> np.ndarray:
    return np.concatenate([micro for rank in plan.rows for micro in rank])


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
    plan = course(dataset, world_size=2, accumulation=2).step(0)
    rows = rows_of(plan)
    weights = dataset.table.column("weight").to_numpy()
    assert [len(rank) for rank in plan.rows] == [2, 2]
    assert plan.weight == pytest.approx(float(weights[rows].sum()))
    assert plan.tokens == dataset.lengths[rows].sum()
    assert plan.padded_tokens >= plan.tokens
