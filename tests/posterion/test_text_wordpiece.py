"""WordPiece against `transformers` and against BERT's published steps in plain Python."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from posterion.testing import hostile_texts, long_texts
from posterion.text import Tokenizer, train_tokenizer

COUNT = int(os.environ.get("POSTERION_HOSTILE_TEXTS", "100000"))
SLOW_COUNT = min(COUNT, int(os.environ.get("POSTERION_HOSTILE_TEXTS_SLOW", "20000")))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

Placed = list[tuple[str, int]]
"""Characters, each with the place in the text that it came from."""


class PlainWordPiece:
    """BERT's tokenization (Devlin et al. 2019) step by step, every character with its place."""

    def __init__(self, directory: Path, *, lower_case: bool) -> None:
        lines = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
        self.ids = {token: row for row, token in enumerate(lines) if token}
        self.lower_case = lower_case
        self.special = re.compile("|".join(map(re.escape, SPECIAL)))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found: list[tuple[int, tuple[int, int]]] = []
        start = 0
        for match in self.special.finditer(text):
            found.extend(self._plain(text[start : match.start()], start))
            found.append((self.ids[match.group()], match.span()))
            start = match.end()
        found.extend(self._plain(text[start:], start))
        return [token for token, _ in found], [span for _, span in found]

    def _plain(self, text: str, shift: int) -> Iterator[tuple[int, tuple[int, int]]]:
        placed = self._normalise([(c, shift + i) for i, c in enumerate(text)])
        for word in self._words(placed):
            yield from self._pieces(word)

    def _normalise(self, placed: Placed) -> Placed:
        kept: Placed = []
        for character, place in placed:
            if character in "\t\n\r" or unicodedata.category(character)[0] == "Z":
                kept.append((" ", place))
            elif character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co"):
                continue
            elif is_chinese(character):
                kept += [(" ", place), (character, place), (" ", place)]
            else:
                kept.append((character, place))
        if self.lower_case:
            parts = [(p, place) for c, place in kept for p in unicodedata.normalize("NFD", c)]
            parts = [(c, place) for c, place in parts if unicodedata.category(c) != "Mn"]
            kept = [(low, place) for c, place in parts for low in c.lower()]
        return kept

    def _words(self, placed: Placed) -> Iterator[Placed]:
        word: Placed = []
        for character, place in placed:
            apart = character.isspace() or is_punctuation(character)
            if apart and word:
                yield word
                word = []
            if not apart:
                word.append((character, place))
            elif not character.isspace():
                yield [(character, place)]
        if word:
            yield word

    def _pieces(self, word: Placed) -> Iterator[tuple[int, tuple[int, int]]]:
        characters = "".join(c for c, _ in word)
        whole = [(self.ids["[UNK]"], (word[0][1], word[-1][1] + 1))]
        if len(characters) > 100:
            yield from whole
            return
        pieces: list[tuple[int, tuple[int, int]]] = []
        start = 0
        while start < len(characters):
            for end in range(len(characters), start, -1):
                piece = ("##" if start else "") + characters[start:end]
                if piece in self.ids:
                    pieces.append((self.ids[piece], (word[start][1], word[end - 1][1] + 1)))
                    start = end
                    break
            else:
                yield from whole
                return
        yield from pieces


def is_chinese(character: str) -> bool:
    ranges = (
        *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
        *((0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
    )
    return any(first <= ord(character) <= last for first, last in ranges)


def is_punctuation(character: str) -> bool:
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character)[0] == "P"


@cache
def characters_of_other_tables() -> frozenset[str]:
    """Characters that the library's Unicode tables class otherwise than Python's."""
    from tokenizers import normalizers, pre_tokenizers

    options = {"lowercase": False, "handle_chinese_chars": False}
    clean = normalizers.BertNormalizer(strip_accents=False, **options)
    strip = normalizers.BertNormalizer(strip_accents=True, **options)
    split = pre_tokenizers.BertPreTokenizer()
    found = set()
    for character in map(chr, (*range(0x3400), *range(0xA000, 0xD800), *range(0xF900, 0x20000))):
        category = unicodedata.category(character)
        if category in ("Cn", "Cs", "Lo", "Co", "Cc"):
            continue
        between = f"a{character}a"
        decomposed = unicodedata.normalize("NFD", between)
        bare = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
        agree = (clean.normalize_str(between) == "aa") == (
            category == "Cf" or character == "\ufffd"
        )
        if agree and category != "Cf" and character != "\ufffd":
            apart = category[0] == "Z" or is_punctuation(character)
            agree = (len(split.pre_tokenize_str(between)) > 1) == apart
            agree = agree and (category[0] == "Z" or strip.normalize_str(between) == bare)
        if not agree:
            found.add(character)
    return frozenset(found)


def test_tables_agree_on_all_but_late_characters() -> None:
    """The library's Unicode tables are of 2015; a character that was there in 2002 is the same."""
    early = {c for c in characters_of_other_tables() if unicodedata.ucd_3_2_0.category(c) != "Cn"}
    # A mark of punctuation that became a symbol, two letters that became marks, and the reverse.
    assert early == {"\u166d", "\u1885", "\u1886", "\u1734"}
    assert len(characters_of_other_tables()) < 600


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bool]:
    directory = tmp_path_factory.mktemp("bert")
    texts = hostile_texts(20_000, seed=1)
    train_tokenizer("wordpiece", texts, 8_000, lower_case=request.param).save(directory)
    return directory, request.param


def test_hostile_texts_equal_those_of_transformers(trained: tuple[Path, bool]) -> None:
    from transformers import AutoTokenizer

    directory, lower_case = trained
    reference: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    tokenizer = Tokenizer.load(directory)
    texts = [*hostile_texts(COUNT if lower_case else COUNT // 10), *long_texts().values()]
    expected = reference(texts[:1_000], return_offsets_mapping=True)
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


def test_hostile_texts_equal_the_published_steps(trained: tuple[Path, bool]) -> None:
    directory, lower_case = trained
    reference = PlainWordPiece(directory, lower_case=lower_case)
    late = characters_of_other_tables()
    texts = [text for text in hostile_texts(SLOW_COUNT) if late.isdisjoint(text)]
    assert len(texts) > 0.95 * SLOW_COUNT
    texts += long_texts(3_000).values()
    for text, encoded in zip(texts, Tokenizer.load(directory).encode_offsets(texts), strict=True):
        assert (encoded.ids[1:-1], encoded.offsets[1:-1]) == reference.encode(text), repr(text)


def test_vocabulary_alone_is_enough(trained: tuple[Path, bool], tmp_path: Path) -> None:
    directory, lower_case = trained
    (tmp_path / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes())
    settings = {"do_lower_case": lower_case}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    texts = list(hostile_texts(500))
    assert Tokenizer.load(tmp_path).encode(texts) == Tokenizer.load(directory).encode(texts)


def test_chinese_characters_are_words(trained: tuple[Path, bool]) -> None:
    directory, _ = trained
    tokenizer = Tokenizer.load(directory)
    lines = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    chinese = [line for line in lines if len(line) == 1 and is_chinese(line)]
    assert len(chinese) > 1_000
    # No Chinese character continues a word, so none needs a second token.
    assert [line for line in lines if line.startswith("##") and any(map(is_chinese, line))] == []
    text = "".join(chinese[:50])
    encoded = tokenizer.encode_offsets([text])[0]
    assert tokenizer.tokens(encoded.ids[1:-1]) == chinese[:50]
    assert encoded.offsets[1:-1] == [(place, place + 1) for place in range(50)]
