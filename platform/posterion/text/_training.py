"""Training tokenizers: the same texts in the same order give the same tokenizer.

The trainers are those of the `tokenizers` library. Byte-level BPE of it is reproducible as it is.
The other two are not, because they walk through hash tables whose order differs from process to
process, and so are put right here:

- WordPiece numbers the continuations (``##x``) in the order of such a walk, and ties between
  pairs are broken by those numbers, so even the set of tokens differs. Here every word gets a
  mark before its first character and BPE is trained on that: what begins with the mark begins a
  word, all else continues one. Nothing in that depends on a walk.
- Unigram sums probabilities in the order of such a walk. Pieces come out the same, their scores
  to about 1e-10, and characters that no sentence needed in an arbitrary order. Scores are rounded
  to 1e-4 and equal ones put in the order of the pieces.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from posterion._exceptions import DataError
from posterion.text._files import pad_id
from posterion.text._styles import Kind, Style, assemble, settings_of, style_of_kind
from posterion.text._tokenizer import Tokenizer, check_text

_WORD_START = "\ue000"  # Private use: BERT's normalisation removes it from every text
_ALPHABET = 2**15  # More characters than the texts of a vocabulary have
_DIGITS = 4
_UNSEEN_STEP = 1e-4  # By what the trainer lowers the score of each character it does not need


def train_tokenizer(
    kind: Kind,
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    style: str | None = None,
    min_frequency: int | None = None,
    lower_case: bool | None = None,
    special_tokens: Sequence[str] = (),
) -> Tokenizer:
    """Train a tokenizer; deterministic, also across processes and numbers of threads.

    Texts are read once and never kept: memory grows with the number of different words. Where
    words are not set apart, as in Chinese, a unigram "word" is what stands between spaces and
    punctuation.

    Args:
        kind: ``bpe`` (byte-level), ``wordpiece`` or ``unigram`` (SentencePiece).
        texts: Training texts; :func:`text_lines` reads them from files.
        vocabulary_size: Most tokens the vocabulary may have, special ones included. Fewer if the
            texts do not give more.
        style: ``roberta`` or ``gpt2``, ``bert``, ``albert`` or ``xlnet``: how text is normalised
            and framed, and by which class ``transformers`` loads it. The first of the kind
            when absent.
        min_frequency: How often two tokens must stand together to be joined; 2 when absent. Not
            for ``unigram``.
        lower_case: Whether text is lower-cased and, for ``wordpiece``, loses its accents; as the
            style's published models do when absent. Not for ``bpe``.
        special_tokens: Further special tokens, after the style's own.

    Raises:
        DataError: An argument out of range, a text that is not valid, or too few texts.
    """
    chosen = style_of_kind(kind, style)
    tokens = list(dict.fromkeys([*chosen.special_tokens, *special_tokens]))
    _check_arguments(chosen, vocabulary_size, len(tokens), min_frequency, lower_case)
    settings = settings_of(chosen)
    if lower_case is not None:
        settings["do_lower_case"] = lower_case
    extra = tokens[len(chosen.special_tokens) :]
    if extra:
        settings["extra_special_tokens"] = extra
    train = {"bpe": _train_bpe, "wordpiece": _train_wordpiece, "unigram": _train_unigram}[kind]
    pairs = 2 if min_frequency is None else min_frequency
    model = train(_checked(texts), vocabulary_size, tokens, pairs, chosen, settings)
    backend = assemble(chosen, model, settings)
    return Tokenizer(
        backend,
        pad_id=pad_id(settings, {}, backend),
        settings=settings,
        padding_side=chosen.padding_side,
    )


def text_lines(paths: Iterable[Path | str]) -> Iterator[str]:
    """Lines of UTF-8 files, one after the other, with their line ends.

    Raises:
        DataError: A file that cannot be read or is not UTF-8.
    """
    for path in paths:
        try:
            with open(path, encoding="utf-8", newline="\n") as lines:
                yield from lines
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _check_arguments(
    style: Style,
    vocabulary_size: int,
    num_special: int,
    min_frequency: int | None,
    lower_case: bool | None,
) -> None:
    # Two tokens beyond the least, so that a vocabulary is more than its alphabet.
    least = num_special + (256 if style.kind == "bpe" else 2)
    if vocabulary_size < least:
        bytes_too = " and 256 bytes" if style.kind == "bpe" else ""
        raise DataError(
            f"vocabulary_size {vocabulary_size}: {num_special} special tokens{bytes_too} need at "
            f"least {least}; raise it"
        )
    if lower_case is not None and style.kind == "bpe":
        raise DataError(
            f"lower_case {lower_case}: byte-level BPE takes text as it is; lower-case the "
            "texts, or take wordpiece or unigram"
        )
    if min_frequency is not None and style.kind == "unigram":
        raise DataError(
            f"min_frequency {min_frequency}: unigram joins no pairs; leave it out, or take bpe or "
            "wordpiece"
        )
    if min_frequency is not None and min_frequency < 1:
        raise DataError(f"min_frequency {min_frequency}: must be at least 1")


def _checked(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str | bytes):
        raise DataError(f"texts {texts[:40]!r}: one text; give an iterable of texts")
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(f"row {row}: cannot train on {text!r}; give a text")
        check_text(text, f"row {row}")
        yield text


def _train_bpe(
    texts: Iterator[str],
    size: int,
    tokens: list[str],
    min_frequency: int,
    style: Style,
    settings: Mapping[str, Any],
) -> Any:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend.model


def _train_wordpiece(
    texts: Iterator[str],
    size: int,
    tokens: list[str],
    min_frequency: int,
    style: Style,
    settings: Mapping[str, Any],
) -> Any:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.normalizer = normalizers.BertNormalizer(lowercase=settings["do_lower_case"])
    words = pre_tokenizers.BertPreTokenizer()
    mark = pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="always", split=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, mark])
    # Many merges: some only join the mark to a character, and the alphabet takes room too. (The
    # trainer could limit the alphabet, but would keep any of the characters equally frequent.)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * size + _ALPHABET,
        min_frequency=min_frequency,
        special_tokens=[],
        show_progress=False,
    )
    seen: Counter[str] = Counter()
    backend.train_from_iterator(_counted(texts, seen), trainer)
    joined = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    # A character may need two tokens, so the rarest beyond half of the vocabulary get none.
    characters = _most_frequent(seen, backend.normalizer, (size - len(tokens)) // 2)
    # Chinese characters and punctuation are always words of their own and continue none.
    continuing = [c for c in characters if len(words.pre_tokenize_str(f"a{c}a")) == 1]
    continuing = [c for c in continuing if backend.normalizer.normalize_str(f"a{c}") == f"a{c}"]
    pieces = [_as_piece(token) for token, _ in joined if len(token) > 1]
    order = [*tokens, *characters, *(f"##{c}" for c in continuing), *pieces]
    vocabulary = {token: row for row, token in enumerate(list(dict.fromkeys(order))[:size])}
    return models.WordPiece(vocabulary, unk_token=settings["unk_token"])


def _counted(texts: Iterator[str], seen: Counter[str]) -> Iterator[str]:
    for text in texts:
        seen.update(text)
        yield text


def _most_frequent(seen: Counter[str], normalizer: Any, most: int) -> list[str]:
    """The most frequent characters of normalised text, in their own order."""
    counts: Counter[str] = Counter()
    for character, count in seen.items():
        for normal in normalizer.normalize_str(character):
            if not normal.isspace():
                counts[normal] += count
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sorted(character for character, _ in ranked[:most])


def _as_piece(token: str) -> str:
    return token[1:] if token.startswith(_WORD_START) else f"##{token}"


def _train_unigram(
    texts: Iterator[str],
    size: int,
    tokens: list[str],
    min_frequency: int,
    style: Style,
    settings: Mapping[str, Any],
) -> Any:
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    unknown = settings["unk_token"]
    # Only to have the style's normalisation; the vocabulary is replaced.
    seed = models.Unigram([(token, 0.0) for token in tokens], unk_id=tokens.index(unknown))
    seeded = assemble(style, seed, settings)
    backend = Backend(models.Unigram())
    backend.normalizer = seeded.normalizer
    # No piece across punctuation: without spaces it is all that divides Chinese text.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [seeded.pre_tokenizer, pre_tokenizers.Split(Regex(r"\p{P}"), "isolated")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=tokens, unk_token=unknown, show_progress=False
    )
    try:
        backend.train_from_iterator(texts, trainer)
    except Exception as error:
        # The Rust library raises bare Exception when characters outnumber the vocabulary.
        if type(error) is not Exception:
            raise
        raise DataError(
            f"vocabulary_size {size}: too few tokens for a unigram vocabulary of these texts "
            f"({error}); raise it, or leave out texts with rare characters"
        ) from error
    trained = json.loads(backend.to_str())["model"]["vocab"]
    pieces = _in_order([(piece, score) for piece, score in trained if piece not in set(tokens)])
    if not pieces:
        raise DataError("no texts to train on: give at least one with a visible character")
    entries = [*((token, 0.0) for token in tokens), *pieces]
    return models.Unigram(entries, unk_id=tokens.index(unknown))


def _in_order(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces by their rounded scores, then by themselves.

    The lowest scores belong to characters that the trainer did not need, one step apart, in the
    order of its walk; they are given to the same characters in the characters' order.
    """
    scores = {piece: round(score, _DIGITS) for piece, score in pieces}
    single = sorted((score, piece) for piece, score in scores.items() if len(piece) == 1)
    ends = (
        row
        for row, (below, above) in enumerate(pairwise(single), start=1)
        if above[0] - below[0] > 1.5 * _UNSEEN_STEP
    )
    lowest = single[: next(ends, len(single))]
    characters = sorted(piece for _, piece in lowest)
    scores.update(zip(characters, sorted((s for s, _ in lowest), reverse=True), strict=True))
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
