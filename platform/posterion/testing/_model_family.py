"""What an architecture brings to its contract test.

Shapes: B texts, N answers to choose from, L tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterion.testing._labels import labels_of, pair_labels

LENGTHS = (34, 3, 6)
"""Tokens of the texts that the checks use: unlike enough to be computed in several groups."""


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """An architecture under test: its models and a tiny configuration.

    The reference of a model is the class of the same name in ``transformers``.
    """

    encoder: Any
    """Class of the model without a head."""
    heads: tuple[Any, ...]
    """Classes of the models with one."""
    config: Any
    """A configuration of a few thousand parameters, with dropout; room for 44 positions."""
    decoder: Any = None
    """The head that writes text with ``generate``, if any."""

    @property
    def models(self) -> tuple[Any, ...]:
        """All classes, the encoder first."""
        return (self.encoder, *self.heads)

    @property
    def dropouts(self) -> tuple[str, ...]:
        """Fields of the configuration that hold a dropout rate."""
        return tuple(name for name in self.config.to_dict() if "dropout" in name)

    def head(self, suffix: str) -> Any:
        """The model whose class name ends with ``suffix``."""
        return next(model for model in self.heads if model.__name__.endswith(suffix))

    def config_of(self, model_class: Any, **changes: Any) -> Any:
        """A copy of the configuration that fits a head; without dropout unless given."""
        config = type(self.config).from_dict(self.config.to_dict())
        for name in self.dropouts:
            setattr(config, name, 0.0)
        config.num_labels = 2 if _has_two_labels(model_class.__name__) else 3
        if model_class is self.decoder and hasattr(config, "is_decoder"):
            config.is_decoder = True
        for name, value in changes.items():
            setattr(config, name, value)
        return config

    def build(self, model_class: Any, *, seed: int = 0, **changes: Any) -> Any:
        """A model with random weights, in evaluation mode; ``changes`` of its configuration."""
        return random_model(model_class, self.config_of(model_class, **changes), seed=seed).eval()

    def reference(self, model_class: Any, **changes: Any) -> Any:
        """The same of ``transformers``, with other random weights, computing in plain steps."""
        theirs = reference_class(model_class)
        config = self.config_of(model_class, **changes)
        return random_model(theirs, config, seed=1, attention="eager").eval()

    def pair(self, model_class: Any, **changes: Any) -> tuple[Any, Any]:
        """A model and its reference with equal weights, in evaluation mode."""
        reference = self.reference(model_class, **changes)
        ours = self.build(model_class, **changes)
        # Padding that sees nothing has another state in either way of computing attention.
        ours.set_attn_implementation(reference.config._attn_implementation)
        ours.load_state_dict(reference.state_dict())
        return ours, reference

    def inputs(
        self, model_class: Any, padding: str = "right", *, labels: bool = False, seed: int = 0
    ) -> dict[str, Tensor]:
        """A batch of texts of :data:`LENGTHS`, padded at one side, or of equal length.

        Args:
            model_class: Decides on labels, and on answers to choose from.
            padding: ``"right"``, ``"left"`` or ``"none"``.
            labels: Add labels; those of padding do not count.
            seed: Seed of ids and labels.
        """
        generator = torch.Generator().manual_seed(seed)
        name, longest = model_class.__name__, max(LENGTHS)
        answers = (2,) if name.endswith("MultipleChoice") else ()
        shape = (len(LENGTHS), *answers, longest)
        # Ids below 6 are special in one architecture or another.
        ids = torch.randint(6, self.config.vocab_size, shape, generator=generator)
        inputs = {"input_ids": ids}
        if padding != "none":
            mask = padding_mask(LENGTHS, padding).view(len(LENGTHS), *(1,) * len(answers), longest)
            mask = mask.expand(shape)
            inputs["input_ids"] = ids.masked_fill(~mask, self.config.pad_token_id)
            inputs["attention_mask"] = mask.long()
        if labels:
            counted = inputs["attention_mask"].bool() if padding != "none" else None
            counted = None if answers else counted
            config = self.config_of(model_class)
            inputs.update(labels_of(name, config, shape, generator, counted=counted))
            if name.endswith("ForPreTraining"):
                inputs.update(pair_labels(name, shape[0], generator))
        return inputs


def reference_class(model_class: Any) -> Any:
    """The class of the same name in ``transformers``."""
    import transformers

    name = model_class.__name__
    assert hasattr(transformers, name), f"transformers has no {name}; public names must be equal"
    return getattr(transformers, name)


def random_model(
    model_class: Any, config: Any, *, seed: int, attention: str | None = None
) -> torch.nn.Module:
    """A model whose parameters are all random, biases and scales of norms too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {} if attention is None else {"attn_implementation": attention}
        model: torch.nn.Module = model_class._from_config(config, **options)
        randomize(model)
    return model


def randomize(model: torch.nn.Module) -> None:
    """Give every trained parameter a value that its initialisation would not.

    Zero biases and unit scales would hide that they are left out.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dim() > 1:
                parameter.normal_(0.0, math.sqrt(1 / max(parameter.shape)))
            else:
                centre = 1.0 if name.lower().endswith("norm.weight") else 0.0
                parameter.normal_(centre, 0.2)


def padding_mask(lengths: tuple[int, ...], side: str) -> Tensor:
    """(B, L) bool, true at tokens."""
    places, longest = torch.arange(max(lengths))[None, :], max(lengths)
    wanted = torch.tensor(lengths)[:, None]
    return places < wanted if side == "right" else places >= longest - wanted


def accepts(model: Any, argument: str) -> bool:
    """Whether ``forward`` has an argument of this name."""
    return argument in inspect.signature(type(model).forward).parameters


def differentiable(output: Any) -> Tensor:
    """A number that depends on the whole output of a model: its loss, or a sum of squares."""
    if getattr(output, "loss", None) is not None:
        loss: Tensor = output.loss
        return loss
    return torch.stack(
        [value.float().pow(2).sum() for value in output.to_tuple() if isinstance(value, Tensor)]
    ).sum()


def gradients_of(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of every parameter that the output depends on."""
    model.zero_grad()
    torch.autograd.backward(differentiable(model(**inputs)))
    return {
        name.removeprefix("_orig_mod."): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_close(mine: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Equal up to ``tolerance``, relative to the largest value where that is over 1."""
    assert mine.shape == expected.shape, f"{what}: shape {mine.shape} instead of {expected.shape}"
    difference = float((mine.detach().double() - expected.detach().double()).abs().max())
    scale = max(1.0, float(expected.detach().abs().max()))
    assert difference <= tolerance * scale, f"{what}: differs by {difference:.3g} at {scale:.3g}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random state set, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _has_two_labels(name: str) -> bool:
    return "QuestionAnswering" in name or name.endswith("ForPreTraining")
