"""Text for the corpus benchmark: made-up language as large as one likes, duplicates planted in it.

Words are drawn from a million by a double power law, as in language: rank^-1 for the 5,000 most
frequent, rank^-1.7 for the others. One word in 250 is new, as names, numbers and slips are. So a
tokenizer meets as many words that it has not seen as in text of people: in 5.6 million words 3.1 %
are different ones, and 2.9 % in as many of the IMDB reviews. One document in ten repeats an earlier
one exactly, one in ten with one to three per cent of the words replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

NUM_WORDS = 1_000_000
NUM_FREQUENT, EXPONENT = 5_000, 1.7
NEW_WORDS = 1 / 250
EXACT, NEAR = 0.1, 0.1
MEAN_WORDS = 450
FILE_BYTES = 256_000_000
_KEPT = 200
"""Recent documents that may be repeated."""


def write_corpus(folder: Path, num_bytes: int, *, seed: int = 0) -> dict[str, int]:
    """Write JSON lines until there are ``num_bytes``; returns how many documents of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"new": 0, "exact": 0, "near": 0}
    written = 0
    documents = _documents(np.random.default_rng(seed))
    number = 0
    while written < num_bytes:
        size = 0
        with (folder / f"text-{number:04d}.jsonl").open("w", encoding="ascii") as file:
            while size < FILE_BYTES and written + size < num_bytes:
                kind, text = next(documents)
                size += file.write(json.dumps({"text": text, "kind": kind}) + "\n")
                counts[kind] += 1
        written += size
        number += 1
    return counts


def _documents(generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    words = _vocabulary()
    ranks = np.arange(1.0, NUM_WORDS + 1)
    rare = (NUM_FREQUENT / ranks) ** EXPONENT / (NUM_FREQUENT + 2)
    shares = np.where(ranks < NUM_FREQUENT, 1 / (ranks + 2), rare)
    limits = np.cumsum(shares / shares.sum())
    recent: list[list[str]] = []
    while True:
        lengths = np.maximum(generator.lognormal(np.log(MEAN_WORDS) - 0.5, 1.0, 256), 20)
        drawn = np.searchsorted(limits, generator.random(int(lengths.sum()) + 256))
        new = generator.random(len(drawn)) < NEW_WORDS
        place = 0
        for length, lot in zip(lengths.astype(int), generator.random(256), strict=True):
            if lot < EXACT + NEAR and recent:
                tokens = recent[int(generator.integers(len(recent)))]
                kind = "exact" if lot < EXACT else "near"
                yield kind, _written(tokens if kind == "exact" else _changed(tokens, generator))
                continue
            codes = drawn[place : place + length]
            tokens = [words[code] for code in np.minimum(codes, NUM_WORDS - 1).tolist()]
            for at in new[place : place + length].nonzero()[0].tolist():
                tokens[at] = _unseen(generator)
            place += length
            recent.append(tokens)
            del recent[:-_KEPT]
            yield "new", _written(tokens)


def _changed(tokens: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The same with one to three per cent of the words replaced."""
    changed = list(tokens)
    number = max(1, int(len(tokens) * generator.uniform(0.01, 0.03)))
    for at in generator.integers(len(tokens), size=number).tolist():
        changed[at] = _unseen(generator)
    return changed


def _unseen(generator: np.random.Generator) -> str:
    number = int(generator.integers(1 << 40))
    if number % 3 == 0:
        return str(number % 10_000_000)
    return "".join(
        "bcdfglmnprst"[number >> at & 7] + "aeiou"[number >> at + 3 & 3]
        for at in range(0, 5 * (3 + number % 3), 5)
    )


def _vocabulary() -> list[str]:
    """Words, the frequent ones short: bases of two letters and more."""
    pairs = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    order = np.random.default_rng(1).permutation(len(pairs))
    pairs = [pairs[place] for place in order]
    words = []
    for number in range(NUM_WORDS):
        word, rest = pairs[number % len(pairs)], number // len(pairs)
        while rest:
            rest -= 1
            word += pairs[rest % len(pairs)]
            rest //= len(pairs)
        words.append(word)
    return words


def _written(tokens: Sequence[str]) -> str:
    """Sentences of two clauses of eight words, paragraphs of five sentences."""
    clauses = [" ".join(tokens[at : at + 8]) for at in range(0, len(tokens), 8)]
    sentences = [
        f"{', '.join(clauses[at : at + 2])}.".capitalize() for at in range(0, len(clauses), 2)
    ]
    return "\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5))
