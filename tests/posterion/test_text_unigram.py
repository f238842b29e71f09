"""SentencePiece unigram against `transformers` and against a Viterbi search in plain Python."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex

from posterion.testing import hostile_texts, long_texts
from posterion.text import Tokenizer, train_tokenizer

COUNT = int(os.environ.get("POSTERION_HOSTILE_TEXTS", "100000"))
SLOW_COUNT = min(COUNT, int(os.environ.get("POSTERION_HOSTILE_TEXTS_SLOW", "10000")))

Placed = list[tuple[str, int, int]]
"""Characters, each with the first place in the text that it came from and the one after it."""


class PlainUnigram:
    """The most probable pieces of a text (Kudo 2018, section 3.2), every one with its span."""

    def __init__(self, directory: Path) -> None:
        stored = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        self.pieces = {
            piece: (row, score) for row, (piece, score) in enumerate(stored["model"]["vocab"])
        }
        self.unknown = stored["model"]["unk_id"]
        # SentencePiece's penalty for a character that has no piece.
        self.unknown_score = min(score for _, score in self.pieces.values()) - 10.0
        self.longest = max(map(len, self.pieces))
        self.lower_case = any(
            step["type"] == "Lowercase" for step in stored["normalizer"]["normalizers"]
        )
        special = [token["content"] for token in stored["added_tokens"]]
        eager = [token["content"] for token in stored["added_tokens"] if token["lstrip"]]
        tokens = [(r"\s*" if t in eager else "") + re.escape(t) for t in special]
        self.special = regex.compile("|".join(tokens))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found: list[tuple[int, tuple[int, int]]] = []
        start = 0
        for match in self.special.finditer(text):
            found.extend(self._plain(text[start : match.start()], start))
            found.append((self.pieces[match.group().strip()][0], match.span()))
            start = match.end()
        found.extend(self._plain(text[start:], start))
        return [token for token, _ in found], [span for _, span in found]

    def _plain(self, text: str, shift: int) -> Iterator[tuple[int, tuple[int, int]]]:
        word: Placed = []
        for entry in [*self._normalise(text, shift), (" ", 0, 0)]:
            if not is_space(entry[0]):
                word.append(entry)
            elif word:
                # The mark of a word's start stands where its first character does.
                marked = word if word[0][0] == "▁" else [("▁", *word[0][1:]), *word]
                marks = [i for i, (c, _, _) in enumerate(marked) if c == "▁"]
                for first, last in pairwise([*marks, len(marked)]):
                    yield from self._best(marked[first:last])
                word = []

    def _normalise(self, text: str, shift: int) -> Placed:
        placed: Placed = []
        quoted = re.compile("``|''")
        start = 0
        for match in [*quoted.finditer(text), None]:
            end = match.start() if match else len(text)
            placed += [(c, shift + i, shift + i + 1) for i, c in enumerate(text[start:end], start)]
            if match:
                # The library lays what replaces two characters on the second.
                placed.append(('"', shift + match.end() - 1, shift + match.end()))
                start = match.end()
        parts = [(p, *at) for c, *at in placed for p in unicodedata.normalize("NFKD", c)]
        parts = [entry for entry in parts if unicodedata.category(entry[0])[0] != "M"]
        if self.lower_case:
            parts = [(low, *at) for c, *at in parts for low in c.lower()]
        return parts

    def _best(self, word: Placed) -> Iterator[tuple[int, tuple[int, int]]]:
        text = "".join(c for c, _, _ in word)
        scores = [0.0] + [-math.inf] * len(text)
        came: list[tuple[int, int]] = [(0, 0)] * (len(text) + 1)
        for start in range(len(text)):
            single = False
            for end in range(start + 1, min(len(text), start + self.longest) + 1):
                found = self.pieces.get(text[start:end])
                if found is None:
                    continue
                single = single or end == start + 1
                if scores[start] + found[1] > scores[end]:
                    scores[end], came[end] = scores[start] + found[1], (start, found[0])
            if not single and scores[start] + self.unknown_score > scores[start + 1]:
                scores[start + 1] = scores[start] + self.unknown_score
                came[start + 1] = (start, self.unknown)
        path: list[tuple[int, int, int]] = []
        end = len(text)
        while end:
            start, piece = came[end]
            if path and piece == self.unknown == path[-1][0]:
                path[-1] = (piece, start, path[-1][2])
            else:
                path.append((piece, start, end))
            end = start
        for piece, start, end in reversed(path):
            yield piece, (word[start][1], word[end - 1][2])


def is_space(character: str) -> bool:
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"


@cache
def characters_of_other_tables() -> frozenset[str]:
    """Characters that the library's Unicode tables normalise otherwise than Python's."""
    from tokenizers import normalizers

    steps = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    candidates = map(chr, (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000)))
    return frozenset(c for c in candidates if steps.normalize_str(c) != without_marks(c))


def without_marks(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if unicodedata.category(c)[0] != "M")


def test_tables_agree_on_all_but_late_characters() -> None:
    """A character that was there in 2002 is normalised the same."""
    early = {c for c in characters_of_other_tables() if unicodedata.ucd_3_2_0.category(c) != "Cn"}
    assert early == set()
    assert len(characters_of_other_tables()) < 600


@pytest.fixture(scope="module", params=["xlnet", "albert"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    texts = hostile_texts(4_000, seed=1)
    train_tokenizer("unigram", texts, 20_000, style=request.param).save(directory)
    return directory


def test_hostile_texts_equal_those_of_transformers(trained: Path) -> None:
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(str(trained), local_files_only=True)
    tokenizer = Tokenizer.load(trained)
    assert tokenizer.padding_side == reference.padding_side
    assert tokenizer.pad_id == reference.pad_token_id
    count = COUNT if trained.name.startswith("xlnet") else COUNT // 10
    texts = [*hostile_texts(count), *long_texts().values()]
    expected = reference(texts[:1_000], return_offsets_mapping=True, return_token_type_ids=True)
    encoded = tokenizer.encode_offsets(texts[:1_000])
    assert [row.ids for row in encoded] == expected["input_ids"]
    assert [row.offsets for row in encoded] == expected["offset_mapping"]
    assert [tokenizer.token_type_ids(row.ids) for row in encoded] == expected["token_type_ids"]
    assert tokenizer.encode(texts[:1_000]) == expected["input_ids"]
    for start in range(1_000, len(texts), 5_000):
        batch = texts[start : start + 5_000]
        # What transformers made of the folder, without the minute that its own layer takes.
        whole = reference.backend_tokenizer.encode_batch(batch)
        encoded = tokenizer.encode_offsets(batch)
        assert [row.ids for row in encoded] == [row.ids for row in whole]
        assert [row.offsets for row in encoded] == [row.offsets for row in whole]


def test_hostile_texts_equal_the_best_path(trained: Path) -> None:
    reference = PlainUnigram(trained)
    before, after = (1, 1) if trained.name.startswith("albert") else (0, 2)
    late = characters_of_other_tables()
    texts = [text for text in hostile_texts(SLOW_COUNT) if late.isdisjoint(text)]
    assert len(texts) > 0.95 * SLOW_COUNT
    texts += long_texts(3_000).values()
    for text, encoded in zip(texts, Tokenizer.load(trained).encode_offsets(texts), strict=True):
        own = slice(before, len(encoded.ids) - after)
        assert (encoded.ids[own], encoded.offsets[own]) == reference.encode(text), repr(text)
