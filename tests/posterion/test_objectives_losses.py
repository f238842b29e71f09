import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from posterion.objectives import (
    binary_cross_entropy,
    cross_entropy,
    gaussian_nll,
    soft_clamp,
    squared_error,
)


def test_gaussian_nll_is_the_normal_density_with_both_noises():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, target, error = torch.randn(4, 50, generator=generator).double()
    error = error.abs()
    loss = gaussian_nll(mean, log_variance, target, error)
    scale = np.sqrt(np.exp(log_variance.numpy()) + error.numpy() ** 2)
    expected = -norm.logpdf(target.numpy(), mean.numpy(), scale)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=2e-5)
    assert loss.dtype == torch.float32


def test_raters_who_disagree_pull_less():
    mean = torch.zeros(2, requires_grad=True)
    error = torch.tensor([0.1, 2.0])
    gaussian_nll(mean, torch.zeros(2), torch.ones(2), error).sum().backward()
    assert mean.grad is not None
    assert abs(mean.grad[0]) > 3 * abs(mean.grad[1])


def test_gradient_is_finite_at_the_extremes():
    for log_variance in (-9.0, 4.0):
        for error in (None, torch.zeros(1)):
            value = torch.tensor([log_variance], requires_grad=True)
            loss = gaussian_nll(torch.zeros(1), value, torch.tensor([30.0]), error)
            loss.backward()
            assert torch.isfinite(loss).all()
            assert value.grad is not None
            assert torch.isfinite(value.grad).all()


def test_soft_clamp_bounds_and_hardly_changes_the_middle():
    values = torch.tensor([-1e6, -9.0, 0.0, 2.0, 1e6], requires_grad=True)
    clamped = soft_clamp(values, -9.0, 4.0)
    assert clamped.min() >= -9.0
    assert clamped.max() <= 4.0 + 1e-4
    assert clamped[2].item() == pytest.approx(0.0, abs=0.02)
    clamped.sum().backward()
    assert values.grad is not None
    assert values.grad[1] > 0.4  # still moves at the bound itself


def test_squared_error_is_per_example():
    loss = squared_error(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))
    assert loss.tolist() == [4.0, 0.0]


def test_classification_losses_match_their_definition_in_fp32():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.tensor([0, 2]))
    assert loss.dtype == torch.float32
    assert loss[0].item() == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-3)), rel=1e-6)
    assert loss[1].item() == pytest.approx(math.log(3))
    binary = binary_cross_entropy(logits, torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert binary.shape == (2,)
    expected = (math.log1p(math.exp(-2)) + math.log(2) + math.log1p(math.exp(-1))) / 3
    assert binary[0].item() == pytest.approx(expected, rel=1e-6)
