"""Every architecture keeps the promises of all models."""

import pytest
import transformers

from posterion import models
from posterion.testing import MODEL_CHECKS, ModelFamily

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 44,
}
HEADS = (
    "ForMaskedLM",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    "ForSequenceClassification",
    "ForTokenClassification",
)


def family(prefix, config, *more, heads=HEADS, decoder=None):
    named = {name: getattr(models, prefix + name) for name in ("Model", *heads, *more)}
    encoder = named.pop("Model")
    return ModelFamily(
        encoder=encoder,
        heads=tuple(named.values()),
        config=config,
        decoder=named.get(decoder),
    )


def bert():
    more = ("ForNextSentencePrediction", "ForPreTraining", "LMHeadModel")
    return family("Bert", transformers.BertConfig(**SIZES), *more, decoder="LMHeadModel")


def roberta():
    config = transformers.RobertaConfig(**SIZES)
    return family("Roberta", config, "ForCausalLM", decoder="ForCausalLM")


def distilbert():
    names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
    sizes = {names.get(name, name): size for name, size in SIZES.items()}
    return family("DistilBert", transformers.DistilBertConfig(**sizes))


def albert():
    config = transformers.AlbertConfig(
        **{**SIZES, "num_hidden_layers": 4}, embedding_size=8, num_hidden_groups=2,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    return family("Albert", config, "ForPreTraining")


def xlnet():
    heads = (
        "ForMultipleChoice",
        "ForQuestionAnswering",
        "ForQuestionAnsweringSimple",
        "ForSequenceClassification",
        "ForTokenClassification",
        "LMHeadModel",
    )
    config = transformers.XLNetConfig(
        vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=24, start_n_top=2, end_n_top=2
    )
    return family("XLNet", config, heads=heads, decoder="LMHeadModel")


FAMILIES = {each.__name__: each for each in (bert, roberta, distilbert, albert, xlnet)}


@pytest.mark.parametrize("check", MODEL_CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_contract(name, check, tmp_path):
    MODEL_CHECKS[check](FAMILIES[name](), tmp_path)
