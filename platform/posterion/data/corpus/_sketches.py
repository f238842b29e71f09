"""Sketches of documents: sets of word sequences, and MinHash signatures of them.

Words are found and hashed for a batch of documents at once: a word's hash is the difference of two
sums of bytes times powers of an odd number, modulo 2^64, which is one pass over the bytes.

Shapes: D documents, B bytes, W words of all documents, S sequences of all documents, H numbers of a
signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from posterion._arrays import mixed, ranges
from posterion.data.packing import Ints

Uints = NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_SEED = 42
"""Of the signatures. Fixed: corpora of different seeds find the same duplicates."""
_BITS, _OWNER_SHIFT = np.uint64(64), np.uint64(40)
"""At most 2^24 documents in a batch."""
_SEPARATOR = b"\n"
_APART, _JOINED, _ALONE = 0, 1, 2
"""What a byte is: between words, in a word, the first of a character that is a word."""
_WIDTH = 3
"""Bytes of an ideograph, and of the punctuation that is not ASCII."""
_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = 0xE3, 0xE9
"""First bytes of kana (from U+3000 on) and Chinese characters (up to U+9FFF)."""
_PUNCTUATION = (0xE280, 0xE281, 0xE380, 0xEFBC)
"""First two bytes of dashes and quotation marks, of Chinese stops, and of their wide forms."""
_PUNCTUATION_LEADS = (0xE2, 0xE3, 0xEF)


@dataclass(frozen=True)
class Sequences:
    """Hashes of all runs of ``n`` words of documents; one run of fewer where there are no more."""

    hashes: Uints
    """(S,)."""
    offsets: Ints
    """(D + 1,)."""

    def repetition(self) -> NDArray[np.float64]:
        """(D,) share of each document's sequences that stood in it before."""
        num_documents = len(self.offsets) - 1
        owner = np.repeat(np.arange(num_documents, dtype=np.uint64), np.diff(self.offsets))
        # One sort by document and hash; what is left of a hash is enough within a document.
        keys = np.sort(owner << _OWNER_SHIFT | self.hashes >> (_BITS - _OWNER_SHIFT))
        again = keys[1:][keys[1:] == keys[:-1]] >> _OWNER_SHIFT
        repeated = np.bincount(again.astype(np.int64), minlength=num_documents)
        shares: NDArray[np.float64] = repeated / np.maximum(np.diff(self.offsets), 1)
        return shares

    def signatures(self, num_hashes: int) -> NDArray[np.uint32]:
        """(D, H) MinHash signatures (Broder 1997).

        In how many numbers two agree estimates the share of sequences that their documents have
        in common.
        """
        from rensa import RMinHash

        if len(self.offsets) < 2:
            return np.zeros((0, num_hashes), dtype=np.uint32)
        offsets = self.offsets.astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            self.hashes, offsets, num_hashes, _SEED
        )
        return np.array(matrix.to_rows(), dtype=np.uint32)


def sequences(texts: Sequence[str], n: int) -> Sequences:
    """All runs of ``n`` words of each text, without regard to case and punctuation.

    A word is a run of letters and digits; a Chinese character or kana is one.
    """
    words, first_words = _words(texts)
    num_words = np.diff(first_words)
    counts = np.maximum(num_words - n + 1, np.minimum(num_words, 1))
    starts = ranges(first_words[:-1], counts)
    ends = np.repeat(first_words[1:], counts)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(n):
            inside = starts + place < ends
            word = words[np.minimum(starts + place, max(len(words) - 1, 0))]
            hashes = np.where(inside, mixed(hashes + word), hashes)
    return Sequences(hashes, np.concatenate(([0], counts.cumsum())).astype(np.int64))


def _words(texts: Sequence[str]) -> tuple[Uints, Ints]:
    """(W,) hashes of the words of all texts; (D + 1,) which word each text begins with."""
    encoded = [text.lower().encode() for text in texts]
    content = np.frombuffer(_SEPARATOR.join((*encoded, b"")), dtype=np.uint8)
    kinds = _kinds(content)
    inside = kinds != _APART
    begins = inside.copy()
    begins[1:] &= ~inside[:-1] | (kinds[1:] == _ALONE)
    begins[_WIDTH:] |= inside[_WIDTH:] & (kinds[:-_WIDTH] == _ALONE)
    # A word ends where the next begins, or where no word is.
    stops = (begins | ~inside).nonzero()[0]
    is_start = begins[stops].nonzero()[0]
    starts = stops[is_start]
    ends = np.append(stops, len(content))[is_start + 1]
    places = np.concatenate(([0], np.cumsum([len(text) + 1 for text in encoded])))
    return _hashes(content, starts, ends), np.searchsorted(starts, places)


def _kinds(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B,) what each byte of UTF-8 is."""
    kinds = _table()[content]
    leads = np.isin(content[:-_WIDTH], _PUNCTUATION_LEADS).nonzero()[0]
    pairs = content[leads].astype(np.int64) << 8 | content[leads + 1]
    for pair in _PUNCTUATION:
        found = leads[pairs == pair]
        for place in range(_WIDTH):
            kinds[found + place] = _APART
    return kinds


@cache
def _table() -> NDArray[np.uint8]:
    """(256,) what a byte is by itself."""
    table = np.full(256, _JOINED, dtype=np.uint8)
    ascii_bytes = np.arange(128)
    table[ascii_bytes] = [_JOINED if chr(byte).isalnum() else _APART for byte in ascii_bytes]
    table[_FIRST_IDEOGRAPH : _LAST_IDEOGRAPH + 1] = _ALONE
    return table


def _hashes(content: NDArray[np.uint8], starts: Ints, ends: Ints) -> Uints:
    """Hashes of the bytes from each start to its end."""
    size = 1 << max(len(content) - 1, 1).bit_length()
    powers, inverses = _powers(_BASE, size), _powers(_INVERSE, size)
    sums = np.zeros(len(content) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.cumsum((content + np.uint64(1)) * powers[: len(content)], out=sums[1:])
        return mixed((sums[ends] - sums[starts]) * inverses[starts])


@lru_cache(maxsize=4)
def _powers(base: int, number: int) -> Uints:
    """1, base, base^2, ..., modulo 2^64."""
    factors = np.full(number, base, dtype=np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
