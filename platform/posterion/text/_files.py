"""Reading a checkpoint folder's tokenizer, and writing the files by which others load it."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posterion._exceptions import ModelSourceError
from posterion.text._styles import (
    Style,
    assemble,
    names_another_style,
    settings_of,
    style_named,
    style_of_tokens,
    token_text,
)

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"

COMPANION_FILES = (
    SETTINGS_FILE,
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

_ADDED = ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
_UNIGRAM = 1  # TrainerSpec.ModelType of sentencepiece_model.proto
_CONTROL_OR_USER_DEFINED = (3, 4)  # SentencePiece.Type


def read_backend(directory: Path) -> tuple[Any, Mapping[str, Any]]:
    """The tokenizer in a folder, and the settings that its files lack.

    ``tokenizer.json`` if there is one. Else the vocabulary files of a known style
    (:mod:`posterion.text._styles`). Else what ``transformers`` makes of the folder.

    Raises:
        ModelSourceError: No tokenizer in the folder, or a damaged one.
    """
    path = directory / TOKENIZER_FILE
    if path.is_file():
        return _from_json(path), {}
    settings = read_json(directory / SETTINGS_FILE)
    config = read_json(directory / "config.json")
    plain = not (directory / "added_tokens.json").is_file()
    plain = plain and not any(settings.get(name) for name in _ADDED)
    if not plain or names_another_style(settings, config):
        return _convert(directory), {}
    style = style_named(settings, config)
    found = _read_vocabulary(directory, style)
    if found is None:
        return _convert(directory), {}
    model, style, extra = found
    try:
        backend = assemble(style, model, {**settings, **extra})
    except ModelSourceError as error:
        raise ModelSourceError(f"{directory}: {error}") from error
    return backend, {**settings_of(style), **settings}


def write_backend(backend: Any, directory: Path) -> None:
    """Write ``tokenizer.json``; readers see the old file or the new one, whole."""
    partial = directory / f".{TOKENIZER_FILE}.{os.getpid()}.partial"
    partial.write_text(backend.to_str(), encoding="utf-8")
    os.replace(partial, directory / TOKENIZER_FILE)


def write_vocabulary(backend: Any, settings: Mapping[str, Any], directory: Path) -> None:
    """Write the vocabulary in its own format, and the settings, where the files are absent.

    A unigram vocabulary has no format of its own here: ``tokenizer.json`` holds it.
    """
    kind = type(backend.model).__name__
    name = {"BPE": "merges.txt", "WordPiece": "vocab.txt"}.get(kind)
    if name and not (directory / name).is_file():
        _write_model(backend.model, directory)
    path = directory / SETTINGS_FILE
    if not path.is_file():
        text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def _write_model(model: Any, directory: Path) -> None:
    """Write a vocabulary's files, each whole or not at all.

    Raises:
        OSError: They cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=".vocabulary-") as new:
        try:
            files = model.save(new)
        except Exception as error:  # The library has no class for it.
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(directory)) from error
        for file in files:
            os.replace(file, directory / Path(file).name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file.

    Raises:
        ModelSourceError: The file is not JSON.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ModelSourceError(f"{path}: not readable JSON ({error})") from error
    return values if isinstance(values, dict) else {}


def pad_id(settings: Mapping[str, Any], config: Mapping[str, Any], backend: Any) -> int:
    """The padding token's id: as configured, else by its usual names, else the end's."""
    for token in (settings.get("pad_token"), "[PAD]", "<pad>", settings.get("eos_token")):
        found = backend.token_to_id(token_text(token)) if token else None
        if found is not None:
            return int(found)
    configured = config.get("pad_token_id")
    return configured if isinstance(configured, int) else 0


def mask_token(settings: Mapping[str, Any], backend: Any) -> str | None:
    """The token that hides a word: as configured, else by its usual names, else none."""
    for token in (settings.get("mask_token"), "[MASK]", "<mask>"):
        text = token_text(token) if token else None
        if text is not None and backend.token_to_id(text) is not None:
            return text
    return None


def padding_side(
    settings: Mapping[str, Any], config: Mapping[str, Any]
) -> Literal["left", "right"]:
    """Where batches are filled: as configured, else as the architecture was trained."""
    style = style_named(settings, config)
    side = settings.get("padding_side") or (style.padding_side if style else "right")
    return "left" if side == "left" else "right"


def _from_json(path: Path) -> Any:
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_file(str(path))
    except Exception as error:
        # The Rust library raises bare Exception for whatever is wrong with the file.
        raise ModelSourceError(
            f"{path}: not a readable tokenizer ({error}); copy the checkpoint again"
        ) from error


def _read_vocabulary(
    directory: Path, style: Style | None
) -> tuple[Any, Style, dict[str, Any]] | None:
    """Model, style and what only the vocabulary file knows; ``None`` if no file fits."""
    merges, spiece = directory / "merges.txt", directory / "spiece.model"
    if (style is None or style.kind == "bpe") and merges.is_file():
        model, tokens = _read_bpe(directory / "vocab.json", merges)
        style = style or style_of_tokens(tokens, "bpe")
        return (model, style, {}) if style else None
    if (style is None or style.kind == "wordpiece") and (directory / "vocab.txt").is_file():
        model, tokens = _read_wordpiece(directory / "vocab.txt")
        style = style or style_of_tokens(tokens, "wordpiece")
        return (model, style, {}) if style else None
    if (style is None or style.kind == "unigram") and spiece.is_file():
        return _read_unigram(spiece, style)
    return None


def _read_bpe(vocabulary: Path, merges: Path) -> tuple[Any, Mapping[str, int]]:
    from tokenizers import models

    try:
        tokens, pairs = models.BPE.read_file(str(vocabulary), str(merges))
        return models.BPE(vocab=tokens, merges=pairs), tokens
    except Exception as error:
        raise ModelSourceError(
            f"{vocabulary} and {merges.name}: not a vocabulary with its merges ({error}); copy "
            "both again"
        ) from error


def _read_wordpiece(path: Path) -> tuple[Any, Mapping[str, int]]:
    from tokenizers import models

    try:
        tokens = models.WordPiece.read_file(str(path))
        unknown = "[UNK]" if "[UNK]" in tokens else "<unk>"
        return models.WordPiece(vocab=tokens, unk_token=unknown), tokens
    except Exception as error:
        raise ModelSourceError(
            f"{path}: not a WordPiece vocabulary ({error}); copy it again"
        ) from error


def _read_unigram(path: Path, style: Style | None) -> tuple[Any, Style, dict[str, Any]] | None:
    """A ``spiece.model`` of SentencePiece, by the protocol buffer that ``transformers`` has."""
    from tokenizers import models

    try:
        from transformers.utils import sentencepiece_model_pb2_new as protocol
    except ImportError as error:
        raise ModelSourceError(
            f"{path}: needs protobuf to be read ({error}); pip install protobuf, or add a "
            f"{TOKENIZER_FILE}"
        ) from error
    proto = protocol.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:
        raise ModelSourceError(
            f"{path}: not a SentencePiece model ({error}); copy it again"
        ) from error
    if proto.trainer_spec.model_type != _UNIGRAM or not proto.pieces:
        raise ModelSourceError(
            f"{path}: a SentencePiece model of type {proto.trainer_spec.model_type} with "
            f"{len(proto.pieces)} pieces; only unigram ones (type {_UNIGRAM}) can be read"
        )
    pieces = [(piece.piece, _score(piece)) for piece in proto.pieces]
    style = style or style_of_tokens(
        {piece: row for row, (piece, _) in enumerate(pieces)}, "unigram"
    )
    if style is None:
        return None
    charsmap = bytes(proto.normalizer_spec.precompiled_charsmap)
    extra = {"precompiled_charsmap": charsmap} if charsmap else {}
    return models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id), style, extra


def _score(piece: Any) -> float:
    """A piece's logarithmic probability.

    Of the file's 32 bits the shortest decimal is taken, since ``tokenizer.json`` gives that back
    exactly, and not always one of 17 digits.

    XLNet and ALBERT never let a comma stick to the digit before it. Their own code splits such
    pieces again; a score that no path through smaller pieces falls below does the same.
    """
    text = piece.piece
    apart = len(text) > 1 and text[-1] == "," and text[-2].isdigit()
    return float(str(np.float32(piece.score))) - (100.0 if apart else 0.0)


def _convert(directory: Path) -> Any:
    if not any((directory / name).is_file() for name in COMPANION_FILES):
        raise ModelSourceError(
            f"{directory}: no tokenizer here; expected {TOKENIZER_FILE}, or vocabulary files "
            "that can be converted"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        return tokenizer.backend_tokenizer
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise ModelSourceError(
            f"{directory}: its tokenizer cannot be converted ({error}); add a {TOKENIZER_FILE}"
        ) from error
