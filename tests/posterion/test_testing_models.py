"""The contract of models sees what it is there to see."""

import pytest
import torch
import transformers

from posterion import models
from posterion.testing import MODEL_CHECKS, ModelFamily

HEADS = (
    "DistilBertForMaskedLM",
    "DistilBertForMultipleChoice",
    "DistilBertForQuestionAnswering",
    "DistilBertForSequenceClassification",
    "DistilBertForTokenClassification",
)
CONFIG = transformers.DistilBertConfig(
    vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=44
)


def family(source, **changed):
    named = {name: getattr(source, name) for name in ("DistilBertModel", *HEADS)}
    named.update({each.__name__: each for each in changed.values()})
    encoder = named.pop("DistilBertModel")
    return ModelFamily(encoder=encoder, heads=tuple(named.values()), config=CONFIG)


def fails(check, checked, tmp_path):
    with pytest.raises(AssertionError) as caught:
        MODEL_CHECKS[check](checked, tmp_path)
    return str(caught.value)


def changed_head(change):
    """``ForSequenceClassification`` with something wrong in its constructor."""

    class DistilBertForSequenceClassification(models.DistilBertForSequenceClassification):
        def __init__(self, config):
            super().__init__(config)
            change(self)

    return family(models, head=DistilBertForSequenceClassification)


def test_transformers_computes_padding_and_starts_heads_at_random(tmp_path):
    theirs = family(transformers)
    assert "102 rows for 43 tokens" in fails("padding", theirs, tmp_path / "padding")
    (tmp_path / "loading").mkdir()
    assert "accepted" in fails("loading", theirs, tmp_path / "loading")


@pytest.mark.parametrize("check", ["names", "parity", "independence", "resizing", "bf16"])
def test_transformers_keeps_the_other_promises(check, tmp_path):
    MODEL_CHECKS[check](family(transformers), tmp_path)


def test_a_head_that_lacks_is_named(tmp_path):
    few = family(models)
    few = ModelFamily(encoder=few.encoder, heads=few.heads[:-1], config=CONFIG)
    assert "DistilBertForTokenClassification" in fails("names", few, tmp_path)


def test_a_weight_of_another_name_is_seen(tmp_path):
    def change(model):
        model.classifier2 = model.classifier
        del model.classifier

    assert "weights differ" in fails("names", changed_head(change), tmp_path)


def test_dropout_that_does_not_act_is_seen(tmp_path):
    def change(model):
        model.dropout.p = 0.0

    message = fails("dropout", changed_head(change), tmp_path)
    assert "seq_classif_dropout" in message
    assert "DistilBertForSequenceClassification" in message


def test_dropout_in_evaluation_is_seen(tmp_path):
    def change(model):
        rate = model.dropout.p
        model.dropout.forward = lambda states: torch.nn.functional.dropout(states, rate)

    assert "evaluation" in fails("dropout", changed_head(change), tmp_path)


def test_a_parameter_kept_outside_its_module_is_seen(tmp_path):
    def change(model):
        weight = model.classifier.weight
        model.dropout.forward = lambda states: states + weight[0]

    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        MODEL_CHECKS["zero3"](changed_head(change), tmp_path)


def test_neighbours_that_matter_are_seen(tmp_path):
    class DistilBertModel(models.DistilBertModel):
        def forward(self, *arguments, **options):
            output = super().forward(*arguments, **options)
            states = output.last_hidden_state
            output.last_hidden_state = states + 1e-3 * states.mean(dim=(0, 1))
            return output

    assert "text 0" in fails("independence", family(models, encoder=DistilBertModel), tmp_path)


def test_graph_breaks_are_seen(tmp_path):
    def change(model):
        def forward(states):
            torch._dynamo.graph_break()
            return states

        model.dropout.forward = forward

    with pytest.raises(torch._dynamo.exc.Unsupported):
        MODEL_CHECKS["compilation"](changed_head(change), tmp_path)
