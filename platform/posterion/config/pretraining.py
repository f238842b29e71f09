"""Recipes of pretraining: a language model learned from running text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from posterion.config._base import Section
from posterion.config.corpus import CorpusSection, VocabularySection
from posterion.config.engine import EngineSection
from posterion.config.recipe import Probability, Recipe, TrainingRecipe

Share = Annotated[float, Field(gt=0.0, le=1.0)]


class LanguageModelSection(Section):
    """Which language model to start from."""

    source: str
    """``package:``, ``path:``, ``hub:``, ``models:``: a checkpoint, of which a head that scores the
    vocabulary is new where it has none; ``new:ARCHITECTURE`` or ``new:CONFIG_FILE``: random
    weights."""
    tokenizer: str | None = None
    """Where the tokenizer is, if not with the model: a source like ``source``. The corpus' own
    when the model is ``new:`` and this is absent."""
    config: dict[str, Any] = {}
    """Values that replace those of the model's configuration, e.g. ``hidden_size``."""
    dropout: Probability | None = None
    """Dropout of hidden states and attention; the configuration's own when absent."""


class MaskedObjective(Section):
    """Guess hidden tokens from both sides (Devlin et al. 2019, section 3.1)."""

    kind: Literal["masked"]
    share: Share = 0.15
    """How many of the tokens are to be guessed."""
    masked: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    """How many of those are hidden by the mask token."""
    replaced: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """How many become any other token; the rest stays as it is."""
    whole_words: bool = False
    """Hide all tokens of a word or none."""
    static_copies: Annotated[int, Field(ge=1)] | None = None
    """Static masking: a row has only so many masks, which take turns by epoch (BERT: 10). Absent:
    dynamic masking, each epoch its own (Liu et al. 2019, section 4.1)."""


class PermutedObjective(Section):
    """Guess tokens in a drawn order (Yang et al. 2019, section 2.2); XLNet only."""

    kind: Literal["permuted"]
    one_in: Annotated[float, Field(ge=1.0)] = 6.0
    """One of so many tokens is guessed: K of section 2.3."""
    longest_span: Annotated[int, Field(ge=0)] = 5
    """Targets lie in spans of one to so many tokens; 0: anywhere."""
    memory: Annotated[int, Field(ge=0)] = 0
    """So many first tokens of a row are permuted on their own and serve the others as memory
    (section 2.4): they do not see the others, which see all of them."""


class CausalObjective(Section):
    """Guess the next token."""

    kind: Literal["causal"]
    isolate_documents: bool = False
    """Documents of a row do not see each other."""


ObjectiveSection = MaskedObjective | PermutedObjective | CausalObjective
"""What is to be guessed; told apart by ``kind``."""


class CorpusReference(Section):
    """A packed corpus that is there already."""

    source: str
    """``path:FOLDER`` of a corpus that a corpus job built, or ``run:ID`` of that job."""


def _corpus_form(value: Any) -> str:
    named = value.get("source") if isinstance(value, Mapping) else getattr(value, "source", None)
    return "built" if named is not None else "described"


CorpusChoice = Annotated[
    Annotated[CorpusReference, Tag("built")] | Annotated[CorpusSection, Tag("described")],
    Discriminator(_corpus_form),
]
"""The corpus to learn from: one that is there, or what to build it of."""


class CorpusRecipe(Recipe):
    """Running text to a packed corpus on disk."""

    job: Literal["corpus"]
    """What to do."""
    corpus: CorpusSection
    tokenizer: str
    """Makes tokens: a source like ``model.source``, for the folder that holds it."""
    output: str | None = None
    """Folder to write; the run's ``corpus/`` when absent."""
    engine: EngineSection = EngineSection()
    """``workers`` read and pack side by side; the rest is for training."""


class VocabularyRecipe(Recipe):
    """Running text to a tokenizer."""

    job: Literal["vocabulary"]
    """What to do."""
    corpus: CorpusSection
    """Text and cleaning count; the rest is for a corpus job."""
    vocabulary: VocabularySection = VocabularySection()
    output: str | None = None
    """Folder to write; the run's ``tokenizer/`` when absent."""


class LanguageModelRecipe(TrainingRecipe):
    """A job whose model guesses words of a packed corpus."""

    shorthands: ClassVar[Mapping[str, str]] = {"objective": "kind", "corpus": "source"}

    corpus: CorpusChoice
    """A corpus that a corpus job built (``source``), or the sections of one, which is then built
    first, once for all runs that describe the same."""
    model: LanguageModelSection
    objective: Annotated[ObjectiveSection, Field(discriminator="kind")] = MaskedObjective(
        kind="masked"
    )
    """What is to be guessed: a name, or a mapping with ``kind`` and options."""

    @model_validator(mode="after")
    def _has_a_metric(self) -> Self:
        if self.evaluation.metric not in (None, *PRETRAINING_METRICS):
            raise ValueError(
                f"evaluation.metric {self.evaluation.metric!r} is not reported by pretraining; it "
                f"reports {', '.join(PRETRAINING_METRICS)}"
            )
        return self


class PretrainRecipe(LanguageModelRecipe):
    """A language model learned from a packed corpus, from scratch or from a checkpoint."""

    job: Literal["pretrain"]
    """What to do."""
    vocabulary: VocabularySection | None = None
    """A tokenizer to train first on the described corpus's text, for a ``new:`` model."""

    @model_validator(mode="after")
    def _has_text_for_its_vocabulary(self) -> Self:
        if self.vocabulary is None:
            return self
        if not isinstance(self.corpus, CorpusSection) or not self.model.source.startswith("new:"):
            raise ValueError(
                "vocabulary trains a tokenizer for a new: model on text that the section corpus "
                "describes; leave it out for a model or a corpus that has a tokenizer"
            )
        if self.model.tokenizer is not None:
            raise ValueError(
                f"vocabulary would train a tokenizer, but model.tokenizer names one "
                f"({self.model.tokenizer!r}); give one of the two"
            )
        return self


PRETRAINING_METRICS = ("perplexity", "loss", "accuracy", "sentence_loss")
"""What an evaluation on held-out text reports; the first decides unless the recipe says more."""
