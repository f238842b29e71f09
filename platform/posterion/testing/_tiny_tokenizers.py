"""Tokenizers of a few hundred tokens, one of each kind, built in place.

Every word of the vocabulary is one token; all other lower-case ASCII text falls into characters
or bytes, so that nothing needs the unknown token.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
_WORD_SCORE, _CHARACTER_SCORE = -4.0, -12.0
"""Log-probabilities of a unigram vocabulary: one word beats the characters it is made of."""

_BERT_ROLES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def write_tokenizer(
    directory: Path, architecture: str, vocabulary: Sequence[str], max_length: int
) -> Any:
    """Write the tokenizer that an architecture's checkpoints come with.

    Args:
        directory: Gets ``tokenizer.json``, ``tokenizer_config.json`` and, where the kind has one,
            the vocabulary in its own format.
        architecture: As in ``model_type``.
        vocabulary: Words that become one token each.
        max_length: What ``tokenizer_config.json`` names as the longest input.

    Returns:
        The tokenizer, of the ``tokenizers`` library.
    """
    tokenizer, settings = _BUILDERS[architecture](vocabulary)
    tokenizer.add_special_tokens(
        list(dict.fromkeys([*settings.values(), *_FURTHER.get(architecture, ())]))
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    if type(tokenizer.model).__name__ != "Unigram":
        tokenizer.model.save(str(directory))
    settings = {
        "tokenizer_class": _CLASSES[architecture],
        "model_max_length": max_length,
        **settings,
    }
    if architecture in ("albert", "bert", "distilbert"):
        settings["do_lower_case"] = True
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer


def _wordpiece(vocabulary: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """BERT's: ``[CLS] A [SEP]``."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    pieces = [*_CHARACTERS, *(f"##{character}" for character in _CHARACTERS)]
    tokens = dict.fromkeys([*_BERT_ROLES.values(), *pieces, *vocabulary])
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _frame(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]"))
    return tokenizer, dict(_BERT_ROLES)


def _byte_level(vocabulary: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """RoBERTa's: ``<s> A </s>``. Each word grows from its left, after a space and without."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for space in ("Ġ", ""):
        for word in vocabulary:
            text = space + word
            merges |= {(text[:end], text[end]): None for end in range(1, len(text))}
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = dict.fromkeys([*special, *alphabet, *map("".join, merges), "<mask>"])
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False
    )
    return tokenizer, {**_ROBERTA_ROLES, "cls_token": "<s>", "sep_token": "</s>"}


def _albert(vocabulary: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """``[CLS] A [SEP]`` around a unigram vocabulary, lower case."""
    roles = {**_BERT_ROLES, "pad_token": "<pad>", "unk_token": "<unk>"}
    special = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = _unigram(special, vocabulary, lower_case=True)
    _frame(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]"))
    return tokenizer, {**roles, "bos_token": "[CLS]", "eos_token": "[SEP]"}


def _xlnet(vocabulary: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """``A <sep> <cls>`` around a unigram vocabulary; ``<cls>`` has a segment of its own."""
    special = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>")
    tokenizer = _unigram(special, vocabulary, lower_case=False)
    _frame(tokenizer, "$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2", ("<sep>", "<cls>"))
    return tokenizer, {**_ROBERTA_ROLES, "cls_token": "<cls>", "sep_token": "<sep>"}


def _unigram(special: Sequence[str], vocabulary: Sequence[str], *, lower_case: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    scored = [(token, 0.0) for token in special]
    scored += [(piece, _CHARACTER_SCORE) for piece in ("▁", *_CHARACTERS)]
    scored += [(f"▁{word}", _WORD_SCORE) for word in dict.fromkeys(vocabulary)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=list(special).index("<unk>")))
    steps: list[Any] = [normalizers.NFKD(), normalizers.StripAccents()]
    if lower_case:
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def _frame(tokenizer: Any, single: str, pair: str, special: Sequence[str]) -> None:
    from tokenizers import processors

    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=ids
    )


_BUILDERS: dict[str, Callable[[Sequence[str]], tuple[Any, dict[str, Any]]]] = {
    "albert": _albert,
    "bert": _wordpiece,
    "distilbert": _wordpiece,
    "roberta": _byte_level,
    "xlnet": _xlnet,
}
_CLASSES = {
    "albert": "AlbertTokenizer",
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlnet": "XLNetTokenizer",
}
_FURTHER = {"xlnet": ("<eod>", "<eop>")}
"""Special tokens without a role."""
