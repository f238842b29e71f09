"""Labels of every kind of head, drawn by the name of its class.

Shapes: B texts, N answers to choose from, L tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

if TYPE_CHECKING:
    from torch import Generator, Tensor

_OF_TOKENS = ("ForMaskedLM", "LMHeadModel", "ForCausalLM", "ForPreTraining")


def draw_labels(
    draw: st.DrawFn, name: str, config: Any, inputs: dict[str, Any], generator: Generator
) -> dict[str, Any]:
    """Labels for a model of the class ``name``, or none."""
    if not draw(st.sampled_from([True, True, False])):
        return {}
    first = inputs.get("input_ids")
    first = inputs["inputs_embeds"][..., 0] if first is None else first
    batch, length = first.shape[0], first.shape[-1]
    if name.endswith(_OF_TOKENS):
        labels = _token_labels(draw, config.vocab_size, (batch, length), inputs, generator)
        more = _pair_labels(draw, name, batch, generator)
        return {"labels": labels, **more}
    if name.endswith("ForTokenClassification"):
        size = (batch, length)
        return {"labels": _token_labels(draw, config.num_labels, size, inputs, generator)}
    if name.endswith("ForSequenceClassification"):
        return {"labels": _text_labels(config, batch, generator)}
    if name.endswith("ForNextSentencePrediction"):
        return {"labels": torch.randint(0, 2, (batch,), generator=generator)}
    if name.endswith("ForMultipleChoice"):
        return {"labels": torch.randint(0, first.shape[1], (batch,), generator=generator)}
    if "QuestionAnswering" in name:
        return _spans(draw, name, batch, length, generator)
    return {}


def _token_labels(
    draw: st.DrawFn, num: int, shape: tuple[int, int], inputs: dict[str, Any], generator: Generator
) -> Tensor:
    """Labels of tokens: of all, of a part, or of the real ones; one at least."""
    labels = torch.randint(0, num, shape, generator=generator)
    kind = draw(st.sampled_from(["all", "part", "real", "part of the real"]))
    counted = torch.ones(shape, dtype=torch.bool)
    if "part" in kind:
        counted &= torch.rand(shape, generator=generator) < 0.5
    mask = inputs.get("attention_mask")
    if "real" in kind and mask is not None and mask.dim() == 2:
        counted &= mask.bool()
    if not counted[:, 1:].any():
        counted[:, -1] = True
        counted[:, :1] = True
    return labels.masked_fill(~counted, -100)


def _pair_labels(draw: st.DrawFn, name: str, batch: int, generator: Generator) -> dict[str, Tensor]:
    if not name.endswith("ForPreTraining") or not draw(st.sampled_from([True, True, False])):
        return {}
    key = "sentence_order_label" if name.startswith("Albert") else "next_sentence_label"
    return {key: torch.randint(0, 2, (batch,), generator=generator)}


def _text_labels(config: Any, batch: int, generator: Generator) -> Tensor:
    num, problem = config.num_labels, config.problem_type
    if problem is None and num > 1 and int(torch.randint(0, 2, (), generator=generator)):
        problem = "multi_label_classification"
    if problem == "regression" or (problem is None and num == 1):
        return torch.randn((batch,) if num == 1 else (batch, num), generator=generator)
    if problem == "multi_label_classification":
        return torch.randint(0, 2, (batch, num), generator=generator).float()
    return torch.randint(0, num, (batch,), generator=generator)


def _spans(
    draw: st.DrawFn, name: str, batch: int, length: int, generator: Generator
) -> dict[str, Tensor]:
    # XLNet's own head takes positions as they are; the plain ones leave out those past the end.
    own = name.endswith("XLNetForQuestionAnswering")
    beyond = 0 if own else 2
    start = torch.randint(0, length + beyond, (batch,), generator=generator)
    end = torch.randint(0, length + beyond, (batch,), generator=generator)
    start[0], end[0] = 0, length - 1
    labels = {"start_positions": start, "end_positions": end}
    if own and draw(st.booleans()):
        labels["cls_index"] = torch.randint(0, length, (batch,), generator=generator)
        labels["is_impossible"] = torch.randint(0, 2, (batch,), generator=generator).float()
    return labels
