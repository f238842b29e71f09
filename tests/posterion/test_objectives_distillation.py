"""Distillation losses: definitions in numpy, 0 where student and teacher agree, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy, norm

from posterion import RequestError
from posterion.objectives.distillation import (
    attention_mse,
    centred_scores,
    classification_distillation,
    ensemble_binary_logits,
    ensemble_gaussian,
    ensemble_log_probabilities,
    gaussian_distillation,
    hidden_cosine,
    hidden_mse,
    layer_map,
    soft_cross_entropy,
    softened_binary_kl,
    softened_kl,
)

repeatable = settings(max_examples=60, derandomize=True, deadline=None, database=None)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
REAL = MASK.numpy() != 0


def drawn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


@repeatable
@given(
    temperature=st.sampled_from([0.5, 1.0, 2.0, 8.0]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 9),
)
def test_softened_kl_is_its_definition(temperature, scale, seed):
    student, teacher = drawn(6, 5, seed=seed, scale=scale), drawn(6, 5, seed=seed + 99, scale=scale)
    loss = softened_kl(student, teacher, temperature)
    expected = temperature**2 * entropy(
        softmax(teacher.numpy() / temperature, axis=1),
        softmax(student.numpy() / temperature, axis=1),
        axis=1,
    )
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert (softened_kl(teacher, teacher + 3.0, temperature).abs() < 1e-10).all()


def test_tinyberts_prediction_loss_is_the_divergence_plus_the_entropy():
    student, teacher = drawn(6, 5), drawn(6, 5, seed=1)
    of_teacher = entropy(softmax(teacher.numpy(), axis=1), axis=1)
    divergence = softened_kl(student, teacher, 1.0)
    np.testing.assert_allclose(
        soft_cross_entropy(student, teacher).numpy(), divergence.numpy() + of_teacher, rtol=1e-9
    )
    expected = -(softmax(teacher.numpy(), 1) * log_softmax(student.numpy() / 3, 1)).sum(1)
    np.testing.assert_allclose(soft_cross_entropy(student, teacher, 3.0).numpy(), expected)


def test_gradients_keep_their_size_as_the_temperature_grows():
    """For high T the gradient of each logit goes to (s - t) / C, without means."""
    student, teacher = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1)
    (gradient,) = torch.autograd.grad(softened_kl(student, teacher, 1e3).sum(), student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / 6
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-3)


def test_hard_labels_are_mixed_in_where_there_are_any():
    student, teacher = drawn(4, 3), drawn(4, 3, seed=1)
    label = torch.tensor([2, -100, 0, 1])
    loss = classification_distillation(
        student, teacher, label, temperature=3.0, soft_weight=0.7
    ).numpy()
    soft = softened_kl(student, teacher, 3.0).numpy()
    hard = -log_softmax(student.numpy(), axis=1)
    for row, right in enumerate(label.tolist()):
        expected = soft[row] if right < 0 else 0.7 * soft[row] + 0.3 * hard[row, right]
        assert loss[row] == pytest.approx(expected, rel=1e-9)
    assert torch.equal(
        classification_distillation(student, teacher, temperature=3.0), torch.tensor(soft)
    )


def test_an_ensemble_teaches_its_mean_probability():
    logits = drawn(5, 4, 3)
    mean = softmax(logits.numpy(), axis=2).mean(axis=0)
    np.testing.assert_allclose(ensemble_log_probabilities(logits).exp().numpy(), mean, rtol=1e-9)
    student = drawn(4, 3, seed=1)
    loss = softened_kl(student, ensemble_log_probabilities(logits), 1.0).numpy()
    np.testing.assert_allclose(loss, entropy(mean, softmax(student.numpy(), 1), axis=1), rtol=1e-9)


def test_gaussian_distillation_is_the_divergence_of_two_normals():
    mean, log_variance, other, other_variance = drawn(4, 8)
    loss = gaussian_distillation(mean, log_variance, other, other_variance).numpy()
    for row in range(8):
        mine = norm(mean[row], math.exp(log_variance[row] / 2))
        teacher = norm(other[row], math.exp(other_variance[row] / 2))
        points = np.linspace(*teacher.interval(1 - 1e-15), 20_001)
        density = teacher.pdf(points) * (teacher.logpdf(points) - mine.logpdf(points))
        assert loss[row] == pytest.approx(np.trapezoid(density, points), rel=1e-6)
    assert (gaussian_distillation(mean, log_variance, mean, log_variance) == 0).all()


@repeatable
@given(difference=st.floats(-30, 30), log_variance=st.floats(-9, 4), teacher=st.floats(-9, 4))
def test_gaussian_distillation_is_never_negative(difference, log_variance, teacher):
    given_ = (torch.tensor([value]) for value in (difference, log_variance, 0.0, teacher))
    loss = gaussian_distillation(*given_)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert loss >= 0


def test_an_ensembles_spread_is_uncertainty():
    means, log_variances = drawn(7, 5), drawn(7, 5, seed=1)
    mean, log_variance = ensemble_gaussian(means, log_variances)
    np.testing.assert_allclose(mean.numpy(), means.numpy().mean(0))
    expected = np.exp(log_variances.numpy()).mean(0) + means.numpy().var(0)
    np.testing.assert_allclose(log_variance.exp().numpy(), expected)
    alone = ensemble_gaussian(means[:1], log_variances[:1])
    torch.testing.assert_close(alone, (means[0], log_variances[0]))


def test_state_losses_are_their_definitions_at_real_tokens():
    student, teacher = drawn(3, 5, 4), drawn(3, 5, 4, seed=1)
    mine, target = student.numpy()[REAL], teacher.numpy()[REAL]
    assert hidden_mse(student, teacher, MASK).item() == pytest.approx(((mine - target) ** 2).mean())
    cosines = (mine * target).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(target, axis=1)
    assert hidden_cosine(student, teacher, MASK).item() == pytest.approx((1 - cosines).mean())
    assert hidden_cosine(student, 5 * student, MASK).item() == pytest.approx(0, abs=1e-12)
    assert hidden_cosine(student, -student, None).item() == pytest.approx(2)
    assert hidden_mse(student, student, None) == 0


def test_attention_losses_are_their_definitions_at_real_pairs():
    scores, other = drawn(3, 2, 5, 5), drawn(3, 2, 5, 5, seed=1)
    pairs = REAL[:, None, :, None] & REAL[:, None, None, :] & np.ones((3, 2, 5, 5), bool)
    expected = ((scores.numpy() - other.numpy())[pairs] ** 2).mean()
    assert attention_mse(scores, other, MASK).item() == pytest.approx(expected)
    assert attention_mse(scores, other, None).item() == pytest.approx(
        ((scores - other) ** 2).mean().item()
    )
    assert attention_mse(scores, scores, MASK) == 0


def test_scores_are_found_again_in_the_weights():
    scores = drawn(3, 2, 5, 5, scale=3.0)
    hidden = ~torch.tensor(REAL)[:, None, None, :]
    weights = scores.masked_fill(hidden, -1e30).softmax(-1)
    found = centred_scores(weights, MASK)
    for example in range(2):
        real = REAL[example]
        own = scores[example][:, real][:, :, real]
        expected = own - own.mean(-1, keepdim=True)
        torch.testing.assert_close(found[example][:, real][:, :, real], expected)
        assert (found[example][:, ~real] == 0).all()
    torch.testing.assert_close(
        centred_scores(scores.softmax(-1), None), scores - scores.mean(-1, keepdim=True)
    )


@pytest.mark.parametrize("garbage", [1e30, math.inf, math.nan])
def test_what_stands_at_padding_does_not_matter(garbage):
    student, teacher = drawn(3, 5, 4), drawn(3, 5, 4, seed=1)
    maps, others = drawn(3, 2, 5, 5).softmax(-1), drawn(3, 2, 5, 5, seed=1).softmax(-1)
    padding = torch.tensor(~REAL)
    spoilt = student.clone()
    spoilt[padding] = garbage
    spoilt_maps = maps.masked_fill(padding[:, None, :, None] | padding[:, None, None, :], garbage)
    spoilt.requires_grad_()
    spoilt_maps.requires_grad_()
    for loss, bad, good, target in (
        (hidden_mse, spoilt, student, teacher),
        (hidden_cosine, spoilt, student, teacher),
        (attention_mse, spoilt_maps, maps, others),
        (lambda a, b, m: attention_mse(centred_scores(a, m), b, m), spoilt_maps, maps, others),
    ):
        result = loss(bad, target, MASK)
        torch.testing.assert_close(result, loss(good, target, MASK))
        (gradient,) = torch.autograd.grad(result, bad)
        assert torch.isfinite(gradient).all()
        assert (gradient[2] == 0).all()


def test_batches_of_padding_only_are_nothing():
    nothing = torch.zeros(1, 5)
    student = drawn(1, 5, 4).requires_grad_()
    for loss in (hidden_mse, hidden_cosine):
        result = loss(student, student.detach(), nothing)
        assert result == 0
        result.backward()
    assert attention_mse(drawn(1, 2, 5, 5), drawn(1, 2, 5, 5), nothing) == 0


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda s, t: softened_kl(s, t, 2.0), (3, 4)),
        (lambda s, t: soft_cross_entropy(s, t, 2.0), (3, 4)),
        (lambda s, t: classification_distillation(s, t, torch.tensor([0, -100, 3])), (3, 4)),
        (lambda s, t: gaussian_distillation(s[0], s[1], t[0], t[1]), (2, 4)),
        (lambda s, t: hidden_mse(s, t, MASK), (3, 5, 2)),
        (lambda s, t: hidden_cosine(s, t, MASK), (3, 5, 2)),
        (lambda s, t: attention_mse(s.softmax(-1), t.softmax(-1), MASK), (3, 1, 5, 5)),
        (
            lambda s, t: attention_mse(
                centred_scores(s.softmax(-1), MASK), centred_scores(t.softmax(-1), MASK), MASK
            ),
            (3, 1, 5, 5),
        ),
    ],
)
def test_gradients(loss, shape):
    student, teacher = drawn(*shape).requires_grad_(), drawn(*shape, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda own: loss(own, teacher), (student,))
    loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_computed_in_single(dtype):
    student, teacher = (
        drawn(3, 5, 4, scale=20).to(dtype),
        drawn(3, 5, 4, seed=1, scale=20).to(dtype),
    )
    for loss in (
        softened_kl(student[0], teacher[0], 2.0),
        soft_cross_entropy(student[0], teacher[0]),
        classification_distillation(student[0], teacher[0], torch.arange(4).repeat(2)[:5]),
        gaussian_distillation(student[0, 0], student[0, 1], teacher[0, 0], teacher[0, 1]),
        hidden_mse(student, teacher, MASK),
        hidden_cosine(student, teacher, MASK),
        attention_mse(student, teacher, None),
    ):
        assert loss.dtype == torch.float32
    assert torch.equal(
        softened_kl(student[0], teacher[0], 2.0),
        softened_kl(student[0].float(), teacher[0].float(), 2.0),
    )


@pytest.mark.parametrize(
    ("num_student", "num_teacher", "chosen", "expected"),
    [
        (4, 12, "uniform", (3, 6, 9, 12)),
        (6, 12, "uniform", (2, 4, 6, 8, 10, 12)),
        (5, 12, "uniform", (2, 5, 7, 10, 12)),
        (6, 12, "skip", (1, 3, 5, 7, 9, 11)),
        (5, 12, "skip", (1, 3, 5, 7, 9)),
        (4, 12, "last", (9, 10, 11, 12)),
        (3, 3, "uniform", (1, 2, 3)),
        (3, 12, [1, 1, 12], (1, 1, 12)),
    ],
)
def test_layer_maps(num_student, num_teacher, chosen, expected):
    assert layer_map(num_student, num_teacher, chosen) == expected


@repeatable
@given(num_teacher=st.integers(1, 40), data=st.data())
def test_layer_maps_ascend_within_the_teacher(num_teacher, data):
    num_student = data.draw(st.integers(1, num_teacher))
    for chosen in ("uniform", "skip", "last"):
        layers = layer_map(num_student, num_teacher, chosen)
        assert len(set(layers)) == num_student
        assert list(layers) == sorted(layers)
        assert 1 <= layers[0] <= layers[-1] <= num_teacher
        if chosen != "skip":
            assert layers[-1] == num_teacher


def test_bad_input_is_named():
    for wrong, message in (
        ((4, 3), "must have from 1 to 3"),
        ((2, 3, "middle"), "'middle' is unknown"),
        ((2, 3, [1]), "must name 2 layers"),
        ((2, 3, [3, 1]), "ascending"),
        ((2, 3, [0, 1]), "from 1 to 3"),
    ):
        with pytest.raises(RequestError, match=message):
            layer_map(*wrong)
    with pytest.raises(RequestError, match="temperature is 0"):
        softened_kl(drawn(2, 3), drawn(2, 3), 0)
    with pytest.raises(RequestError, match="the same classes"):
        softened_kl(drawn(2, 3), drawn(2, 4), 1)
    with pytest.raises(RequestError, match=r"soft_weight is 1.5"):
        classification_distillation(drawn(2, 3), drawn(2, 3), soft_weight=1.5)
    with pytest.raises(RequestError, match="project another width"):
        hidden_mse(drawn(1, 2, 3), drawn(1, 2, 4), None)
    with pytest.raises(RequestError, match="as many heads"):
        attention_mse(drawn(1, 2, 3, 3), drawn(1, 4, 3, 3), None)


@repeatable
@given(
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    seed=st.integers(0, 9),
)
def test_softened_binary_kl_is_the_divergence_of_bernoullis(temperature, scale, seed):
    student, teacher = drawn(5, 3, seed=seed, scale=scale), drawn(5, 3, seed=seed + 9, scale=scale)
    bernoulli = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(
        bernoulli(logits=teacher / temperature), bernoulli(logits=student / temperature)
    )
    loss = softened_binary_kl(student, teacher, temperature)
    torch.testing.assert_close(loss, temperature**2 * expected.mean(1), rtol=1e-7, atol=1e-9)
    assert (softened_binary_kl(teacher, teacher, temperature).abs() < 1e-10).all()


def test_binary_logits_of_an_ensemble_are_those_of_the_mean_probability():
    members = drawn(4, 6, 3, scale=3.0)
    mean = members.sigmoid().mean(0)
    torch.testing.assert_close(ensemble_binary_logits(members), torch.logit(mean))
    sure = torch.tensor([[[90.0]], [[95.0]]])  # a probability that rounds to 1
    assert 90 < ensemble_binary_logits(sure) < 95
