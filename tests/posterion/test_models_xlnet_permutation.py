"""Permutation language modelling: what is seen, what is predicted, and that chance is named."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from transformers import XLNetConfig

from posterion.models import XLNetLMHeadModel
from posterion.models.xlnet.permutation import PermutationOptions, sample_permutations

FUNCTIONAL = (3, 4, 5)

batches = st_numpy.arrays(
    np.int64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(0, 30)
)
options = st.builds(
    PermutationOptions,
    one_in=st.sampled_from([1.0, 2.5, 6.0, 7.0]),
    longest_span=st.integers(0, 5),
    reuse_length=st.integers(0, 50),
)
repeatable = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def draw(input_ids, chosen, seed=0):
    batch = sample_permutations(input_ids, np.random.default_rng(seed), chosen)
    return (
        batch.perm_mask.numpy().astype(bool),
        batch.target_mapping.numpy().astype(bool),
        batch.labels.numpy(),
    )


@repeatable
@given(input_ids=batches, chosen=options, seed=st.integers(0, 99))
def test_targets_see_neither_themselves_nor_what_comes_later(input_ids, chosen, seed):
    hidden, mapping, _ = draw(input_ids, chosen, seed)
    reused = min(chosen.reuse_length, input_ids.shape[1])
    for of_text, targets in zip(hidden, mapping, strict=True):
        positions = targets.any(axis=0).nonzero()[0]
        context = np.setdiff1d(np.arange(input_ids.shape[1]), positions)
        assert of_text[positions, positions].all()
        for part in (slice(0, reused), slice(reused, input_ids.shape[1])):
            inside = np.arange(input_ids.shape[1])[part]
            own = np.intersect1d(positions, inside)
            others = np.intersect1d(context, inside)
            # Of two targets exactly one sees the other, and that relation is an order.
            seen = ~of_text[np.ix_(own, own)]
            assert (seen ^ seen.T)[~np.eye(len(own), dtype=bool)].all()
            assert sorted(seen.sum(axis=1)) == list(range(len(own)))
            # Context sees all context and no target; targets see all context.
            assert of_text[np.ix_(others, own)].all()
            assert not of_text[np.ix_(inside, others)].any()
        assert of_text[:reused, reused:].all()
        assert not of_text[reused:, :reused].any()


@repeatable
@given(input_ids=batches, chosen=options, seed=st.integers(0, 99))
def test_one_in_so_many_is_predicted_and_no_functional_token(input_ids, chosen, seed):
    _, mapping, labels = draw(input_ids, chosen, seed)
    reused = min(chosen.reuse_length, input_ids.shape[1])
    for ids, targets, of_text in zip(input_ids, mapping, labels, strict=True):
        at = targets.any(axis=0)
        assert not np.isin(ids[at], FUNCTIONAL).any()
        expected = 0
        for part in (ids[:reused], ids[reused:]):
            available = int((~np.isin(part, FUNCTIONAL)).sum())
            expected += min(max(int(available / chosen.one_in), 1), available)
        assert at.sum() == targets.sum() == expected
        assert (targets.sum(axis=1) == (of_text != -100)).all()
        assert (of_text[of_text != -100] == ids[at]).all()


@repeatable
@given(input_ids=batches, chosen=options)
def test_the_seed_decides(input_ids, chosen):
    for first, second in zip(draw(input_ids, chosen, 7), draw(input_ids, chosen, 7), strict=True):
        assert (first == second).all()


def test_other_seeds_give_other_orders_and_targets():
    input_ids = np.arange(10, 138)[None]
    first, second = (draw(input_ids, PermutationOptions(), seed) for seed in (1, 2))
    assert (first[0] != second[0]).any()
    assert (first[1] != second[1]).any()


def test_targets_lie_in_spans():
    input_ids = np.full((64, 240), 9)

    def mean_run(longest_span):
        chosen = PermutationOptions(longest_span=longest_span)
        at = draw(input_ids, chosen)[1].any(axis=1)
        begins = at[:, 1:] & ~at[:, :-1]
        return at.sum() / (begins.sum() + at[:, 0].sum())

    assert mean_run(5) > 1.6 > 1.3 > mean_run(0)


def test_every_position_is_predicted_alike():
    at = draw(np.full((4000, 30), 9), PermutationOptions())[1].any(axis=1)
    share = at.mean(axis=0)
    assert share.mean() == pytest.approx(1 / 6)
    assert share.min() > 0.1
    assert share.max() < 0.25


@pytest.mark.parametrize("wrong", [{"one_in": 0.5}, {"longest_span": -1}, {"reuse_length": -1}])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        PermutationOptions(**wrong)


def test_a_model_cannot_read_its_targets():
    """Changing a target, and all targets after it, changes no score of that target."""
    torch.manual_seed(0)
    config = XLNetConfig(
        vocab_size=40, d_model=16, n_layer=3, n_head=2, d_inner=32, initializer_range=0.3
    )
    model = XLNetLMHeadModel(config).eval()
    batch = sample_permutations(
        np.arange(6, 36)[None], np.random.default_rng(0), PermutationOptions(one_in=3)
    )
    inputs = batch.model_inputs()
    with torch.no_grad():
        before = model(**inputs).logits[0]
        for row, position in enumerate(batch.target_mapping[0].argmax(1)):
            unseen = batch.perm_mask[0, position].bool()
            changed = torch.where(unseen, 39 - batch.input_ids, batch.input_ids)
            after = model(**inputs | {"input_ids": changed}).logits[0]
            torch.testing.assert_close(after[row], before[row], rtol=0, atol=1e-5)
            assert (after - before).abs().max() > 1e-3 or unseen.sum() == 1


def test_a_model_learns_from_it():
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=20, d_model=32, n_layer=1, n_head=2, d_inner=64, dropout=0.0)
    model = XLNetLMHeadModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(150):
        # Each token follows from its neighbour.
        texts = 6 + (generator.integers(0, 14, (16, 1)) + np.arange(12)) % 14
        loss = model(**sample_permutations(texts, generator).model_inputs()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
