"""Sections of a corpus: text in, packed rows of tokens out; and of a vocabulary."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from posterion.config._base import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
HeldOut = Annotated[float, Field(ge=0.0, lt=1.0)]
Megabytes = Annotated[int, Field(ge=1, le=1_000_000)]


class TextSection(Section):
    """Where running text comes from, and what a document is."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    """``path:``, ``package:`` or ``hub:`` sources, each a file, a folder or a pattern such as
    ``path:books/**/*.txt``. Their order, and that of names within one, is the corpus's order."""
    format: Literal["auto", "text", "jsonl", "parquet"] = "auto"
    """``auto``: by the file's name; names that tell nothing are text. ``.gz``, ``.bz2``, ``.zst``
    and ``.lz4`` files are read as they are."""
    column: str = "text"
    """Field of jsonl and parquet that holds the text."""
    documents: Literal["auto", "file", "line", "blank_line", "heading"] = "auto"
    """What a document of plain text is: the file, each line, what blank lines part, or what a
    line ``= Title =`` begins. ``auto``: headings if the file's first line is one, else the file."""
    encoding: str = "utf-8"
    """Character encoding of text and jsonl files; a byte order mark is no text."""
    unreadable: Literal["error", "skip"] = "error"
    """A file that cannot be read, a document in another encoding, a line that is no JSON: refuse
    the corpus and name it, or leave it out and count it."""
    limit_megabytes: Megabytes | None = None
    """Read only so much of the sources, from the first on; for trials."""


class CleaningSection(Section):
    """What is done to the text of a document, and which documents are not worth learning."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation form. Control characters and invisible marks go and runs of spaces
    become one in any case; line ends are kept."""
    boilerplate: bool = False
    """Leave out, by C4's rules, lines that speak of cookies, JavaScript and terms of use, and
    documents with placeholder text; for text from the web."""
    min_characters: Annotated[int, Field(ge=1)] = 64
    """Shorter documents are left out."""
    max_characters: Annotated[int, Field(ge=1000, le=100_000_000)] = 1_000_000
    """Longer documents are cut at a line's end into documents of at most so many."""
    min_letters: Share = 0.5
    """Documents of whose visible characters a smaller share are letters are left out."""
    max_repetition: Share = 0.3
    """Documents in which a larger share of the sequences of ``deduplication.ngram`` words occur
    again are left out."""


class DeduplicationSection(Section):
    """Which documents say the same as another; see docs/techniques/corpus.md.

    Documents like one of the validation part never reach the training part, whatever is set here.
    """

    exact: bool = True
    """Of documents with equal text keep the first."""
    near: bool = True
    """Of documents that are nearly equal keep the first."""
    threshold: Annotated[float, Field(ge=0.3, le=1.0)] = 0.8
    """Least estimated share of word sequences in common for documents to be nearly equal."""
    ngram: Annotated[int, Field(ge=1, le=50)] = 5
    """Words of a sequence; a Chinese character is a word."""
    num_hashes: Annotated[int, Field(ge=16, le=1024)] = 128
    """Numbers of a document's sketch; the estimate's standard error is at most 0.5 over its root,
    and 0.035 at a similarity of 0.8 by default."""


class LanguageSection(Section):
    """Which language documents are in, by fastText's model of 176 languages."""

    detect: bool = True
    """Tag documents; the corpus's description counts them."""
    keep: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = ()
    """ISO 639 codes, e.g. ``[en, zh]``; documents in other languages are left out. All when
    empty."""
    min_confidence: Share = 0.5
    """A document whose language is less sure than this is ``und`` (undetermined)."""

    @model_validator(mode="after")
    def _can_tell(self) -> Self:
        if self.keep and not self.detect:
            raise ValueError(
                f"keep {list(self.keep)} needs languages, and detect is off; set detect: true"
            )
        return self


class PackingSection(Section):
    """How documents become rows of tokens."""

    kind: Literal["full_sentences", "doc_sentences", "next_sentence", "sentence_order"] = (
        "full_sentences"
    )
    """Whole sentences until a row is full, across documents or not (RoBERTa's two best), or
    pairs of segments: BERT's next sentence, ALBERT's sentence order."""
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] = 512
    """Tokens of the longest row, special tokens included."""
    sentences: Literal["rules", "lines"] = "rules"
    """How sentences are told apart: by punctuation, or each line is one (faster)."""
    line_breaks: Literal["space", "keep"] = "space"
    """Whether a line's end is a space to the tokenizer, or stays what it is."""
    wrong_share: Share = 0.5
    """Pairs: how many are swapped or have another second segment."""
    short_share: Share = 0.1
    """Pairs: how many are shorter than need be."""


class CorpusSection(Section):
    """Running text to packed rows on disk; see docs/techniques/corpus.md."""

    text: TextSection
    cleaning: CleaningSection = CleaningSection()
    deduplication: DeduplicationSection = DeduplicationSection()
    language: LanguageSection = LanguageSection()
    packing: PackingSection = PackingSection()
    validation: HeldOut = 0.01
    """Share of the documents held out, drawn by their content; 0 for none."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the validation part and the pairs; apart from the run's seed, so that runs with
    different seeds share a corpus."""
    split_megabytes: Megabytes = 32
    """Input that one task reads; a killed job goes on after the last whole task."""
    shard_megabytes: Megabytes = 64
    """Cleaned text that one shard holds, about; rows do not go on from shard to shard."""


class VocabularySection(Section):
    """A tokenizer to train; see docs/techniques/byte-level-bpe.md."""

    kind: Literal["byte_bpe", "wordpiece", "unigram"] = "byte_bpe"
    """Byte-level BPE (RoBERTa, GPT-2), WordPiece (BERT) or unigram (ALBERT, XLNet)."""
    size: Annotated[int, Field(ge=64, le=1_000_000)] = 30_000
    """Most tokens of the vocabulary, special ones included."""
    style: Literal["roberta", "gpt2", "bert", "albert", "xlnet"] | None = None
    """How text is normalised and framed; the first of the kind when absent."""
    min_frequency: Annotated[int, Field(ge=1)] | None = None
    """How often two tokens must stand together to be joined; 2 when absent. Not for unigram."""
    lower_case: bool | None = None
    """Whether text is lower-cased; as the style's published models do when absent."""
    special_tokens: tuple[str, ...] = ()
    """Further special tokens, after the style's own."""
    sample_megabytes: Megabytes = 1000
    """Train on documents drawn evenly from the text until there is about so much."""
