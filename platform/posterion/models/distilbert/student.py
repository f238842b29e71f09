"""A DistilBERT that begins as some layers of a BERT or RoBERTa (Sanh et al. 2019, section 3).

Shapes: V vocabulary, P positions, C hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from posterion._exceptions import ModelSourceError
from posterion.models.distilbert.config import DistilBertConfig

_LAYER_NAMES = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
"""The student's modules of one layer, and the teacher's."""

_TEACHERS = ("bert", "roberta")
"""The ``model_type`` of architectures whose layers DistilBERT's are."""


def student_config(teacher: Any, layers: Sequence[int]) -> DistilBertConfig:
    """The configuration of a student with ``layers`` of the teacher.

    Args:
        teacher: The teacher's configuration.
        layers: Which of its layers, from 0.

    Raises:
        ModelSourceError: The teacher is of another architecture, or a decoder.
        ValueError: A layer that the teacher lacks, or no layer.
    """
    if teacher.model_type not in _TEACHERS or teacher.is_decoder:
        kind = "decoder" if getattr(teacher, "is_decoder", False) else "model"
        raise ModelSourceError(
            f"A DistilBERT cannot begin as the layers of this {teacher.model_type!r} {kind}; "
            f"its teacher is an encoder of type {' or '.join(_TEACHERS)}."
        )
    wrong = [layer for layer in layers if not 0 <= layer < teacher.num_hidden_layers]
    if wrong or not layers:
        raise ValueError(
            f"layers must name some of the teacher's layers 0 ... {teacher.num_hidden_layers - 1}; "
            f"there is {list(layers)}."
        )
    return DistilBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings - _first_position(teacher),
        n_layers=len(layers),
        n_heads=teacher.num_attention_heads,
        dim=teacher.hidden_size,
        hidden_dim=teacher.intermediate_size,
        activation=teacher.hidden_act,
        dropout=teacher.hidden_dropout_prob,
        attention_dropout=teacher.attention_probs_dropout_prob,
        initializer_range=teacher.initializer_range,
        pad_token_id=teacher.pad_token_id,
        bos_token_id=teacher.bos_token_id,
        eos_token_id=teacher.eos_token_id,
    )


def student_weights(
    given: Mapping[str, Tensor], teacher: Any, layers: Sequence[int]
) -> dict[str, Tensor]:
    """All weights of the student, by their names in it.

    Args:
        given: The teacher's weights, by their names in an encoder without head.
        teacher: Its configuration.
        layers: Which of its layers, from 0.
    """
    positions = given["embeddings.position_embeddings.weight"]
    segment = given["embeddings.token_type_embeddings.weight"][0]
    weights = {
        "embeddings.word_embeddings.weight": given["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": positions[_first_position(teacher) :] + segment,
    }
    for kind in ("weight", "bias"):
        weights[f"embeddings.LayerNorm.{kind}"] = given[f"embeddings.LayerNorm.{kind}"]
        for place, layer in enumerate(layers):
            for own, name in _LAYER_NAMES.items():
                weights[f"transformer.layer.{place}.{own}.{kind}"] = given[
                    f"encoder.layer.{layer}.{name}.{kind}"
                ]
    return weights


def _first_position(teacher: Any) -> int:
    """Row of the teacher's position embeddings that the first token takes."""
    # RoBERTa counts on from the padding token's id, which marks the position of padding.
    return int(teacher.pad_token_id) + 1 if teacher.model_type == "roberta" else 0
