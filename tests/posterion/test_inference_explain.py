"""Explanations of texts: words, exact offsets, counterfactuals, faithfulness; posteriors in use."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError
from posterion.config import TrustSection
from posterion.inference import Predictor, counterfactual, explain, faithfulness, write_model_dir
from posterion.inference._words import keep_words, to_words, word_spans
from posterion.models import TextModel
from posterion.tasks import create_task
from posterion.testing import TINY_WORDS, tiny_model
from posterion.trust.posteriors import LastLayerLaplace, McHeads, features_of, save_posterior


def build(folder, task, *, pooling="mean"):
    encoder_dir = tiny_model(folder / "encoder")
    model = TextModel.create(encoder_dir, num_outputs=task.num_outputs, pooling=pooling, seed=0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        model.head.weight.copy_(0.3 * torch.randn(model.head.weight.shape, generator=generator))
    return write_model_dir(folder / "model", model.eval(), encoder_dir, task, 16, TrustSection())


@pytest.fixture(scope="module")
def regression_dir(tmp_path_factory):
    task = create_task({"kind": "regression"}, {"mean": 5.0, "std": 2.0})
    return build(tmp_path_factory.mktemp("regression"), task)


@pytest.fixture(scope="module")
def classes_dir(tmp_path_factory):
    options = {"kind": "classification", "labels": ["no", "perhaps", "yes"]}
    return build(tmp_path_factory.mktemp("classes"), create_task(options, {}))


TEXT = "The plot was boring, but the actor's music -- wonderful!"
LONG = " ".join(TINY_WORDS[:40])


# -- words ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_words_cover_all_but_space(text):
    spans = word_spans(text)
    inside = np.zeros(len(text), dtype=bool)
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start
    for start, end in spans:
        assert start < end
        inside[start:end] = True
    assert all(inside[i] or not c.strip() or c.isspace() for i, c in enumerate(text))
    assert not any(text[start:end].strip() != text[start:end] for start, end in spans)


def test_words_of_languages():
    def cut(text):
        return [text[slice(*span)] for span in word_spans(text)]

    assert cut("don't re-read 3 films ...") == ["don't", "re-read", "3", "films", "..."]
    assert cut("我爱music很多") == ["我", "爱", "music", "很", "多"]
    assert cut("naïve café\u0301 🙂") == ["naïve", "café", "\u0301", "🙂"]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab ,'", min_size=1, max_size=30), st.integers(0, 99))
def test_tokens_to_words_loses_nothing(text, seed):
    generator = np.random.default_rng(seed)
    ends = np.sort(generator.integers(0, len(text) + 1, size=(12, 2)), axis=1)
    scores = generator.normal(size=12)
    words, rest = to_words(word_spans(text), [tuple(pair) for pair in ends.tolist()], scores)
    assert words.sum() + rest == pytest.approx(scores.sum(), abs=1e-9)


def test_a_token_over_two_words_is_divided():
    words, rest = to_words([(0, 3), (4, 5)], [(0, 5), (3, 4), (0, 0)], [4.0, 1.0, 2.0])
    np.testing.assert_allclose(words, [3.0, 1.0])
    assert rest == 3.0


def test_kept_words_keep_their_places():
    spans = word_spans(TEXT)
    assert keep_words(TEXT, spans, [True] * len(spans)) == TEXT
    gone = [TEXT[slice(*span)] not in ("boring", "was") for span in spans]
    assert keep_words(TEXT, spans, gone) == "The plot, but the actor's music -- wonderful!"
    assert keep_words(TEXT, spans, [False] * (len(spans) - 1) + [True]) == "!"
    assert keep_words(" a b", [(1, 2), (3, 4)], [False, False]) == ""


# -- explanations -----------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, LONG], ids=["one window", "several windows"])
def test_gradients_explain_the_number_in_its_units(regression_dir, text):
    predictor = Predictor.from_model_dir(regression_dir)
    (answer,) = predictor.predict([{"text": text}])
    found = explain(predictor, text, steps=48)
    masked = np.mean(
        [
            predictor.model(torch.tensor([[ids[0], *[4] * (len(ids) - 2), ids[-1]]]))[0, 0].item()
            for ids in (w.tolist() for w in predictor.encode([{"text": text}])[0].windows)
        ]
    )
    assert predictor.tokenizer.token_id("[MASK]") == 4
    expected = answer.answer - (5.0 + 2.0 * masked)
    assert found.scores.sum() + found.residual == pytest.approx(expected, abs=1e-3)
    assert abs(found.residual) < 0.05 * np.abs(found.scores).sum()
    assert [text[slice(*span)] for span in found.spans] == [
        text[slice(*span)] for span in word_spans(text)
    ]
    words = found.words()
    assert abs(words[0][1]) >= abs(words[-1][1])


def test_windows_are_laid_on_the_text(regression_dir):
    """Every token of every window decodes to the characters its offsets name."""
    from posterion.inference._explain import _windows

    predictor = Predictor.from_model_dir(regression_dir)
    windows = _windows(predictor, LONG)
    assert len(windows) > 3
    for ids, offsets, special in windows:
        for token, (start, end), frame in zip(ids, offsets, special, strict=True):
            assert frame == (start == end)
            if not frame:
                assert predictor.tokenizer.decode([token]).replace("##", "") in LONG[start:end]


@pytest.mark.parametrize("method", ["integrated_gradients", "attention_rollout", "deletion"])
@pytest.mark.parametrize("folder", ["regression_dir", "classes_dir"])
def test_every_method_scores_every_word(request, folder, method):
    predictor = Predictor.from_model_dir(request.getfixturevalue(folder))
    found = explain(predictor, TEXT, method=method)
    assert len(found.scores) == len(found.spans) == len(word_spans(TEXT))
    assert np.isfinite(found.scores).all()
    evidence = found.to_evidence()
    assert [abs(e["score"]) for e in evidence] == sorted(np.abs(found.scores))[::-1]
    assert all(TEXT[e["start"] : e["end"]] == e["text"] for e in evidence)
    assert predictor.predict([{"text": TEXT}]) == predictor.predict([{"text": TEXT}])


def test_deletion_is_the_change_of_the_answer(classes_dir):
    predictor = Predictor.from_model_dir(classes_dir)
    found = explain(predictor, "good film bad", method="deletion")
    table = pa.table({"text": ["good film bad", "film bad", "good bad", "good film"]})
    odds = predictor.distribution(table).mean
    label = odds[0].argmax()
    np.testing.assert_allclose(found.scores, odds[0, label] - odds[1:, label], atol=1e-9)


def test_counterfactuals_change_the_answer(classes_dir, regression_dir):
    predictor = Predictor.from_model_dir(classes_dir)
    changed = 0
    for start in range(0, 60, 3):
        text = " ".join(TINY_WORDS[start : start + 6])
        found = counterfactual(predictor, text, max_words=4)
        if found is None:
            continue
        changed += 1
        (before, after) = predictor.predict([{"text": text}, {"text": found.text}])
        assert before.answer == found.before != found.after == after.answer
        gone = {span for span in word_spans(text)} - set(found.removed)
        assert found.text.split() == [text[slice(*span)] for span in sorted(gone)]
    assert changed >= 2
    numbers = Predictor.from_model_dir(regression_dir)
    found = counterfactual(numbers, TEXT, change=0.05, max_words=8)
    assert found is not None
    assert abs(found.after - found.before) >= 0.05
    assert counterfactual(numbers, TEXT, change=1e6, max_words=2) is None
    with pytest.raises(DataError, match="change"):
        counterfactual(numbers, TEXT)


def test_the_right_order_is_the_most_faithful(regression_dir, monkeypatch):
    """Where words add up, the order of their shares is the best one at every length."""
    predictor = Predictor.from_model_dir(regression_dir)
    embed = predictor.model.encoder.get_input_embeddings()

    def features(input_ids, attention_mask=None, inputs_embeds=None):
        vectors = embed(input_ids) if inputs_embeds is None else inputs_embeds
        return 0.1 * vectors.sum(dim=1)

    monkeypatch.setattr(predictor.model, "features", features)
    generator = np.random.default_rng(0)
    for start in range(0, 40, 8):
        text = " ".join(TINY_WORDS[start : start + 10])
        orders = [explain(predictor, text, method="deletion").support()]
        orders.append(explain(predictor, text, method="integrated_gradients").support())
        # A deletion measures a word against nothing, gradients against the mask: one constant.
        assert orders[0] == orders[1]
        best = faithfulness(predictor, text, orders[0])
        assert best.deletion[0] == best.insertion[-1] == 0.0
        for _ in range(4):
            drawn = faithfulness(predictor, text, generator.permutation(10).tolist())
            assert (best.deletion >= drawn.deletion - 1e-5).all()
            assert (best.insertion <= drawn.insertion + 1e-5).all()
            assert best.comprehensiveness > drawn.comprehensiveness
            assert best.sufficiency < drawn.sufficiency
    single = faithfulness(predictor, "good", [0])
    assert single.deletion.tolist() == single.insertion.tolist() == [0.0]
    with pytest.raises(DataError, match="each once"):
        faithfulness(predictor, "good film", [0, 0])


def test_a_text_without_words_has_no_explanation(classes_dir):
    with pytest.raises(DataError, match="no word"):
        explain(Predictor.from_model_dir(classes_dir), "  \n")


# -- posteriors in use ------------------------------------------------------------------


def test_a_posterior_beside_the_weights_is_used(regression_dir, tmp_path):
    import shutil

    folder = shutil.copytree(regression_dir, tmp_path / "model")
    rows = [{"text": " ".join(TINY_WORDS[i : i + 9])} for i in range(60)]
    plain = Predictor.from_model_dir(folder)
    before = plain.predict(rows)
    assert all(each.uncertainty["epistemic"] == 0.0 for each in before)
    features = [
        features_of(plain.model, (torch.tensor([example.windows[0].tolist()]), None))
        for example in plain.encode(rows)
    ]
    laplace = LastLayerLaplace.fit(plain.model, torch.cat(features), kind="gaussian", samples=4)
    save_posterior(folder / "posterior.safetensors", laplace)
    predictor = Predictor.from_model_dir(folder)
    after = predictor.predict(rows)
    np.testing.assert_allclose(
        [each.answer for each in after], [each.answer for each in before], atol=1e-4
    )
    assert all(each.uncertainty["epistemic"] > 0.0 for each in after)
    # In the target's units: standard deviation 2 times that of the standardised output.
    variance = laplace.moments(features[0])[1][0, 0, 0]
    assert len(plain.encode(rows[:1])[0].windows) == 1
    expected = 2.0 * float(variance) ** 0.5
    assert after[0].uncertainty["epistemic"] == pytest.approx(expected, rel=1e-3)
    alone = [predictor.predict([row])[0] for row in rows[:10]]
    for one, two in zip(alone, after[:10], strict=True):
        assert one.uncertainty["epistemic"] == pytest.approx(two.uncertainty["epistemic"], rel=1e-4)


def test_any_posterior_may_be_given(regression_dir):
    from posterion.tasks import read_task_model
    from posterion.text import Tokenizer

    predictor = Predictor(
        model=TextModel.load(regression_dir),
        tokenizer=Tokenizer.load(regression_dir),
        settings=read_task_model(regression_dir),
        posterior=lambda model: McHeads(model, samples=5, rate=0.3),
    )
    (answer,) = predictor.predict([{"text": TEXT}])
    assert answer.uncertainty["epistemic"] > 0.0
