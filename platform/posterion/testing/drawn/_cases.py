"""One drawn call of one drawn model.

Shapes: B texts, N answers to choose from, L tokens, P tokens in a cache, E the width of an
embedding.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from posterion.testing._model_family import random_model
from posterion.testing.drawn._labels import draw_labels

ExtraInputs = Callable[[str, Any, dict[str, Any]], "st.SearchStrategy[dict[str, Any]]"]


@dataclass(frozen=True, kw_only=True)
class ModelCase:
    """One call of one model."""

    class_name: str
    """Of the model, as ``transformers`` names it."""
    config: Any
    """Its configuration, without dropout."""
    inputs: dict[str, Any]
    """Keyword arguments of the call."""
    training: bool
    """Whether the model is in training mode."""
    attention: str
    """How the reference computes attention: ``"eager"`` or ``"sdpa"``."""
    seed: int
    """Seed of the weights."""

    def __repr__(self) -> str:
        """Everything needed to see which case failed; tensors as shapes."""
        inputs = {
            name: f"{value.dtype}{list(value.shape)}" if isinstance(value, torch.Tensor) else value
            for name, value in self.inputs.items()
        }
        fields = self.config.to_diff_dict()
        mode = "train" if self.training else "eval"
        return f"{self.class_name}({fields}), {mode}, {self.attention}, {self.seed=}, {inputs}"

    def build(self, model_class: Any) -> Any:
        """A model of ``model_class`` with random weights, in the case's mode."""
        config = type(self.config).from_dict(self.config.to_dict())
        model = random_model(model_class, config, seed=self.seed, attention=self.attention)
        return model.train(self.training)


@st.composite
def model_cases(
    draw: st.DrawFn,
    configs: st.SearchStrategy[Any],
    model_classes: Sequence[Any],
    *,
    extra_inputs: ExtraInputs | None = None,
    only_eager: bool = False,
) -> ModelCase:
    """Draw a class, a configuration and inputs that fit it.

    Args:
        draw: Given by ``hypothesis``.
        configs: Strategy of configurations.
        model_classes: Reference classes to draw from; which inputs they take is read from the
            signature of ``forward``, what their labels are from the class name.
        extra_inputs: Called with class name, configuration and the inputs so far; a strategy
            of the inputs to use instead.
        only_eager: The reference has no other attention, no masks of (B, 1, L, L), and does not
            choose hidden states by number.
    """
    model_class = draw(st.sampled_from(list(model_classes)))
    config = draw(configs)
    name = model_class.__name__
    _fit_to_head(draw, name, config)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    accepted = set(inspect.signature(model_class.forward).parameters)
    shape = _draw_shape(draw, name)
    inputs = _draw_texts(draw, name, config, accepted, shape, generator)
    square = not only_eager and len(shape) == 2
    inputs.update(_draw_mask(draw, config, inputs, shape, square, generator))
    inputs.update(draw_labels(draw, name, config, inputs, shape, generator))
    if getattr(config, "is_decoder", False):
        _leave_out_blind_tokens(name, inputs)
    if extra_inputs is not None:
        inputs = draw(extra_inputs(name, config, inputs))
    _draw_decoder_inputs(draw, config, accepted, inputs, generator)
    flags = _draw_flags(draw, [] if only_eager else _numbers_of_states(config))
    eager = only_eager or "output_attentions" in flags
    kinds = ["eager"] if eager else ["sdpa", "sdpa", "eager"]
    attention = draw(st.sampled_from(kinds))
    if attention == "eager" and "attention_mask" in inputs:
        inputs["attention_mask"] = _additive(inputs["attention_mask"])
    return ModelCase(
        class_name=name,
        config=config,
        inputs={**inputs, **flags},
        training=draw(st.booleans()),
        attention=attention,
        seed=draw(st.integers(0, 2**20)),
    )


def _fit_to_head(draw: st.DrawFn, name: str, config: Any) -> None:
    if "QuestionAnswering" in name or name.endswith("ForPreTraining"):
        config.num_labels = 2
    if name.endswith(("LMHeadModel", "ForCausalLM")) and hasattr(config, "is_decoder"):
        config.is_decoder = draw(st.sampled_from([True, True, True, False]))
        config.add_cross_attention = config.is_decoder and draw(st.booleans())


def _additive(mask: torch.Tensor) -> torch.Tensor:
    # Plain arithmetic adds a mask of (B, 1, L, L) to the scores, whatever its type.
    if mask.dim() < 4 or mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min)


def _numbers_of_states(config: Any) -> list[Any]:
    """Ways to choose some of the hidden states."""
    # Where a group of ALBERT holds several layers, transformers counts from the end as if it
    # held one: its -1 is a state in the middle.
    several = getattr(config, "inner_group_num", 1) > 1
    return [0, [1]] if several else [0, -1, [0, -1], [1]]


def _draw_flags(draw: st.DrawFn, numbers_of_states: list[Any]) -> dict[str, Any]:
    states = [None, None, True, True, False, *numbers_of_states]
    flags = {
        "output_hidden_states": draw(st.sampled_from(states)),
        "output_attentions": draw(st.sampled_from([None, None, None, True])),
        "return_dict": draw(st.sampled_from([None, None, None, True, False])),
    }
    return {name: value for name, value in flags.items() if value is not None}


def _draw_shape(draw: st.DrawFn, name: str) -> tuple[int, ...]:
    """(B, L), or (B, N, L) where there are answers to choose from."""
    lowest = 3 if "QuestionAnswering" in name else 1
    answers = (draw(st.integers(1, 3)),) if name.endswith("MultipleChoice") else ()
    # Texts of much unlike lengths are computed in several groups.
    lengths = st.one_of(*[st.integers(lowest, 6)] * 5, st.just(40))
    return (draw(st.integers(1, 4)), *answers, draw(lengths))


