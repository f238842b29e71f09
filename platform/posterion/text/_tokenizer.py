"""Tokenization on the `tokenizers` library, without truncation or padding.

What a model may see at most is decided by windows, never by a silent cut, so whatever
truncation or padding a checkpoint's ``tokenizer.json`` declares is switched off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from posterion._exceptions import DataError, ModelSourceError

TOKENIZER_FILE = "tokenizer.json"

COMPANION_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files beside ``tokenizer.json`` by which other libraries recognise the tokenizer."""


class Tokenizer:
    """Texts to token ids and to overlapping windows of them.

    Thread-safe; batches are encoded in parallel unless ``TOKENIZERS_PARALLELISM`` forbids.
    """

    def __init__(self, backend: Any, *, pad_id: int, directory: Path) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._directory = directory
        self.pad_id = pad_id
        """Id that fills batches; masked out wherever it stands."""
        self._prefix, self._suffix = _special_tokens(backend)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the tokenizer of a checkpoint folder.

        Without ``tokenizer.json`` the folder's tokenizer is converted by ``transformers``.

        Raises:
            ModelSourceError: No folder, no tokenizer in it, or a damaged one.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise ModelSourceError(f"{directory}: no such folder, so no tokenizer can be read")
        path = directory / TOKENIZER_FILE
        backend = _read_backend(path) if path.is_file() else _convert_backend(directory)
        return cls(backend, pad_id=_pad_id(directory, backend), directory=directory)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def num_special_tokens(self) -> int:
        """Special tokens around a single text."""
        return len(self._prefix) + len(self._suffix)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides which ids a text gets."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True)
        return hashlib.sha256(f"{self.pad_id}\n{canonical}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, whatever the length."""
        return [encoding.ids for encoding in self._encode_batch(texts, add_special_tokens=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def windows(self, text: str, max_length: int, stride: int) -> list[list[int]]:
        """Windows of one text; see :meth:`batch_windows`."""
        return self.batch_windows([text], max_length, stride)[0]

    def batch_windows(
        self, texts: Sequence[str], max_length: int, stride: int
    ) -> list[list[list[int]]]:
        """Cut each text into windows of at most ``max_length`` tokens.

        Every window has its special tokens; neighbours share ``stride`` tokens. Without the
        special tokens and the overlaps, the windows of a text concatenate to its tokens.

        Raises:
            DataError: ``max_length`` leaves no room beyond special tokens and overlap.
        """
        room = max_length - self.num_special_tokens
        if not 0 <= stride < room:
            raise DataError(
                f"windows of {max_length} tokens cannot overlap by {stride}: after "
                f"{self.num_special_tokens} special tokens there is room for {room}, and the "
                "overlap must be smaller; raise data.max_length"
            )
        return [
            self._cut(encoding.ids, room, stride)
            for encoding in self._encode_batch(texts, add_special_tokens=False)
        ]

    def save(self, directory: Path) -> None:
        """Write the tokenizer so that this class and ``transformers`` load it again."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in COMPANION_FILES:
            source = self._directory / name
            if source.is_file() and source.resolve() != (directory / name).resolve():
                shutil.copyfile(source, directory / name)
        partial = directory / f".{TOKENIZER_FILE}.{os.getpid()}.partial"
        partial.write_text(self._backend.to_str(), encoding="utf-8")
        os.replace(partial, directory / TOKENIZER_FILE)

    def _encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Any]:
        for row, text in enumerate(texts, start=1):
            if not isinstance(text, str):
                raise DataError(f"row {row}: cannot tokenize {text!r}; give a text")
        encodings: list[Any] = self._backend.encode_batch_fast(
            list(texts), add_special_tokens=add_special_tokens
        )
        return encodings

    def _cut(self, ids: list[int], room: int, stride: int) -> list[list[int]]:
        if len(ids) <= room:
            return [[*self._prefix, *ids, *self._suffix]]
        # The last start is the first whose window reaches the end.
        starts = range(0, len(ids) - stride, room - stride)
        return [[*self._prefix, *ids[start : start + room], *self._suffix] for start in starts]


def _read_backend(path: Path) -> Any:
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_file(str(path))
    except Exception as error:
        # The Rust library raises bare Exception for whatever is wrong with the file.
        raise ModelSourceError(
            f"{path}: not a readable tokenizer ({error}); copy the checkpoint again"
        ) from error


def _convert_backend(directory: Path) -> Any:
    if not any((directory / name).is_file() for name in COMPANION_FILES):
        raise ModelSourceError(
            f"{directory}: no tokenizer here; expected {TOKENIZER_FILE}, or vocabulary files "
            "that transformers can convert"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        return tokenizer.backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise ModelSourceError(
            f"{directory}: its tokenizer cannot be converted ({error}); add a {TOKENIZER_FILE}"
        ) from error


def _pad_id(directory: Path, backend: Any) -> int:
    """The padding token's id: as configured, else by its usual names, else the end's."""
    settings = _read_json(directory / "tokenizer_config.json")
    for name in (settings.get("pad_token"), "[PAD]", "<pad>", settings.get("eos_token")):
        token = name.get("content") if isinstance(name, dict) else name
        found = backend.token_to_id(token) if isinstance(token, str) else None
        if found is not None:
            return int(found)
    configured = _read_json(directory / "config.json").get("pad_token_id")
    return configured if isinstance(configured, int) else 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ModelSourceError(f"{path}: not readable JSON ({error})") from error
    return values if isinstance(values, dict) else {}


def _special_tokens(backend: Any) -> tuple[list[int], list[int]]:
    """Special tokens before and after a single text."""
    encoding = backend.encode("a", add_special_tokens=True)
    plain = backend.encode("a", add_special_tokens=False).ids
    mask = encoding.special_tokens_mask
    before = next((i for i, special in enumerate(mask) if not special), 0)
    return encoding.ids[:before], encoding.ids[before + len(plain) :]
