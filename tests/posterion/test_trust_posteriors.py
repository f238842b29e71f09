"""The interface of posteriors, dropout, missing heads, and finite sets of weights."""

import threading
import time

import numpy as np
import pytest
import torch
from scipy.stats import norm

from posterion import ArtifactError
from posterion.models import TextModel
from posterion.testing import TINY_ARCHITECTURES, tiny_model
from posterion.trust import ClassificationDistribution, RegressionDistribution
from posterion.trust.posteriors import (
    CategoricalLikelihood,
    DeepEnsemble,
    GaussianLikelihood,
    LastLayerLaplace,
    McDropout,
    McHeads,
    Point,
    WeightSamples,
    features_of,
    load_posterior,
    save_posterior,
    snapshot_ensemble,
    token_seed,
)

ROWS = [[2, 9, 11, 3], [2, 30, 31, 32, 33, 34, 3], [2, 9, 3]]


def make(directory, architecture="bert", *, seed=0, layers=2, outputs=2):
    encoder_dir = tiny_model(directory, architecture, layers=layers)
    options = {"pooling": "mean", "dropout": 0.2, "head_dropout": 0.2, "seed": seed}
    return TextModel.create(encoder_dir, num_outputs=outputs, **options).eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("encoder"))


def padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def head_draws(model, num, scale=0.1):
    generator = torch.Generator().manual_seed(0)
    weight = model.head.weight.detach()
    return [
        {"head.weight": weight + scale * torch.randn(weight.shape, generator=generator)}
        for _ in range(num)
    ]


def every_posterior(model):
    features = features_of(model, padded(ROWS * 10))
    layer = model.get_submodule("bert.encoder.layer.1.output.dense").weight.detach()
    inner = [{"bert.encoder.layer.1.output.dense.weight": layer * f} for f in (0.8, 1.0, 1.2)]
    return {
        "point": Point(model),
        "mc_dropout": McDropout(model, samples=4),
        "mc_dropout_top": McDropout(model, samples=4, layers=1),
        "mc_heads": McHeads(model, samples=4, rate=0.3),
        "heads": WeightSamples(model, head_draws(model, 4)),
        "weights": WeightSamples(model, inner),
        "laplace": LastLayerLaplace.fit(model, features, kind="categorical", samples=4),
        "ensemble": DeepEnsemble([Point(model), Point(model)]),
    }


