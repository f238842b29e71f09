"""What of BERT's configuration space these models cover: all but relative positions."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig

from posterion._exceptions import ModelSourceError

__all__ = ["BertConfig", "check_config"]


def check_config(config: Any) -> None:
    """Refuse configurations of BERT's form whose forward pass would differ from the one here.

    Raises:
        ModelSourceError: Cross-attention without a decoder, positions that are not absolute, or
            sizes that do not fit.
    """
    if config.add_cross_attention and not config.is_decoder:
        raise ModelSourceError(
            f"This {config.model_type} configuration has add_cross_attention without is_decoder; "
            "only decoders look at another model's states. Set is_decoder = True."
        )
    positions = getattr(config, "position_embedding_type", "absolute") or "absolute"
    if positions != "absolute":
        raise ModelSourceError(
            f"This {config.model_type} configuration has position_embedding_type {positions!r}; "
            "only 'absolute' is supported. Choose a checkpoint with absolute positions."
        )
    if config.hidden_size % config.num_attention_heads:
        raise ModelSourceError(
            f"This {config.model_type} configuration has hidden_size {config.hidden_size}, which "
            f"is no multiple of its num_attention_heads {config.num_attention_heads}. Correct its "
            "config.json."
        )
