"""Labels that a head takes, by the name of its class.

Shapes: B texts, N answers to choose from, L tokens, K labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

_OF_TOKENS = ("ForMaskedLM", "LMHeadModel", "ForCausalLM", "ForPreTraining")


def labels_of(
    class_name: str,
    config: Any,
    shape: tuple[int, ...],
    generator: Generator,
    *,
    counted: Tensor | None = None,
) -> dict[str, Tensor]:
    """Random labels for a model; none for a model without a head.

    Args:
        class_name: As ``transformers`` names it.
        config: ``vocab_size``, ``num_labels`` and ``problem_type`` are read.
        shape: (B, L), or (B, N, L) of a choice among N answers.
        generator: Source of the labels.
        counted: (B, L) bool, tokens whose label counts; absent, all.
    """
    batch, length = shape[0], shape[-1]
    of_tokens = class_name.endswith(_OF_TOKENS)
    if of_tokens or class_name.endswith("ForTokenClassification"):
        num = config.vocab_size if of_tokens else config.num_labels
        labels = torch.randint(0, num, (batch, length), generator=generator)
        return {"labels": labels if counted is None else labels.masked_fill(~counted, -100)}
    if class_name.endswith("ForSequenceClassification"):
        return {"labels": _text_labels(config, batch, generator)}
    if class_name.endswith("ForNextSentencePrediction"):
        return {"labels": torch.randint(0, 2, (batch,), generator=generator)}
    if class_name.endswith("ForMultipleChoice"):
        return {"labels": torch.randint(0, shape[1], (batch,), generator=generator)}
    if "QuestionAnswering" in class_name:
        return _spans(class_name, batch, length, generator)
    return {}


def pair_labels(class_name: str, batch: int, generator: Generator) -> dict[str, Tensor]:
    """The second label of pre-training: whether two segments belong together, in their order."""
    key = "sentence_order_label" if class_name.startswith("Albert") else "next_sentence_label"
    return {key: torch.randint(0, 2, (batch,), generator=generator)}


def answer_labels(batch: int, length: int, generator: Generator) -> dict[str, Tensor]:
    """What XLNet's own head learns beside the span: whether there is an answer."""
    return {
        "cls_index": torch.randint(0, length, (batch,), generator=generator),
        "is_impossible": torch.randint(0, 2, (batch,), generator=generator).float(),
    }


def _text_labels(config: Any, batch: int, generator: Generator) -> Tensor:
    num, problem = config.num_labels, config.problem_type
    if problem is None and num > 1 and int(torch.randint(0, 2, (), generator=generator)):
        problem = "multi_label_classification"
    if problem == "regression" or (problem is None and num == 1):
        return torch.randn((batch,) if num == 1 else (batch, num), generator=generator)
    if problem == "multi_label_classification":
        return torch.randint(0, 2, (batch, num), generator=generator).float()
    return torch.randint(0, num, (batch,), generator=generator)


def _spans(class_name: str, batch: int, length: int, generator: Generator) -> dict[str, Tensor]:
    # The head of XLNet's authors takes positions as they are; the plain ones leave out those
    # beyond the text.
    limit = length if class_name == "XLNetForQuestionAnswering" else length + 2
    start, end = (torch.randint(0, limit, (batch,), generator=generator) for _ in range(2))
    start[0], end[0] = 0, length - 1
    return {"start_positions": start, "end_positions": end}
