"""Training tokenizers, and the files they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posterion import DataError, ModelSourceError
from posterion.testing import hostile_texts
from posterion.text import Tokenizer, text_lines, train_tokenizer

STYLES = {
    "roberta": ("bpe", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    "gpt2": ("bpe", ["<|endoftext|>"]),
    "bert": ("wordpiece", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
    "albert": ("unigram", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
    "xlnet": ("unigram", ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]),
}
CHINESE = [
    "北京是中国的首都。上海是中国最大的城市。",
    "中国的城市很多、北京和上海是最有名的城市。",
    "我们去北京、他们去上海、你们去哪里。",
] * 20
PROBES = ["Hello world!", "我们去北京。", " <mask> [MASK]<extra> x", "été ﬁ 👩\u200d👩", "", " \n"]


def train(style: str, *, size: int = 4_000, **options: Any) -> Tokenizer:
    kind: Any = STYLES[style][0]
    return train_tokenizer(kind, hostile_texts(800, seed=3), size, style=style, **options)


@pytest.mark.parametrize("style", STYLES)
def test_special_tokens_come_first_in_their_order(style: str) -> None:
    tokenizer = train(style)
    special = STYLES[style][1]
    assert tokenizer.tokens(range(len(special))) == special
    assert 500 < tokenizer.vocabulary_size <= 4_000
    assert tokenizer.token_id(special[-1]) == len(special) - 1
    assert tokenizer.token_id("no such token") is None


@pytest.mark.parametrize("style", STYLES)
def test_saved_folder_is_the_same_tokenizer_in_transformers(style: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = train(style, special_tokens=["<extra>"])
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    again.save(tmp_path / "twice")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "twice").iterdir()} == files
    vocabulary = {"bpe": {"vocab.json", "merges.txt"}, "wordpiece": {"vocab.txt"}}
    names = vocabulary.get(STYLES[style][0], set())
    assert set(files) == {"tokenizer.json", "tokenizer_config.json"} | names
    reference: Any = AutoTokenizer.from_pretrained(str(tmp_path / "saved"), local_files_only=True)
    assert reference(PROBES)["input_ids"] == tokenizer.encode(PROBES)
    assert reference.convert_tokens_to_ids("<extra>") == tokenizer.token_id("<extra>")
    assert len(reference) == tokenizer.vocabulary_size
    assert reference.padding_side == ("left" if style == "xlnet" else "right")


@pytest.mark.parametrize("style", ["roberta", "gpt2"])
def test_vocabulary_and_merges_are_enough(style: str, tmp_path: Path) -> None:
    tokenizer = train(style)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    again = Tokenizer.load(tmp_path)
    assert again.encode(PROBES) == tokenizer.encode(PROBES)
    assert again.encode_offsets(PROBES) == tokenizer.encode_offsets(PROBES)
    again.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").encode(PROBES) == tokenizer.encode(PROBES)


AGAIN = """
import json, sys
from posterion.text import train_tokenizer
texts = json.load(open(sys.argv[1]))
for kind in ("bpe", "wordpiece", "unigram"):
    print(train_tokenizer(kind, texts, 4_000).fingerprint)
