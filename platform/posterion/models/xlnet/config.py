"""What of XLNet's configuration space the models cover: all of it."""

from __future__ import annotations

from transformers import XLNetConfig

from posterion._exceptions import ModelSourceError

__all__ = ["XLNetConfig", "check_config"]

_ATTENTION_TYPES = ("bi", "uni")
_SUMMARY_TYPES = ("last", "first", "mean", "cls_index")


def check_config(config: XLNetConfig) -> None:
    """Refuse configurations that mean nothing.

    Raises:
        ModelSourceError: An unknown kind of attention, or sizes that do not fit.
    """
    if config.attn_type not in _ATTENTION_TYPES:
        raise ModelSourceError(
            f"This XLNet configuration has attn_type {config.attn_type!r}; it must be one of "
            f"{', '.join(_ATTENTION_TYPES)}. Correct its config.json."
        )
    if config.d_model % config.n_head:
        raise ModelSourceError(
            f"This XLNet configuration has d_model {config.d_model}, which is no multiple of its "
            f"n_head {config.n_head}. Correct its config.json."
        )
    if config.d_model % 2:
        raise ModelSourceError(
            f"This XLNet configuration has an odd d_model ({config.d_model}); its positions are "
            "pairs of sine and cosine. Correct its config.json."
        )


def check_summary(config: XLNetConfig) -> None:
    """Refuse kinds of summaries that do not exist.

    Raises:
        NotImplementedError: ``summary_type`` is ``"attn"``, which no published model uses, or
            unknown.
    """
    if config.summary_type not in _SUMMARY_TYPES:
        raise NotImplementedError(
            f"summary_type {config.summary_type!r} is not one of {', '.join(_SUMMARY_TYPES)}."
        )
