"""Tokenization on the `tokenizers` library, without truncation or padding.

What a model may see at most is decided by windows, never by a silent cut, so whatever
truncation or padding a checkpoint's ``tokenizer.json`` declares is switched off. Windows are cut
from the ids of the whole text; a window's text is never tokenized again, so no id depends on where
a window begins.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError, ModelSourceError
from posterion.text._files import (
    COMPANION_FILES,
    SETTINGS_FILE,
    mask_token,
    pad_id,
    padding_side,
    read_backend,
    read_json,
    write_backend,
    write_vocabulary,
)
from posterion.text._windows import (
    NOWHERE,
    Frame,
    OffsetEncoding,
    PairWindow,
    check_pair,
    check_room,
    frame_pair,
    starts,
)

_WORD_MARKS: Mapping[str, Literal["wordpiece", "byte_level", "unigram"]] = {
    "WordPiece": "wordpiece",
    "BPE": "byte_level",
    "Unigram": "unigram",
}
_BATCH = 1024  # Texts whose encodings, with offsets some 200 bytes a token, are alive together


class Tokenizer:
    """Texts to token ids, to overlapping windows of them, and to their places in the text.

    Special tokens that are written out in a text, e.g. ``[MASK]``, become the special token, as
    in ``transformers``. Thread-safe; batches are encoded in parallel unless
    ``TOKENIZERS_PARALLELISM`` forbids.
    """

    def __init__(
        self,
        backend: Any,
        *,
        pad_id: int,
        directory: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        padding_side: Literal["left", "right"] = "right",
        mask_token: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._directory = directory
        self._settings = settings
        self.pad_id = pad_id
        """Id that fills batches; masked out wherever it stands."""
        self.padding_side = padding_side
        """Where the architecture expects batches to be filled."""
        self._mask_token = mask_token
        self._frame = Frame.of(backend, 1)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the tokenizer of a checkpoint folder.

        ``tokenizer.json`` if there is one, else ``vocab.json`` with ``merges.txt``, ``vocab.txt``
        or ``spiece.model`` of BERT, DistilBERT, RoBERTa, GPT-2, ALBERT or XLNet, else what
        ``transformers`` converts.

        Raises:
            ModelSourceError: No folder, no tokenizer in it, or a damaged one.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise ModelSourceError(f"{directory}: no such folder, so no tokenizer can be read")
        backend, lacking = read_backend(directory)
        settings = {**lacking, **read_json(directory / SETTINGS_FILE)}
        config = read_json(directory / "config.json")
        return cls(
            backend,
            pad_id=pad_id(settings, config, backend),
            directory=directory,
            settings=lacking or None,
            padding_side=padding_side(settings, config),
            mask_token=mask_token(settings, backend),
        )

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def num_special_tokens(self) -> int:
        """Special tokens around a single text."""
        return self._frame.size

    @property
    def num_special_tokens_of_pair(self) -> int:
        """Special tokens around two texts."""
        return self._pair_frame.size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides which ids a text gets."""
        canonical = json.dumps(self.settings_of_backend(), sort_keys=True)
        return hashlib.sha256(f"{self.pad_id}\n{canonical}".encode()).hexdigest()

    @property
    def frame_ids(self) -> tuple[tuple[int, ...], ...]:
        """Special tokens before and after a single text."""
        return self._frame.ids

    @property
    def pair_frame_ids(self) -> tuple[tuple[int, ...], ...]:
        """Special tokens before the first of two texts, between them and after the second."""
        return self._pair_frame.ids

    def settings_of_backend(self) -> dict[str, Any]:
        """The contents of ``tokenizer.json``."""
        return dict(json.loads(self._backend.to_str()))

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of special tokens and of padding, ascending."""
        added = self._backend.get_added_tokens_decoder()
        special = {int(number) for number, token in added.items() if token.special}
        return tuple(sorted(special | {self.pad_id}))

    @property
    def mask_id(self) -> int:
        """Id of the token that hides a word.

        Raises:
            DataError: The vocabulary has none.
        """
        if self._mask_token is None:
            raise DataError(
                f"{self._directory or 'the tokenizer'}: has no mask token, so no word can be "
                "hidden; take a tokenizer of BERT's, RoBERTa's, ALBERT's or XLNet's style, or "
                "another objective"
            )
        return int(self._backend.token_to_id(self._mask_token))

    @property
    def word_marks(self) -> Literal["wordpiece", "byte_level", "unigram"]:
        """How the vocabulary marks where words begin or go on.

        Raises:
            DataError: It does so in no known way.
        """
        kind = type(self._backend.model).__name__
        if kind not in _WORD_MARKS:
            raise DataError(
                f"{self._directory or 'the tokenizer'}: a {kind} vocabulary does not mark words; "
                "turn whole_words off"
            )
        return _WORD_MARKS[kind]

    def token_id(self, token: str) -> int | None:
        """Id of a token as the vocabulary writes it; ``None`` if it has no such token."""
        found = self._backend.token_to_id(token)
        return None if found is None else int(found)

    def tokens(self, ids: Sequence[int]) -> list[str | None]:
        """Tokens as the vocabulary writes them; ``None`` for an id that it does not have."""
        return [self._backend.id_to_token(token) for token in ids]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, whatever the length.

        Raises:
            DataError: A row that is not a valid text.
        """
        before, after = self._frame.ids
        return [[*before, *encoding.ids, *after] for encoding in self._encode_all(texts)]

    def encode_plain(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts, one after the other, without special tokens around them.

        Returns:
            (T,) ids; (N + 1,) where the ids of each of the N texts begin, and the end.

        Raises:
            DataError: A row that is not a valid text.
        """
        rows = [encoding.ids for encoding in self._encode_all(texts)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        offsets = np.concatenate(([0], lengths.cumsum())).astype(np.int64)
        return np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets

    def encode_offsets(self, texts: Sequence[str]) -> list[OffsetEncoding]:
        """Token ids of each text and the place of each token in it.

        Offsets count characters (code points) of the text as given, whatever normalisation does
        to it. Where one character is several tokens, each has the span of the character.

        Raises:
            DataError: A row that is not a valid text.
        """
        before, after = self._frame.ids
        num_before, num_after = len(before), len(after)
        rows: list[OffsetEncoding] = []
        for encoding in self._encode_all(texts, offsets=True):
            # Lists of their own, lengthened in place: copies would cost a tenth of the whole.
            ids, offsets = encoding.ids, encoding.offsets
            mask = [True] * num_before + [False] * len(ids) + [True] * num_after
            ids[:0] = before
            ids += after
            offsets[:0] = [NOWHERE] * num_before
            offsets += [NOWHERE] * num_after
            rows.append(OffsetEncoding(ids, offsets, mask))
        return rows

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def token_type_ids(self, window: Sequence[int]) -> list[int]:
        """Segment of each token of a window of one text, as the architecture counts them."""
        before, after = self._frame.types
        own = self._frame.text_types[0]
        return [*before, *[own] * (len(window) - self._frame.size), *after]

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
            DataError: ``max_length`` leaves no room beyond special tokens and overlap, or a row is
                not a valid text.
        """
        room = check_room(max_length, self.num_special_tokens, stride)
        before, after = self._frame.ids
        return [
            [
                [*before, *ids[start : start + room], *after]
                for start in starts(len(ids), room, stride)
            ]
            for ids in (encoding.ids for encoding in self._encode_all(texts))
        ]

    def pair_windows(
        self, first: Sequence[str], second: Sequence[str], max_length: int, stride: int
    ) -> list[list[PairWindow]]:
        """Put each first text, whole, before windows of the second, e.g. a question and a passage.

        Neighbouring windows share ``stride`` tokens of the second text. Without the overlaps, the
        windows' tokens of the second text concatenate to its tokens.

        Raises:
            DataError: Not as many first texts as second ones, a row that is not a valid text,
                or a first text so long that a window cannot move over the second.
        """
        if len(first) != len(second):
            raise DataError(
                f"{len(first)} first texts and {len(second)} second ones cannot be paired; give "
                "as many of the one as of the other"
            )
        check_room(max_length, self._pair_frame.size, stride)
        rows: list[list[PairWindow]] = []
        pairs = zip(self._encode_all(first), self._encode_all(second, offsets=True), strict=True)
        for row, (question, context) in enumerate(pairs, start=1):
            head, ids = question.ids, context.ids
            room = max_length - self._pair_frame.size - len(head)
            check_pair(row, len(head), len(ids), room, stride)
            rows.append(
                list(frame_pair(self._pair_frame, head, ids, context.offsets, room, stride))
            )
        return rows

    def save(self, directory: Path) -> None:
        """Write the tokenizer so that this class and ``transformers`` load it again.

        ``tokenizer.json`` and ``tokenizer_config.json``; for byte-level BPE ``vocab.json`` and
        ``merges.txt`` too, for WordPiece ``vocab.txt``.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if self._directory is not None:
            for name in COMPANION_FILES:
                source = self._directory / name
                if source.is_file() and source.resolve() != (directory / name).resolve():
                    shutil.copyfile(source, directory / name)
        if self._settings is not None:
            write_vocabulary(self._backend, self._settings, directory)
        write_backend(self._backend, directory)

    @cached_property
    def _pair_frame(self) -> Frame:
        return Frame.of(self._backend, 2)

    def _encode_all(self, texts: Sequence[str], *, offsets: bool = False) -> Iterator[Any]:
        """Encodings of the texts without special tokens, a bounded number alive at once."""
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            for row, text in enumerate(batch, start=start + 1):
                if not isinstance(text, str):
                    raise DataError(f"row {row}: cannot tokenize {text!r}; give a text")
            try:
                yield from encode(batch, add_special_tokens=False)
            except (TypeError, UnicodeEncodeError) as error:
                for row, text in enumerate(batch, start=start + 1):
                    check_text(text, f"row {row}", error)
                raise


def check_text(text: str, name: str, cause: Exception | None = None) -> None:
    """Refuse half a surrogate pair, which is no character and has no UTF-8 bytes.

    Raises:
        DataError: Names the text, the character and its place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: character {error.start + 1} is {text[error.start]!a}, half a surrogate "
            "pair, which is not valid text; read the source again as UTF-8 or UTF-16"
        ) from (cause or error)
