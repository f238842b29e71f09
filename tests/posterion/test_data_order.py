from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion.data.packing import RowOrder


@settings(deadline=None)
@given(num_rows=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 50))
def test_every_row_comes_once(num_rows: int, seed: int, epoch: int) -> None:
    rows = RowOrder(num_rows, seed=seed, epoch=epoch).rows(0, num_rows)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))


@settings(deadline=None)
@given(st.integers(2, 2000), st.data())
def test_any_part_can_be_asked_for(num_rows: int, data: st.DataObject) -> None:
    order = RowOrder(num_rows, seed=3, epoch=1)
    start = data.draw(st.integers(0, num_rows))
    stop = data.draw(st.integers(start, num_rows))
    assert np.array_equal(order.rows(start, stop), order.rows(0, num_rows)[start:stop])


def test_epochs_and_seeds_differ_and_neighbours_part() -> None:
    def order(seed: int, epoch: int) -> np.ndarray:
        return RowOrder(10_000, seed=seed, epoch=epoch).rows(0, 10_000)

    first = order(0, 0)
    for other in (order(0, 1), order(1, 0)):
        assert np.mean(first == other) < 0.01
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


def test_a_place_of_a_huge_corpus_needs_no_list() -> None:
    rows = RowOrder(10**12, seed=0, epoch=0).rows(10**11, 10**11 + 5)
    assert len(set(rows.tolist())) == 5
    assert 0 <= rows.min() <= rows.max() < 10**12
