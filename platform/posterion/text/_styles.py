"""How the known architectures normalise, split and frame text.

A *style* is everything about a tokenizer except its vocabulary. The vocabulary is a model of the
`tokenizers` library; :func:`assemble` puts the two together.

========  =====================  ===================================================
style     vocabulary             single text; pair (segment ids)
========  =====================  ===================================================
roberta   byte-level BPE         ``<s> A </s>``; ``<s> A </s></s> B </s>`` (all 0)
gpt2      byte-level BPE         ``A``; ``A B``
bert      WordPiece              ``[CLS] A [SEP]``; ``[CLS] A [SEP] B [SEP]`` (0, B 1)
albert    SentencePiece unigram  as bert
xlnet     SentencePiece unigram  ``A <sep> <cls>``; ``A <sep> B <sep> <cls>`` (0, B 1, cls 2)
========  =====================  ===================================================

Sources: Radford et al. 2019 (GPT-2), section 2.2; Liu et al. 2019 (RoBERTa), section 4.4; Devlin
et al. 2019 (BERT), section 3; Lan et al. 2020 (ALBERT); Yang et al. 2019 (XLNet), section 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from posterion._exceptions import DataError, ModelSourceError

Kind = Literal["bpe", "wordpiece", "unigram"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """Everything about a tokenizer except its vocabulary."""

    name: str
    """As callers name it."""
    kind: Kind
    """Algorithm of its vocabulary."""
    tokenizer_class: str
    """Class by which ``transformers`` loads it."""
    special_tokens: tuple[str, ...]
    """The special tokens, in the order of the ids that training gives them."""
    roles: Mapping[str, str]
    """Special token of each role, e.g. ``cls_token``."""
    lower_case: bool = False
    """Whether the published models of this style lower-case."""
    padding_side: Literal["left", "right"] = "right"
    """Where batches are filled."""
    model_types: tuple[str, ...] = ()
    """Values of ``model_type`` in ``config.json`` that mean this style."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings that ``tokenizer_config.json`` has."""


_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_BERT_ROLES = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_END = "<|endoftext|>"

STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        Style(
            name="roberta",
            kind="bpe",
            tokenizer_class="RobertaTokenizer",
            special_tokens=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
            roles=_ROBERTA_ROLES,
            model_types=("roberta",),
            options={"add_prefix_space": False, "trim_offsets": True},
        ),
        Style(
            name="gpt2",
            kind="bpe",
            tokenizer_class="GPT2Tokenizer",
            special_tokens=(_END,),
            roles={"bos_token": _END, "eos_token": _END, "unk_token": _END},
            model_types=("gpt2",),
            options={"add_prefix_space": False},
        ),
        Style(
            name="bert",
            kind="wordpiece",
            tokenizer_class="BertTokenizer",
            special_tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
            roles=_BERT_ROLES,
            lower_case=True,
            model_types=("bert", "distilbert"),
        ),
        Style(
            name="albert",
            kind="unigram",
            tokenizer_class="AlbertTokenizer",
            special_tokens=("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
            roles={
                **_BERT_ROLES,
                "bos_token": "[CLS]",
                "eos_token": "[SEP]",
                "unk_token": "<unk>",
                "pad_token": "<pad>",
            },
            lower_case=True,
            model_types=("albert",),
            options={"keep_accents": False},
        ),
        Style(
            name="xlnet",
            kind="unigram",
            tokenizer_class="XLNetTokenizer",
            special_tokens=(
                *("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"),
                *("<eod>", "<eop>"),
            ),
            roles={**_ROBERTA_ROLES, "cls_token": "<cls>", "sep_token": "<sep>"},
            padding_side="left",
            model_types=("xlnet",),
            options={"keep_accents": False, "remove_space": True},
        ),
    )
}
"""The known styles by name; the first of a kind is what training takes when none is named."""


def style_of_kind(kind: str, name: str | None) -> Style:
    """The style called ``name``, or the first of its kind.

    Raises:
        DataError: Unknown kind or style, or a style of another kind.
    """
    fitting = [style for style in STYLES.values() if style.kind == kind]
    if not fitting:
        kinds = ", ".join(dict.fromkeys(style.kind for style in STYLES.values()))
        raise DataError(f"kind {kind!r}: no such tokenizer; take one of {kinds}")
    for style in fitting:
        if name in (None, style.name):
            return style
    allowed = ", ".join(style.name for style in fitting)
    raise DataError(f"style {name!r}: not a style of {kind} tokenizers; take one of {allowed}")


def style_named(settings: Mapping[str, Any], config: Mapping[str, Any]) -> Style | None:
    """The style that a checkpoint's two JSON files name; ``None`` if they name no known one."""
    class_name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    for style in STYLES.values():
        if class_name:
            if str(class_name).removesuffix("Fast") in _class_names(style):
                return style
        elif config.get("model_type") in style.model_types:
            return style
    return None