"""


def test_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text(json.dumps(list(hostile_texts(800, seed=3))))
    fingerprints = set()
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", AGAIN, str(tmp_path / "texts.json")],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        # Library code prints nothing, a bar of progress least of all.
        assert done.stderr == ""
        fingerprints.add(done.stdout)
    assert len(fingerprints) == 1
    assert len(set(fingerprints.pop().split())) == 3


def test_byte_level_training_is_that_of_the_library(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    texts = list(hostile_texts(600, seed=4))
    for path, part in zip(paths, (texts[:300], texts[300:]), strict=True):
        path.write_text("\n".join(part), encoding="utf-8")
    reference = ByteLevelBPETokenizer()
    special = STYLES["roberta"][1]
    reference.train(
        [str(path) for path in paths], vocab_size=900, show_progress=False, special_tokens=special
    )
    trained = train_tokenizer("bpe", text_lines(paths), 900)
    assert trained.vocabulary_size == 900
    for token, row in reference.get_vocab().items():
        assert trained.token_id(token) == row
    for path in (*paths, tmp_path / "none.txt"):
        path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a\.txt: cannot be read as UTF-8"):
        train_tokenizer("bpe", text_lines(paths), 900)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_chinese_words_become_tokens(kind: Any) -> None:
    tokenizer = train_tokenizer(kind, CHINESE, 400)
    encoded = tokenizer.encode_offsets(["北京城市"])[0]
    spans = [
        s for s, special in zip(encoded.offsets, encoded.special_mask, strict=True) if not special
    ]
    assert {place for first, last in spans for place in range(first, last)} == {0, 1, 2, 3}
    assert tokenizer.decode(encoded.ids).replace(" ", "") == "北京城市"
    if kind == "wordpiece":
        assert spans == [(0, 1), (1, 2), (2, 3), (3, 4)]
    else:
        # Joined into words: fewer tokens than the twelve bytes, or the four characters.
        assert len([span for span in spans if span[1] - span[0] > 1]) >= 1
    stored = tokenizer._backend.get_vocab()
    assert not [piece for piece in stored if "。" in piece and len(piece) > 1 and kind == "unigram"]


def test_wordpiece_lower_cases_and_keeps_to_the_size() -> None:
    lower = train("bert", lower_case=True, size=700)
    cased = train("bert", lower_case=False, size=700)
    assert lower.vocabulary_size == cased.vocabulary_size == 700
    assert lower.encode(["THE"]) == lower.encode(["the"])
    assert cased.encode(["THE"]) != cased.encode(["the"])


def test_minimum_frequency_decides_what_is_joined() -> None:
    texts = ["abab cdcdcd"] * 3 + ["xyz"]
    sizes = [
        train_tokenizer("bpe", texts, 1_000, min_frequency=least).vocabulary_size
        for least in (1, 2, 4, 100)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 261


def test_texts_are_read_once_and_not_all_at_once() -> None:
    alive: list[int] = []

    class Text(str):
        __slots__ = ("__weakref__",)

    import gc
    import weakref

    kept: weakref.WeakSet[Text] = weakref.WeakSet()

    def texts() -> Iterator[str]:
        for number in range(5_000):
            text = Text(f"number {number % 9} of many")
            kept.add(text)
            if number % 1_000 == 0:
                gc.collect()
                alive.append(len(kept))
            yield text

    train_tokenizer("bpe", texts(), 300)
    assert len(alive) == 5
    assert max(alive) < 2_000


@pytest.mark.parametrize(
    ("kind", "size", "options", "message"),
    [
        ("bpe", 260, {}, r"vocabulary_size 260: 5 special tokens and 256 bytes need at least 261"),
        ("wordpiece", 6, {}, r"vocabulary_size 6: 5 special tokens need at least 7"),
        ("words", 999, {}, r"kind 'words': no such tokenizer; take one of bpe, wordpiece, unigram"),
        ("bpe", 999, {"style": "bert"}, r"style 'bert'.*take one of roberta, gpt2"),
        ("bpe", 999, {"lower_case": True}, r"lower_case True: byte-level BPE takes text as it is"),
        ("bpe", 999, {"min_frequency": 0}, r"min_frequency 0: must be at least 1"),
        ("unigram", 999, {"min_frequency": 2}, r"min_frequency 2: unigram joins no pairs"),
    ],
)
def test_arguments_out_of_range(kind: Any, size: int, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_tokenizer(kind, ["some text"], size, **options)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_texts_that_cannot_be_trained_on(kind: Any) -> None:
    with pytest.raises(DataError, match=r"row 2: character 3 is '\\ud83d', half a surrogate pair"):
        train_tokenizer(kind, ["good", "ba\ud83d"], 999)
    with pytest.raises(DataError, match="row 2: cannot train on None"):
        train_tokenizer(kind, ["good", None], 999)  # type: ignore[list-item]
    with pytest.raises(DataError, match="one text; give an iterable of texts"):
        train_tokenizer(kind, "a text", 999)
    with pytest.raises(ZeroDivisionError):
        train_tokenizer(kind, (str(1 // n) for n in (1, 0)), 999)


def test_vocabulary_too_small_for_the_characters() -> None:
    with pytest.raises(DataError, match=r"vocabulary_size 20: too few tokens.*raise it"):
        train_tokenizer("unigram", CHINESE, 20)
    with pytest.raises(DataError, match="no texts to train on"):
        train_tokenizer("unigram", [], 999)
    assert train_tokenizer("wordpiece", CHINESE, 20).vocabulary_size <= 20


def test_text_that_is_not_valid_is_named(tmp_path: Path) -> None:
    tokenizer = train("roberta")
    texts = ["fine"] * 2_000 + ["a\udc00b"]
    for encode in (tokenizer.encode, tokenizer.encode_offsets):
        with pytest.raises(DataError, match=r"row 2001: character 2 is '\\udc00', half a surrog"):
            encode(texts)
    with pytest.raises(DataError, match="row 1: character 1 is"):
        tokenizer.pair_windows(["a"], ["\ud800"], 64, 8)
    assert tokenizer.encode(["\0"])[0][1:-1] == [tokenizer.token_id("Ā")]


def write_spiece(path: Path, pieces: list[tuple[str, float]], unknown: int, kind: int = 1) -> None:
    from transformers.utils import sentencepiece_model_pb2_new as protocol

    proto = protocol.ModelProto()
    for piece, score in pieces:
        proto.pieces.add(piece=piece, score=score)
    proto.trainer_spec.model_type = kind
    proto.trainer_spec.unk_id = unknown
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("style", ["albert", "xlnet"])
def test_sentencepiece_model_is_read(style: str, tmp_path: Path) -> None:
    trained = train(style)
    trained.save(tmp_path / "trained")
    stored = json.loads((tmp_path / "trained" / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "spiece").mkdir()
    entries = [(piece, score) for piece, score in stored["model"]["vocab"]]
    write_spiece(tmp_path / "spiece" / "spiece.model", entries, stored["model"]["unk_id"])
    read = Tokenizer.load(tmp_path / "spiece")
    texts = [text for text in hostile_texts(500) if "," not in text]
    # The file has scores of 32 bits; so must what it is compared with, or ties break otherwise.
    rounded = [(piece, float(str(np.float32(score)))) for piece, score in entries]
    stored["model"]["vocab"] = rounded
    (tmp_path / "trained" / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    trained = Tokenizer.load(tmp_path / "trained")
    assert read.encode_offsets(texts) == trained.encode_offsets(texts)
    assert (read.padding_side, read.pad_id) == (trained.padding_side, trained.pad_id)
    read.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "spiece.model").is_file()
    assert Tokenizer.load(tmp_path / "copy").fingerprint == read.fingerprint
    # A comma never sticks to the digit before it.
    write_spiece(tmp_path / "spiece" / "spiece.model", [*entries, ("▁7,", -0.1)], unknown=0)
    pieces = Tokenizer.load(tmp_path / "spiece").tokens(
        Tokenizer.load(tmp_path / "spiece").encode(["7,"])[0]
    )
    assert "▁7," not in pieces


def test_damaged_vocabularies_are_named(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"\x07nonsense")
    with pytest.raises(ModelSourceError, match=r"spiece\.model: not a SentencePiece model"):
        Tokenizer.load(tmp_path)
    write_spiece(tmp_path / "spiece.model", [("a", 0.0)], 0, kind=2)
    with pytest.raises(ModelSourceError, match=r"of type 2 with 1 pieces; only unigram"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{", encoding="utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", encoding="utf-8")
    with pytest.raises(ModelSourceError, match=r"vocab\.json and merges\.txt: not a vocabulary"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}', encoding="utf-8")
    with pytest.raises(ModelSourceError, match=r"lacks </s>, <mask>, <pad>, <s>, <unk>"):
        Tokenizer.load(tmp_path)
