"""What of ALBERT's configuration space this encoder covers: all that fits together."""

from __future__ import annotations

from transformers import AlbertConfig

from posterion._exceptions import ModelSourceError

__all__ = ["AlbertConfig", "check_config", "group_of"]


def check_config(config: AlbertConfig) -> None:
    """Refuse sizes that do not fit.

    Raises:
        ModelSourceError: The hidden size cannot be divided among the heads.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ModelSourceError(
            f"This ALBERT configuration has hidden_size {config.hidden_size}, which is no "
            f"multiple of its num_attention_heads {config.num_attention_heads}. Correct its "
            "config.json."
        )


def group_of(config: AlbertConfig, step: int) -> int:
    """The group of parameters that computes one of the ``num_hidden_layers`` steps."""
    steps_per_group = config.num_hidden_layers / config.num_hidden_groups
    return int(step / steps_per_group)
