"""Language-model losses that score the vocabulary only where a label stands.

Of a masked row 15 % of the tokens have a label. The map to the vocabulary is the largest product
of a small model, so scoring all tokens is mostly wasted; see
``docs/techniques/masked-language-modelling.md``.

Shapes: B rows, L tokens of the longest, M targets of permutation language modelling (else L),
N labels that count, C hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from posterion._exceptions import DataError, ModelSourceError
from posterion.objectives.pretraining._masking import IGNORED


@dataclass(frozen=True)
class LabelledScores:
    """What a model says where labels stand."""

    logits: Tensor
    """(N, V), in the order of the labels in their rows."""
    labels: Tensor
    """(N,)."""
    outputs: Any
    """Of the model without its heads: ``last_hidden_state`` and what else was asked for."""


@dataclass(frozen=True)
class LanguageModelLoss:
    """A loss to minimise, and its parts, which are detached."""

    loss: Tensor
    """() float32: words, plus sentences if there are any."""
    words: Tensor
    """() mean cross entropy of the labels in nats; its exponential is the perplexity."""
    num_labels: Tensor
    """() how many labels this batch has."""
    num_correct: Tensor
    """() at how many of them the best score is the label's."""
    sentences: Tensor | None
    """() mean cross entropy of what relates two segments."""


def word_head(model: Any) -> Callable[[Tensor], Tensor]:
    """The part of a language model that takes states (..., C) to scores (..., V).

    Args:
        model: Any of the five architectures with a language-model head, or one that has a method
            ``word_scores``.

    Raises:
        ModelSourceError: The model has no such head.
    """
    if hasattr(model, "word_scores"):
        return model.word_scores  # type: ignore[no-any-return]
    if hasattr(model, "vocab_projector"):
        return lambda hidden: _distilbert_scores(model, hidden)
    if hasattr(model, "lm_loss"):
        return model.lm_loss  # type: ignore[no-any-return]
    if callable(getattr(model, "predictions", None)):
        return model.predictions  # type: ignore[no-any-return]
    raise ModelSourceError(
        f"{type(model).__name__} has no head that scores the vocabulary; take its architecture's "
        "language model, e.g. BertForMaskedLM or XLNetLMHeadModel"
    )


def labelled_scores(
    model: Any, inputs: Mapping[str, Any], labels: Tensor, *, shift: int = 0
) -> LabelledScores:
    """Run a language model and score the vocabulary where labels stand.

    Args:
        model: See :func:`word_head`.
        inputs: Arguments of the model, without labels.
        labels: (B, M), -100 where they do not count.
        shift: 1 where each position predicts the next one's label (causal models), else 0.

    Raises:
        DataError: A label that counts on padding, whose state nothing has computed.
        ModelSourceError: The model has no such head.
    """
    head = word_head(model)
    outputs = model.base_model(**inputs, return_dict=True)
    hidden = outputs.last_hidden_state
    if shift:
        hidden, labels = hidden[:, :-shift], labels[:, shift:]
    places = (labels != IGNORED).flatten().nonzero().squeeze(1)
    _check_padding(inputs, hidden, places, shift)
    chosen = hidden.flatten(0, 1).index_select(0, places)
    return LabelledScores(head(chosen), labels.flatten().index_select(0, places), outputs)


def language_model_loss(
    model: Any,
    inputs: Mapping[str, Any],
    labels: Tensor,
    *,
    shift: int = 0,
    sentence_labels: Tensor | None = None,
    num_labels: float | Tensor | None = None,
) -> LanguageModelLoss:
    """Mean cross entropy of hidden or following words, in nats, in fp32.

    Equal, with its gradients, to the loss that the model itself gives for these labels. A batch
    without a label gives 0, not nan.

    Args:
        model: See :func:`word_head`.
        inputs: Arguments of the model, without labels.
        labels: (B, M), -100 where they do not count.
        shift: See :func:`labelled_scores`.
        sentence_labels: (B,) next sentence or sentence order: 0 right, 1 not. The model must have
            that head (``BertForPreTraining``, ``AlbertForPreTraining``).
        num_labels: What the sum is divided by: the mean number of labels of all workers' and
            micro-batches' parts of a step makes their mean the loss of the whole. This
            batch's own when absent.

    Raises:
        DataError: See :func:`labelled_scores`.
        ModelSourceError: A head is missing.
    """
    scores = labelled_scores(model, inputs, labels, shift=shift)
    count = scores.labels.new_tensor(len(scores.labels))
    logits = scores.logits.float()
    total = F.cross_entropy(logits, scores.labels, reduction="sum")
    divisor = count.clamp_min(1) if num_labels is None else num_labels
    words = total / divisor
    sentences = None
    if sentence_labels is not None:
        related = _sentence_scores(model, scores.outputs)
        sentences = F.cross_entropy(related.float(), sentence_labels)
    correct = (logits.detach().argmax(-1) == scores.labels).sum()
    return LanguageModelLoss(
        loss=words if sentences is None else words + sentences,
        words=words.detach(),
        num_labels=count,
        num_correct=correct,
        sentences=None if sentences is None else sentences.detach(),
    )


def _sentence_scores(model: Any, outputs: Any) -> Tensor:
    """(B, 2)."""
    pooled = getattr(outputs, "pooler_output", None)
    head = getattr(model, "sop_classifier", None)
    head = head or getattr(getattr(model, "cls", None), "seq_relationship", None)
    if head is None or pooled is None:
        raise ModelSourceError(
            f"{type(model).__name__} cannot tell whether segments follow each other; take "
            "BertForPreTraining or AlbertForPreTraining, or leave sentence labels out"
        )
    return head(pooled)  # type: ignore[no-any-return]


def _distilbert_scores(model: Any, hidden: Tensor) -> Tensor:
    hidden = model.activation(model.vocab_transform(hidden))
    return model.vocab_projector(model.vocab_layer_norm(hidden))  # type: ignore[no-any-return]


def _check_padding(inputs: Mapping[str, Any], hidden: Tensor, places: Tensor, shift: int) -> None:
    mask = inputs.get("attention_mask")
    if mask is None or mask.dim() != 2 or inputs.get("target_mapping") is not None:
        return
    mask = mask[:, : mask.shape[1] - shift]
    on_padding = mask.flatten().index_select(0, places) == 0
    if bool(on_padding.any()):
        place = int(places[on_padding][0])
        raise DataError(
            f"labels: row {place // hidden.shape[1]} has one at position "
            f"{place % hidden.shape[1] + shift}, which attention_mask calls padding; label real "
            f"tokens only, and give {IGNORED} elsewhere"
        )
