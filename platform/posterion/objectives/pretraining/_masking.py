"""Which tokens a masked language model must guess, and what stands in their place.

Shapes: B rows, L tokens of the longest, V vocabulary, T tokens that may be hidden, U units (tokens,
or whole words) of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.data.packing import Ints, TokenRows, uniform

IGNORED = -100
"""Label of positions that do not count."""


@dataclass(frozen=True, kw_only=True)
class MaskingOptions:
    """How tokens are hidden (Devlin et al. 2019, section 3.1; Liu et al. 2019, section 4.1)."""

    vocabulary_size: int
    """V."""
    mask_id: int
    """What stands in place of most hidden tokens."""
    special_ids: tuple[int, ...]
    """Never hidden, and never put in place of a token: class, separator, padding, mask, ..."""
    share: float = 0.15
    """How many of the tokens, or of the words, are to be guessed."""
    masked: float = 0.8
    """How many of those become ``mask_id``."""
    replaced: float = 0.1
    """How many become any ordinary token; the rest stays as it is."""
    whole_words: bool = False
    """Hide all tokens of a word or none; rows must have ``word_ids``."""
    static_copies: int | None = None
    """Static masking: a row has only so many masks, which take turns (BERT: 10). ``None``, dynamic
    masking: each step its own."""

    def __post_init__(self) -> None:
        problems = {
            f"share ({self.share}) must lie in (0, 1]": not 0 < self.share <= 1,
            f"masked ({self.masked}) and replaced ({self.replaced}) must be shares that make at "
            "most 1 together": min(self.masked, self.replaced) < 0
            or self.masked + self.replaced > 1 + 1e-9,
            f"mask_id ({self.mask_id}) must be below vocabulary_size "
            f"({self.vocabulary_size})": not 0 <= self.mask_id < self.vocabulary_size,
            f"static_copies ({self.static_copies}) must be at least 1, or none for dynamic "
            "masking": self.static_copies is not None and self.static_copies < 1,
            "special_ids must leave an ordinary token to put in place of others": self.replaced > 0
            and not len(self.ordinary_ids),
        }
        wrong = [message for message, is_wrong in problems.items() if is_wrong]
        if wrong:
            raise DataError("Masking: " + "; ".join(wrong) + ".")

    @cached_property
    def ordinary_ids(self) -> Ints:
        """All ids that are not special."""
        return np.setdiff1d(np.arange(self.vocabulary_size), (*self.special_ids, self.mask_id))


@dataclass(frozen=True)
class MaskedRows:
    """Rows in which tokens are hidden."""

    input_ids: Ints
    """(B, L)."""
    labels: Ints
    """(B, L): the token that stood there where it is to be guessed, -100 elsewhere."""


def mask_tokens(rows: TokenRows, options: MaskingOptions, *, seed: int, step: int) -> MaskedRows:
    """Hide tokens of rows.

    What happens to a row is decided by its number, the seed and the step alone: not by the batch
    or the worker that it is in. Of a row's U units, ``share * U`` are chosen, rounded up or down by
    chance so that the mean is exact, but at least one: all alike likely. Each chosen token
    is then, on its own, masked, replaced or kept.

    Args:
        rows: Padded (at the right, or a token's place would depend on the batch) or packed; special
            tokens may stand anywhere.
        options: See :class:`MaskingOptions`.
        seed: Of the run.
        step: What changes the masks: the optimizer step, or the epoch.

    Raises:
        DataError: Whole words are asked for, but rows have no ``word_ids``; ids beyond the
            vocabulary.
    """
    ids = np.asarray(rows.input_ids, dtype=np.int64)
    _check_ids(ids, options)
    if options.static_copies is not None:
        step %= options.static_copies
    may = rows.attention_mask & ~np.isin(ids, (*options.special_ids, options.mask_id))
    row, column = may.nonzero()
    unit = _units(rows, row, column, options)
    number = rows.numbers[row]
    hidden = _chosen(row, number, unit, options, seed, step)
    row, column, number = row[hidden], column[hidden], number[hidden]
    labels = np.full(ids.shape, IGNORED, dtype=np.int64)
    labels[row, column] = ids[row, column]
    fate = uniform("fate of hidden tokens", seed, step, number, column)
    masked = fate < options.masked
    replaced = ~masked & (fate < options.masked + options.replaced)
    changed = ids.copy()
    changed[row[masked], column[masked]] = options.mask_id
    others = uniform("other tokens", seed, step, number[replaced], column[replaced])
    place = (others * len(options.ordinary_ids)).astype(np.int64)
    changed[row[replaced], column[replaced]] = options.ordinary_ids[place]
    return MaskedRows(changed, labels)


def _units(rows: TokenRows, row: Ints, column: Ints, options: MaskingOptions) -> Ints:
    """(T,) number of each token's unit in its row: its place, or that of its word's first token."""
    if not options.whole_words:
        return column
    if rows.word_ids is None:
        raise DataError(
            "whole_words needs word_ids of every row, and there are none; get them of word_ids_of, "
            "or of a segmenter with word_ids_of_spans"
        )
    word = np.asarray(rows.word_ids)[row, column]
    length = rows.input_ids.shape[1]
    # A token without a word is a word of its own, numbered where no word's number can be.
    own = int(word.max(initial=0)) + 1 + column
    key = row * (int(word.max(initial=0)) + 1 + length) + np.where(word < 0, own, word)
    _, first, of_token = np.unique(key, return_index=True, return_inverse=True)
    units: Ints = column[first][of_token]
    return units


def _chosen(
    row: Ints, number: Ints, unit: Ints, options: MaskingOptions, seed: int, step: int
) -> NDArray[np.bool_]:
    """(T,) whether each token's unit is to be guessed."""
    if not len(row):
        return np.zeros(0, dtype=bool)
    width = int(unit.max()) + 1
    keys, first, of_token = np.unique(row * width + unit, return_index=True, return_inverse=True)
    chance = uniform("hidden tokens", seed, step, number[first], unit[first])
    of_row = keys // width
    order = np.lexsort((chance, of_row))
    _, begins, which, counts = np.unique(
        of_row, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(keys), dtype=np.int64)
    rank[order] = np.arange(len(keys)) - begins[which]
    rounding = uniform("rounding", seed, step, number[first][begins], np.zeros_like(begins))
    goal = np.maximum((options.share * counts + rounding).astype(np.int64), 1)
    chosen: NDArray[np.bool_] = (rank < goal[which])[of_token]
    return chosen


def _check_ids(ids: Ints, options: MaskingOptions) -> None:
    if ids.size and not 0 <= ids.min() <= ids.max() < options.vocabulary_size:
        raise DataError(
            f"input_ids run from {ids.min()} to {ids.max()}, but vocabulary_size is "
            f"{options.vocabulary_size}; take the vocabulary that made the ids"
        )
