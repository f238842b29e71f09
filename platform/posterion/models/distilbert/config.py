"""What of DistilBERT's configuration space this encoder covers: all that fits together."""

from __future__ import annotations

from transformers import DistilBertConfig

from posterion._exceptions import ModelSourceError

__all__ = ["NORM_EPS", "DistilBertConfig", "check_config"]

NORM_EPS = 1e-12
"""Added to the variance in every normalisation; DistilBERT's configuration has no field for it."""


def check_config(config: DistilBertConfig) -> None:
    """Refuse sizes that do not fit.

    Raises:
        ModelSourceError: The hidden size cannot be divided among the heads.
    """
    if config.dim % config.n_heads:
        raise ModelSourceError(
            f"This DistilBERT configuration has dim {config.dim}, which is no multiple of its "
            f"n_heads {config.n_heads}. Correct its config.json."
        )
