"""What of RoBERTa's configuration space these models cover: all but relative positions."""

from __future__ import annotations

from transformers import RobertaConfig

from posterion._exceptions import ModelSourceError

__all__ = ["RobertaConfig", "check_positions"]


def check_positions(config: RobertaConfig) -> None:
    """Refuse configurations in which no position could be counted.

    Raises:
        ModelSourceError: There is no ``pad_token_id``, from which RoBERTa counts, or no room
            behind it.
    """
    padding = config.pad_token_id
    if padding is None or not 0 <= padding < config.max_position_embeddings - 1:
        raise ModelSourceError(
            f"This RoBERTa configuration has pad_token_id {padding!r} and "
            f"{config.max_position_embeddings} positions; RoBERTa counts positions from "
            "pad_token_id + 1. Correct its config.json."
        )
