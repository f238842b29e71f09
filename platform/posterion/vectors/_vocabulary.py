"""The words that get vectors, with how often each occurs and what follows from it.

Shape legend: V words of the vocabulary, most frequent first.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from posterion._exceptions import DataError

Int64Array = np.ndarray[Any, np.dtype[np.int64]]
Float64Array = np.ndarray[Any, np.dtype[np.float64]]
Float32Array = np.ndarray[Any, np.dtype[np.float32]]


class HuffmanCodes(NamedTuple):
    """Paths from the root of the Huffman tree to every word, one after another."""

    starts: Int64Array
    """First step of each word's path in the other two, (V + 1,)."""
    points: np.ndarray[Any, np.dtype[np.int32]]
    """Inner nodes on the paths, the root (V - 2) first."""
    bits: np.ndarray[Any, np.dtype[np.uint8]]
    """Which branch is taken there."""


class Vocabulary:
    """V distinct words and their counts, most frequent first; equal counts in order of words."""

    def __init__(self, words: Sequence[str], counts: Sequence[int]) -> None:
        """Take words and counts that belong together.

        Raises:
            DataError: No words, a word twice, a count below 1, or counts that do not descend.
        """
        self.words = tuple(words)
        self.counts: Int64Array = np.asarray(counts, dtype=np.int64)
        self.index = {word: row for row, word in enumerate(self.words)}
        if not self.words or len(self.words) != len(self.counts):
            raise DataError(
                f"vocabulary: {len(self.words)} words and {len(self.counts)} counts; "
                "at least one word, and one count for each, are needed"
            )
        if len(self.index) != len(self.words):
            twice = Counter(self.words).most_common(1)[0][0]
            raise DataError(f"vocabulary: the word {twice!r} comes more than once")
        if self.counts.min() < 1 or (np.diff(self.counts) > 0).any():
            raise DataError("vocabulary: counts must be at least 1 and descend")

    def __len__(self) -> int:
        """V."""
        return len(self.words)

    @classmethod
    def count(
        cls,
        sentences: Iterable[Sequence[str]],
        *,
        min_count: int = 5,
        max_words: int | None = None,
    ) -> Vocabulary:
        """Count the words of a corpus, which is read once and not kept.

        Args:
            sentences: Words of each sentence.
            min_count: Occurrences that a word needs.
            max_words: Most words to keep, the most frequent ones; all if None.

        Raises:
            DataError: No word occurs often enough.
        """
        counter: Counter[str] = Counter()
        for sentence in sentences:
            counter.update(sentence)
        kept = [(word, number) for word, number in counter.items() if number >= min_count]
        if not kept:
            raise DataError(
                f"corpus: none of its {len(counter)} distinct words occurs {min_count} times; "
                "give more text or lower min_count"
            )
        kept.sort(key=lambda item: (-item[1], item[0]))
        words, counts = zip(*kept[:max_words], strict=True)
        return cls(words, counts)

    def keep_probabilities(self, sample: float) -> Float32Array:
        """Chance of each occurrence to be trained on, (V,).

        For a word that is the share f of all: sqrt(t / f) + t / f, at most 1, as word2vec's
        published program has it; Mikolov et al. 2013b, equation 5, is 1 - sqrt(t / f) for its
        dropping.

        Args:
            sample: The threshold t; 0 keeps everything.
        """
        if sample == 0:
            return np.ones(len(self), dtype=np.float32)
        ratio = sample * self.counts.sum() / self.counts
        keep: Float32Array = np.minimum(np.sqrt(ratio) + ratio, 1.0).astype(np.float32)
        return keep

    def alias_table(self, exponent: float) -> tuple[Float32Array, np.ndarray[Any, Any]]:
        """Draws in constant time with probabilities count ** exponent (Walker 1977).

        Returns:
            For a uniformly drawn cell: the chance that the cell itself is the result, and the
            word that is the result otherwise. Each (V,).
        """
        weight = self.counts.astype(np.float64) ** exponent
        scaled = weight * (len(self) / weight.sum())
        chance, other = np.ones(len(self)), np.arange(len(self), dtype=np.int32)
        small = [i for i in range(len(self)) if scaled[i] < 1.0]
        large = [i for i in range(len(self)) if scaled[i] >= 1.0]
        while small and large:
            low, high = small.pop(), large[-1]
            chance[low], other[low] = scaled[low], high
            scaled[high] -= 1.0 - scaled[low]
            if scaled[high] < 1.0:
                small.append(large.pop())
        return chance.astype(np.float32), other

    def huffman(self) -> HuffmanCodes:
        """Binary codes of the words, the shorter the more frequent (Huffman 1952)."""
        size = len(self)
        parent, branch = np.zeros(2 * size - 1, np.int64), np.zeros(2 * size - 1, np.uint8)
        heap = [(int(number), node) for node, number in enumerate(self.counts)]
        heapq.heapify(heap)
        for node in range(size, 2 * size - 1):
            (first, left), (second, right) = heapq.heappop(heap), heapq.heappop(heap)
            parent[left] = parent[right] = node
            branch[right] = 1
            heapq.heappush(heap, (first + second, node))
        starts, points, bits = [0], [], []
        for word in range(size):
            node, path = word, []
            while node != 2 * size - 2:
                path.append((parent[node] - size, branch[node]))
                node = parent[node]
            points += [point for point, _ in reversed(path)]
            bits += [bit for _, bit in reversed(path)]
            starts.append(len(points))
        return HuffmanCodes(
            np.array(starts), np.array(points, dtype=np.int32), np.array(bits, dtype=np.uint8)
        )