def test_every_posterior_keeps_the_contract(model):
    batch, mode = padded(ROWS), {module: module.training for module in model.modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for name, posterior in every_posterior(model).items():
        outputs = posterior.sample(batch)
        assert outputs.shape == (posterior.samples, 3, 2), name
        assert outputs.dtype == torch.float32, name
        again = posterior.sample(batch)
        assert torch.equal(outputs, again), f"{name} is not reproducible"
        for index, row in enumerate(ROWS):
            alone = posterior.sample((torch.tensor([row]), None))
            torch.testing.assert_close(alone[:, 0], outputs[:, index], rtol=1e-4, atol=1e-5)
        belief = posterior.predict(batch, CategoricalLikelihood())
        np.testing.assert_allclose(belief.mean.sum(axis=1), 1.0, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    assert {module: module.training for module in model.modules()} == mode
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_posteriors_built_twice_are_equal(model):
    first, second = every_posterior(model), every_posterior(model)
    for name in first:
        one, two = (each[name].sample(padded(ROWS)) for each in (first, second))
        assert torch.equal(one, two), name


def test_point_is_one_plain_pass(model):
    ids, mask = padded(ROWS)
    with torch.inference_mode():
        torch.testing.assert_close(Point(model).sample((ids, mask))[0], model(ids, mask))


def test_all_samples_but_point_say_something_of_ignorance(model):
    for name, posterior in every_posterior(model).items():
        _, epistemic = posterior.predict(padded(ROWS), CategoricalLikelihood()).uncertainty()
        if name in ("point", "ensemble"):  # Its members are the same model twice.
            assert epistemic == pytest.approx(0.0, abs=1e-9)
        else:
            assert (epistemic > 1e-7).all(), name


# -- dropout ----------------------------------------------------------------------------


def test_dropout_samples_of_an_example_are_its_own_in_any_batch(model):
    posterior = McDropout(model, samples=5)
    together = posterior.sample(padded(ROWS))
    backwards = posterior.sample(padded(ROWS[::-1]))
    torch.testing.assert_close(backwards.flip(1), together, rtol=0, atol=0)
    for index, row in enumerate(ROWS):
        alone = posterior.sample((torch.tensor([row]), None))
        torch.testing.assert_close(alone[:, 0], together[:, index], rtol=0, atol=0)


@pytest.mark.parametrize("layers", [None, 0, 1, 2])
def test_dropout_scatters_around_the_point(model, layers):
    point = Point(model).sample(padded(ROWS))[0]
    samples = McDropout(model, samples=400, layers=layers).sample(padded(ROWS))
    spread = samples.std(dim=0)
    assert (spread > 1e-3).all()
    assert ((samples.mean(dim=0) - point).abs() < 0.5 * spread + 0.05).all()


def test_more_random_layers_scatter_more(model):
    spread = [
        float(McDropout(model, samples=400, layers=layers).sample(padded(ROWS)).var(dim=0).mean())
        for layers in (0, 1, 2)
    ]
    assert spread[0] < spread[1] < spread[2]


def test_layers_below_are_computed_once(tmp_path):
    """Every sample of the same masks gives what the whole model with these masks gives."""
    model = make(tmp_path / "deep", layers=4)
    batch = (torch.tensor([ROWS[1]]), None)
    plain = McDropout(model, samples=3, layers=2)
    rows = []
    for module in plain._model.bert.encoder.layer:
        owner = getattr(module, "layer", module)
        owner.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    plain.sample(batch)
    length = len(ROWS[1])
    assert rows == [length, length, 3 * length, 3 * length]


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_dropout_of_every_architecture(tmp_path, architecture):
    model = make(tmp_path / architecture, architecture)
    batch = padded(ROWS) if architecture != "roberta" else (torch.tensor([ROWS[1]]), None)
    samples = McDropout(model, samples=3).sample(batch)
    assert samples.std(dim=0).min() > 0
    assert McHeads(model, samples=3, rate=0.4).sample(batch).std(dim=0).min() > 0
    if architecture in ("albert", "xlnet"):
        with pytest.raises(ValueError, match="cannot be sampled one by one"):
            McDropout(model, samples=3, layers=1)
    else:
        assert McDropout(model, samples=3, layers=1).sample(batch).std(dim=0).min() > 0


def test_given_seeds_choose_the_samples(model):
    posterior, batch = McDropout(model, samples=3), padded(ROWS)
    first = posterior.sample(batch, [1, 2, 3])
    other = posterior.sample(batch, [4, 2, 3])
    assert not torch.equal(first[:, 0], other[:, 0])
    assert torch.equal(first[:, 1:], other[:, 1:])


def test_threads_do_not_disturb_each_other(model):
    posterior = McDropout(model, samples=6)
    expected = [posterior.sample((torch.tensor([row]), None)) for row in ROWS]
    wrong = []

    def ask(index):
        for _ in range(15):
            got = posterior.sample((torch.tensor([ROWS[index]]), None))
            if not torch.equal(got, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    with torch.inference_mode():
        plain = [model(torch.tensor([ROWS[0]])) for _ in range(30)]
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(torch.equal(each, plain[0]) for each in plain)


def test_weights_are_shared_and_packed_ones_used(model, tmp_path):
    packed = make(tmp_path / "packed")
    packed.pack_weights()
    posterior = McDropout(packed, samples=2)
    own = {id(p) for p in packed.parameters()}
    assert {id(p) for p in posterior._model.parameters()} == own
    dense = "bert.encoder.layer.0.output.dense"
    copied = posterior._model.get_submodule(dense)
    assert copied._packed is packed.get_submodule(dense)._packed is not None


def test_seed_is_the_same_in_every_process():
    assert token_seed([101, 7592, 102]) == token_seed(np.array([101, 7592, 102], dtype=np.int32))
    assert token_seed([101, 7592, 102]) != token_seed([101, 102, 7592])
    assert token_seed([1, 2, 3]) == 45376232332911480


def test_samples_cost_less_than_half_their_passes(tmp_path):
    """Of a model whose cost is that of its layers; the top third random."""
    encoder_dir = tiny_model(tmp_path / "wide", hidden_size=256, layers=6)
    model = TextModel.create(encoder_dir, num_outputs=2).eval()
    model.pack_weights()
    batch = (torch.randint(5, 60, (1, 60)), None)
    point, posterior = Point(model), McDropout(model, samples=20, layers=2)

    def seconds(function):
        times = []
        for _ in range(7):
            begun = time.process_time()
            function(batch)
            times.append(time.process_time() - begun)
        return sorted(times)[2]

    seconds(point.sample)
    assert seconds(posterior.sample) < 10 * seconds(point.sample)


# -- missing heads ----------------------------------------------------------------------


def test_no_layer_loses_all_heads_and_the_mean_is_kept(model):
    masks = McHeads(model, samples=4000, rate=0.2).masks
    assert masks.shape == (4000, 2, 4)
    assert (masks.amax(dim=-1) > 0).all()
    assert float(masks.mean()) == pytest.approx(1.0, abs=0.01)
    with pytest.raises(ValueError, match="rate"):
        McHeads(model, rate=0.0)


# -- sets of weights --------------------------------------------------------------------


def test_heads_are_one_product_and_equal_to_separate_models(model):
    draws = head_draws(model, 3)
    posterior = WeightSamples(model, draws)
    assert posterior.head_only
    outputs = posterior.sample(padded(ROWS))
    original = model.head.weight.detach().clone()
    for index, each in enumerate(draws):
        with torch.no_grad():
            model.head.weight.copy_(each["head.weight"])
            expected = model(*padded(ROWS))
            model.head.weight.copy_(original)
        torch.testing.assert_close(outputs[index], expected, rtol=1e-5, atol=1e-5)


def test_samples_of_inner_weights_are_whole_models(tmp_path):
    model, other = make(tmp_path / "a"), make(tmp_path / "b", seed=5)
    posterior = WeightSamples(model, [dict(model.named_parameters())] * 2)
    torch.testing.assert_close(
        posterior.sample(padded(ROWS))[1], Point(model).sample(padded(ROWS))[0]
    )
    both = snapshot_ensemble(model, iter([model.state_dict(), other.state_dict()]))
    assert both.head_only, "the encoders of both models are the same"
    expected = Point(other).sample(padded(ROWS))[0]
    torch.testing.assert_close(both.sample(padded(ROWS))[1], expected, rtol=1e-5, atol=1e-5)


def test_snapshots_keep_the_last(model):
    snapshots = [{"head.bias": torch.full((2,), float(i))} for i in range(5)]
    kept = snapshot_ensemble(model, snapshots, keep=2)
    assert [float(each["head.bias"][0]) for each in kept.weights] == [3.0, 4.0]


def test_an_ensemble_is_the_mixture_of_its_members(model, tmp_path):
    other = make(tmp_path / "other", seed=3)
    ensemble = DeepEnsemble([Point(model), Point(other)])
    belief = ensemble.predict(padded(ROWS), GaussianLikelihood(noise=0.25))
    one, two = (Point(each).sample(padded(ROWS))[0, :, 0].numpy() for each in (model, other))
    log_one, log_two = (Point(m).sample(padded(ROWS))[0, :, 1].numpy() for m in (model, other))
    np.testing.assert_allclose(belief.mean, (one + two) / 2, rtol=1e-5)
    np.testing.assert_allclose(belief.epistemic, (one - two) ** 2 / 4, rtol=1e-4)
    np.testing.assert_allclose(belief.aleatoric, (np.exp(log_one) + np.exp(log_two)) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="same number"):
        DeepEnsemble([Point(model), McDropout(model, samples=3)])


def test_weights_that_do_not_fit_are_refused(model):
    bias = {"head.bias": torch.zeros(2)}
    for weights, message in [
        ([], "at least one"),
        ([{"head.bais": torch.zeros(2)}], "no weight 'head.bais'"),
        ([{"head.bias": torch.zeros(3)}], r"shape \(3,\)"),
        ([{"head.bias": torch.tensor([0.0, float("nan")])}], "NaN"),
        ([bias, {"head.weight": torch.zeros(2, 32)}], "differ in names"),
    ]:
        with pytest.raises(ValueError, match=message):
            WeightSamples(model, weights)


def test_posteriors_return_from_disk(model, tmp_path):
    posteriors = every_posterior(model)
    for name in ("heads", "weights", "laplace"):
        path = tmp_path / name / "posterior.safetensors"
        save_posterior(path, posteriors[name])
        loaded = load_posterior(path, model)
        got, expected = (each.sample(padded(ROWS)) for each in (loaded, posteriors[name]))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_posterior(path, model)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_posterior(tmp_path / "absent", model)


def test_predictive_distributions_integrate_to_one(model):
    """Of regression: the density of the moments; of classes: the probabilities, for all."""
    grid = np.linspace(-60, 60, 40001)
    for name, posterior in every_posterior(model).items():
        belief = posterior.predict(padded(ROWS), GaussianLikelihood())
        assert isinstance(belief, RegressionDistribution)
        density = norm.pdf(grid[:, None], belief.mean, belief.scale)
        np.testing.assert_allclose(
            np.trapezoid(density, grid, axis=0), 1.0, atol=1e-6, err_msg=name
        )
        classes = posterior.predict(padded(ROWS), CategoricalLikelihood())
        assert isinstance(classes, ClassificationDistribution)
        np.testing.assert_allclose(classes.probabilities.sum(axis=2), 1.0, atol=1e-12)
