"""What of BERT's configuration space this encoder covers."""

from __future__ import annotations

from transformers import BertConfig

from posterion._exceptions import ModelSourceError

__all__ = ["BertConfig", "check_config"]


def check_config(config: BertConfig) -> None:
    """Refuse configurations whose forward pass would differ from the one here.

    Raises:
        ModelSourceError: Decoder, cross-attention, relative positions, or sizes that do not fit.
    """
    if config.is_decoder or config.add_cross_attention:
        raise ModelSourceError(
            "This BERT configuration is a decoder (is_decoder or add_cross_attention is true); "
            "only encoders are supported. Choose an encoder checkpoint."
        )
    positions = getattr(config, "position_embedding_type", "absolute") or "absolute"
    if positions != "absolute":
        raise ModelSourceError(
            f"This BERT configuration has position_embedding_type {positions!r}; only 'absolute' "
            "is supported. Choose a checkpoint with absolute positions."
        )
    if config.hidden_size % config.num_attention_heads:
        raise ModelSourceError(
            f"This BERT configuration has hidden_size {config.hidden_size}, which is no "
            f"multiple of its num_attention_heads {config.num_attention_heads}. Correct its "
            "config.json."
        )
