import numpy as np
import pytest
import torch

from posterion.models import TextModel
from posterion.testing import tiny_model
from posterion.trust import posterior_logits, token_seed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    encoder_dir = tiny_model(tmp_path_factory.mktemp("encoder"))
    return TextModel.create(
        encoder_dir, num_outputs=2, pooling="mean", dropout=0.2, head_dropout=0.2, seed=0
    ).eval()


ROWS = [[2, 9, 11, 3], [2, 30, 31, 32, 33, 34, 3], [2, 9, 3]]


def padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def test_point_is_one_plain_pass(model):
    ids, mask = padded(ROWS)
    logits = posterior_logits(model, (ids, mask))
    assert logits.shape == (1, 3, 2)
    with torch.inference_mode():
        torch.testing.assert_close(logits[0], model(ids, mask))


def test_samples_of_an_example_are_its_own_in_any_batch(model):
    together = posterior_logits(model, padded(ROWS), "mc_dropout", 5)
    assert together.shape == (5, 3, 2)
    for index, row in enumerate(ROWS):
        alone = posterior_logits(model, (torch.tensor([row]), None), "mc_dropout", 5)
        torch.testing.assert_close(alone[:, 0], together[:, index], rtol=0, atol=0)
    backwards = posterior_logits(model, padded(ROWS[::-1]), "mc_dropout", 5)
    torch.testing.assert_close(backwards.flip(1), together, rtol=0, atol=0)


def test_samples_differ_and_scatter_around_the_point(model):
    point = posterior_logits(model, padded(ROWS))[0]
    samples = posterior_logits(model, padded(ROWS), "mc_dropout", 400)
    spread = samples.std(dim=0)
    assert (spread > 1e-3).all()
    assert ((samples.mean(dim=0) - point).abs() < 0.5 * spread + 0.05).all()


def test_nothing_is_left_behind(model):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    posterior_logits(model, padded(ROWS), "mc_dropout", 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in model.modules())


def test_given_seeds_choose_the_samples(model):
    batch = padded(ROWS)
    first = posterior_logits(model, batch, "mc_dropout", 3, [1, 2, 3])
    again = posterior_logits(model, batch, "mc_dropout", 3, [1, 2, 3])
    other = posterior_logits(model, batch, "mc_dropout", 3, [4, 2, 3])
    assert torch.equal(first, again)
    assert not torch.equal(first[:, 0], other[:, 0])
    assert torch.equal(first[:, 1:], other[:, 1:])


def test_seed_is_the_same_in_every_process():
    assert token_seed([101, 7592, 102]) == token_seed(np.array([101, 7592, 102], dtype=np.int32))
    assert token_seed([101, 7592, 102]) != token_seed([101, 102, 7592])
    assert token_seed([1, 2, 3]) == 45376232332911480


def test_unknown_posterior_is_refused(model):
    with pytest.raises(ValueError, match="'laplace' is neither"):
        posterior_logits(model, padded(ROWS), "laplace")
