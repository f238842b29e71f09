from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from posterion import ArtifactError
from posterion.config import TrustSection
from posterion.inference import Predictor, fit_laplace
from posterion.models import TextModel
from posterion.tasks import create_task, save_task_model
from posterion.testing import TINY_WORDS, tiny_model
from posterion.trust.posteriors import LastLayerLaplace

KINDS = {
    "gaussian": ({"kind": "regression"}, 2),
    "squared_error": ({"kind": "regression", "likelihood": "squared_error"}, 1),
    "categorical": ({"kind": "classification"}, 3),
    "multi_label": ({"kind": "classification", "multi_label": True}, 3),
}


def rows(kind: str, num: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    # Some are longer than a window.
    texts = [" ".join(rng.choice(TINY_WORDS, rng.integers(2, 40))) for _ in range(num)]
    if kind in ("gaussian", "squared_error"):
        return pa.table({"text": texts, "target": rng.normal(2.0, 3.0, num)})
    labels = np.resize(["a", "b", "c"], num).tolist()
    return pa.table({"text": texts, "label": labels})


def build(folder, kind: str):
    options, outputs = KINDS[kind]
    task = create_task({"text": "text", **options})
    task.fit(rows(kind, 60))
    encoder = tiny_model(folder / "encoder")
    model = TextModel.create(encoder, num_outputs=outputs, pooling="mean", seed=0)
    with torch.no_grad():
        model.head.weight.mul_(20.0)
    trust = TrustSection(posterior="laplace", samples=8)
    save_task_model(folder / "model", model, encoder, task, 24, trust)
    return folder / "model"


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_carries_the_posterior_of_its_last_layer(tmp_path, kind: str):
    folder, table = build(tmp_path, kind), rows(kind, 60)
    with pytest.raises(ArtifactError, match=r"posterior\.safetensors does not exist"):
        Predictor.from_model_dir(folder)
    fitted = fit_laplace(folder, table, seed=3)
    assert fitted.kind == kind
    written = (folder / "posterior.safetensors").read_bytes()
    predictor = Predictor.from_model_dir(folder)
    assert isinstance(predictor.posterior, LastLayerLaplace)
    assert predictor.posterior.samples == 8
    few, many = (spread(Predictor.from_model_dir(folder), table, kind) for _ in range(2))
    np.testing.assert_array_equal(few, many)
    assert few.min() > 0.0
    fit_laplace(folder, table, seed=3)
    assert (folder / "posterior.safetensors").read_bytes() == written
    if kind == "squared_error":
        return  # these targets are noise, so the prior that the evidence finds leaves nothing open
    # Twenty times the data: less is left open.
    fit_laplace(folder, pa.concat_tables([table] * 20), seed=3)
    assert spread(Predictor.from_model_dir(folder), table, kind).mean() < 0.5 * few.mean()


def spread(predictor: Predictor, table: pa.Table, kind: str) -> np.ndarray:
    """What the posterior adds to the uncertainty of each row."""
    distribution = predictor.distribution(table)
    if kind in ("gaussian", "squared_error"):
        return distribution.epistemic
    return distribution.probabilities.std(axis=0).mean(axis=-1)


def test_features_are_those_of_the_windows(tmp_path):
    folder = build(tmp_path, "gaussian")
    table = rows("gaussian", 20)
    fit_laplace(folder, table, seed=0)
    predictor = Predictor.from_model_dir(folder)
    whole = predictor.features(table)
    alone = np.concatenate([predictor.features(table.slice(i, 1)) for i in range(20)])
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    outputs = whole @ predictor.model.head.weight.detach().numpy().T
    outputs += predictor.model.head.bias.detach().numpy()
    mean = predictor.task.state["mean"] + predictor.task.state["std"] * outputs[:, 0]
    np.testing.assert_allclose(mean, predictor.distribution(table).mean, rtol=1e-3, atol=1e-3)