def names_another_style(settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's files name an architecture, but none of :data:`STYLES`."""
    named = settings.get("tokenizer_class") or config.get(
        "tokenizer_class", config.get("model_type")
    )
    return bool(named) and style_named(settings, config) is None


def style_of_tokens(tokens: Mapping[str, int], kind: Kind) -> Style | None:
    """The style whose special tokens are in a vocabulary; ``None`` if no style's are."""
    for style in STYLES.values():
        if style.kind == kind and all(token in tokens for token in style.roles.values()):
            return style
    return None


def assemble(style: Style, model: Any, settings: Mapping[str, Any]) -> Any:
    """A tokenizer of the `tokenizers` library out of a vocabulary and a style.

    Args:
        style: How text is normalised, split and framed.
        model: Vocabulary: a model of the `tokenizers` library of the style's kind.
        settings: What ``tokenizer_config.json`` says; overrides the style's own.

    Raises:
        ModelSourceError: The vocabulary lacks a token that the style needs.
    """
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer(model)
    settings = {**settings_of(style), **settings}
    {"bpe": _byte_level, "wordpiece": _bert, "unigram": _sentencepiece}[style.kind](
        backend, settings
    )
    roles = {name: token_text(settings[name]) for name in style.roles}
    missing = sorted({token for token in roles.values() if backend.token_to_id(token) is None})
    if missing:
        raise ModelSourceError(
            f"vocabulary of {backend.get_vocab_size()} tokens: lacks {', '.join(missing)}, which "
            f"a {style.name} tokenizer needs; name the right tokens in tokenizer_config.json"
        )
    # The published files of RoBERTa, ALBERT and XLNet let a mask token take the space before it.
    eager = style.name in ("roberta", "albert", "xlnet")
    extra = [token_text(token) for token in settings.get("extra_special_tokens", ())]
    tokens = [token for token in style.special_tokens if backend.token_to_id(token) is not None]
    backend.add_special_tokens(
        [
            AddedToken(
                token,
                lstrip=eager and token == roles.get("mask_token"),
                normalized=False,
                special=True,
            )
            for token in dict.fromkeys([*tokens, *roles.values(), *extra])
        ]
    )
    backend.post_processor = _frame(style, backend, roles, settings)
    return backend


def settings_of(style: Style) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says so that ``transformers`` loads the same tokenizer."""
    settings: dict[str, Any] = {"tokenizer_class": style.tokenizer_class, **style.roles}
    if style.kind != "bpe":
        settings["do_lower_case"] = style.lower_case
    if style.padding_side == "left":
        settings["padding_side"] = "left"
    return {**settings, **style.options}


def token_text(token: Any) -> str:
    """The text of a token that a JSON file gives as a string or as an object."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _class_names(style: Style) -> Sequence[str]:
    return (style.tokenizer_class, *(["DistilBertTokenizer"] if style.name == "bert" else []))


def _byte_level(backend: Any, settings: Mapping[str, Any]) -> None:
    from tokenizers import decoders, pre_tokenizers

    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=bool(settings.get("add_prefix_space"))
    )
    backend.decoder = decoders.ByteLevel()


def _bert(backend: Any, settings: Mapping[str, Any]) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings["do_lower_case"]),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")


def _sentencepiece(backend: Any, settings: Mapping[str, Any]) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    # `transformers` strips XLNet's accents whatever the setting says, so that is what its ids mean.
    if settings["tokenizer_class"].startswith("XLNet") or not settings.get("keep_accents"):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings["do_lower_case"]:
        steps.append(normalizers.Lowercase())
    if settings.get("precompiled_charsmap"):
        steps.append(normalizers.Precompiled(settings["precompiled_charsmap"]))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")


def _frame(
    style: Style, backend: Any, roles: Mapping[str, str], settings: Mapping[str, Any]
) -> Any:
    """What puts the special tokens around one text and around two."""
    from tokenizers import processors

    if style.name == "gpt2":
        return processors.ByteLevel(trim_offsets=False)
    cls, sep = roles["cls_token"], roles["sep_token"]
    ids = {token: backend.token_to_id(token) for token in (cls, sep)}
    if style.name == "roberta":
        return processors.RobertaProcessing(
            (sep, ids[sep]),
            (cls, ids[cls]),
            trim_offsets=bool(settings["trim_offsets"]),
            add_prefix_space=bool(settings["add_prefix_space"]),
        )
    if style.name == "xlnet":
        single = f"$A:0 {sep}:0 {cls}:2"
        pair = f"$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2"
    else:
        single = f"{cls}:0 $A:0 {sep}:0"
        pair = f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1"
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=sorted(ids.items())
    )
