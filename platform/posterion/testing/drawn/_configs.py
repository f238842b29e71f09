"""Tiny configurations with every field that changes what is computed, without dropout."""

from __future__ import annotations

from typing import Any

import transformers
from hypothesis import strategies as st

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh")
MAX_LENGTH = 43
"""Longest drawn text, past tokens of a cache included."""


@st.composite
def _sizes(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "vocab_size": draw(st.integers(8, 40)),
        # A norm over fewer features than 8 would magnify rounding beyond any tolerance.
        "hidden_size": heads * draw(st.sampled_from([8] if heads == 1 else [4, 8])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.sampled_from([6, 16])),
    }


@st.composite
def _common(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that BERT, RoBERTa and ALBERT share."""
    return {
        **draw(_sizes()),
        "hidden_act": draw(st.sampled_from(ACTIVATIONS)),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "type_vocab_size": draw(st.integers(1, 3)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        "pad_token_id": draw(st.sampled_from([0, 1, 3])),
        "tie_word_embeddings": draw(st.sampled_from([True, True, False])),
        **draw(_problem()),
    }


@st.composite
def _problem(draw: st.DrawFn) -> dict[str, Any]:
    num = draw(st.integers(1, 4))
    kinds: list[str | None] = [None, "regression", "multi_label_classification"]
    if num > 1:
        kinds.append("single_label_classification")
    return {"num_labels": num, "problem_type": draw(st.sampled_from(kinds))}


@st.composite
def _decoder(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of a model that may also read from left to right."""
    is_decoder = draw(st.sampled_from([False, False, True]))
    return {
        "is_decoder": is_decoder,
        "add_cross_attention": is_decoder and draw(st.booleans()),
        "use_cache": draw(st.booleans()),
        "classifier_dropout": draw(st.sampled_from([None, 0.0])),
    }


@st.composite
def bert_configs(draw: st.DrawFn) -> Any:
    """Configurations of :class:`transformers.BertModel`."""
    return transformers.BertConfig(
        max_position_embeddings=draw(st.integers(MAX_LENGTH, 50)),
        **draw(_common()),
        **draw(_decoder()),
    )


@st.composite
def roberta_configs(draw: st.DrawFn) -> Any:
    """Configurations of :class:`transformers.RobertaModel`; positions count on from padding's."""
    fields = draw(_common())
    lowest = MAX_LENGTH + fields["pad_token_id"] + 1
    return transformers.RobertaConfig(
        max_position_embeddings=draw(st.integers(lowest, lowest + 6)),
        bos_token_id=0,
        eos_token_id=2,
        **fields,
        **draw(_decoder()),
    )


@st.composite
def distilbert_configs(draw: st.DrawFn) -> Any:
    """Configurations of :class:`transformers.DistilBertModel`."""
    sizes = draw(_sizes())
    return transformers.DistilBertConfig(
        vocab_size=sizes["vocab_size"],
        dim=sizes["hidden_size"],
        n_layers=sizes["num_hidden_layers"],
        n_heads=sizes["num_attention_heads"],
        hidden_dim=sizes["intermediate_size"],
        activation=draw(st.sampled_from(ACTIVATIONS)),
        max_position_embeddings=draw(st.integers(MAX_LENGTH, 50)),
        sinusoidal_pos_embds=draw(st.booleans()),
        dropout=0.0,
        attention_dropout=0.0,
        qa_dropout=0.0,
        seq_classif_dropout=0.0,
        pad_token_id=draw(st.sampled_from([0, 1, 3])),
        tie_word_embeddings=draw(st.sampled_from([True, True, False])),
        **draw(_problem()),
    )


@st.composite
def albert_configs(draw: st.DrawFn) -> Any:
    """Configurations of :class:`transformers.AlbertModel`: groups of shared layers, too."""
    fields = draw(_common())
    layers = draw(st.integers(1, 4))
    groups = draw(st.sampled_from([number for number in (1, 2, 3) if number <= layers]))
    fields["num_hidden_layers"] = layers
    return transformers.AlbertConfig(
        max_position_embeddings=draw(st.integers(MAX_LENGTH, 50)),
        embedding_size=draw(st.sampled_from([8, 10, fields["hidden_size"]])),
        num_hidden_groups=groups,
        inner_group_num=draw(st.sampled_from([1, 1, 2])),
        classifier_dropout_prob=0.0,
        **fields,
    )