def _draw_texts(
    draw: st.DrawFn,
    name: str,
    config: Any,
    accepted: set[str],
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if draw(st.sampled_from([False, False, False, True])):
        width = getattr(config, "embedding_size", config.hidden_size)
        inputs["inputs_embeds"] = torch.randn(*shape, width, generator=generator)
    else:
        inputs["input_ids"] = torch.randint(0, config.vocab_size, shape, generator=generator)
    if "token_type_ids" in accepted and draw(st.booleans()):
        kinds = getattr(config, "type_vocab_size", 3)
        inputs["token_type_ids"] = torch.randint(0, kinds, shape, generator=generator)
    if "position_ids" in accepted and draw(st.sampled_from([False, False, True])):
        # DistilBERT of transformers does not take one row of positions per answer.
        one_row = name == "DistilBertForMultipleChoice" or draw(st.booleans())
        rows = (1, shape[-1]) if one_row else shape
        positions = config.max_position_embeddings
        inputs["position_ids"] = torch.randint(0, positions, rows, generator=generator)
    return inputs


def _draw_mask(
    draw: st.DrawFn,
    config: Any,
    inputs: dict[str, Any],
    shape: tuple[int, ...],
    square: bool,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Nothing, a mask of a kind of padding, or (B, 1, L, L) of the tokens that see each other."""
    kinds = ["none", "ones", "right", "right", "left", "holes"]
    kind = draw(st.sampled_from([*kinds, "square"] if square else kinds))
    if kind == "none":
        return {}
    rows, length = math.prod(shape[:-1]), shape[-1]
    if kind == "square":
        seen = torch.rand(rows, 1, length, length, generator=generator) < 0.6
        seen |= torch.eye(length, dtype=torch.bool)
        if draw(st.booleans()):
            return {"attention_mask": seen}
        return {"attention_mask": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}
    mask = _padding(kind, rows, length, generator).reshape(shape)
    masked = {"attention_mask": mask if draw(st.booleans()) else mask.long()}
    if "input_ids" in inputs and draw(st.booleans()):
        masked["input_ids"] = inputs["input_ids"].masked_fill(~mask, config.pad_token_id)
    return masked


def _padding(kind: str, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    if kind == "ones":
        return torch.ones(rows, length, dtype=torch.bool)
    if kind == "holes":
        mask = torch.rand(rows, length, generator=generator) < 0.6
        mask[torch.arange(rows), torch.randint(0, length, (rows,), generator=generator)] = True
        return mask
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    places = torch.arange(length)[None, :]
    return places < lengths if kind == "right" else places >= length - lengths


def _leave_out_blind_tokens(name: str, inputs: dict[str, Any]) -> None:
    """Let no result of a causal model depend on padding before the first token.

    Such a token sees nothing. In plain arithmetic it attends to all alike, with a gradient that no
    derivative is; in other ways of computing attention it is something else.
    """
    mask = inputs.get("attention_mask")
    if mask is None or mask.dim() == 4:
        return
    if not name.endswith(("LMHeadModel", "ForCausalLM")):
        mask[..., 0] = 1
        return
    blind = mask.cumsum(dim=-1) == 0
    if "labels" in inputs and blind.any():
        # The first token's label is predicted from the place before it.
        unseen = blind | torch.nn.functional.pad(blind[:, :-1], (1, 0), value=True)
        inputs["labels"] = inputs["labels"].masked_fill(unseen, -100)
        if (inputs["labels"] == -100).all():
            del inputs["labels"]


def _draw_decoder_inputs(
    draw: st.DrawFn,
    config: Any,
    accepted: set[str],
    inputs: dict[str, Any],
    generator: torch.Generator,
) -> None:
    """A cache of earlier tokens, states to attend to, and how many logits to keep."""
    if not getattr(config, "is_decoder", False) or "past_key_values" not in accepted:
        return
    first = inputs["inputs_embeds" if "inputs_embeds" in inputs else "input_ids"]
    batch, length = first.shape[:2]
    if config.add_cross_attention and draw(st.sampled_from([True, True, False])):
        seen = draw(st.integers(1, 4))
        states = torch.randn(batch, seen, config.hidden_size, generator=generator)
        inputs["encoder_hidden_states"] = states
        if draw(st.booleans()):
            inputs["encoder_attention_mask"] = _padding("right", batch, seen, generator).long()
    if "logits_to_keep" in accepted and "labels" not in inputs and length > 2:
        inputs["logits_to_keep"] = draw(st.sampled_from([0, 0, 1, 2]))
    use_cache = draw(st.sampled_from([None, None, True, False]))
    if use_cache is not None:
        inputs["use_cache"] = use_cache
    mask = inputs.get("attention_mask")
    square = mask is not None and mask.dim() == 4
    if not square and "encoder_hidden_states" not in inputs and draw(st.booleans()):
        past = draw(st.integers(1, 3))
        inputs["past_key_values"] = _random_cache(config, batch, past, generator)
        if mask is not None:
            ones = mask.new_ones(batch, past)
            inputs["attention_mask"] = torch.cat([ones, mask], dim=1)


def _random_cache(config: Any, batch: int, past: int, generator: torch.Generator) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    heads = config.num_attention_heads
    shape = (batch, heads, past, config.hidden_size // heads)
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
        cache.update(keys, values, layer)
    return cache
