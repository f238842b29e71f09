"""What every architecture must do, from the names of its parameters to generated text."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from posterion.testing._model_family import (
    LENGTHS,
    ModelFamily,
    accepts,
    assert_close,
    padding_mask,
    reference_class,
)
from posterion.testing._model_files import check_loading, check_round_trip
from posterion.testing._model_generation import check_generation
from posterion.testing._model_training import (
    check_bf16,
    check_checkpointing,
    check_compilation,
    check_dropout,
    check_zero3,
)
from posterion.testing._parity import check_model_parity


def check_model(family: ModelFamily, directory: Path) -> None:
    """Run every check of :data:`MODEL_CHECKS`; any broken promise fails an assertion.

    Args:
        family: The architecture.
        directory: Empty folder to write into.
    """
    for name, check in MODEL_CHECKS.items():
        folder = directory / name
        folder.mkdir(parents=True)
        check(family, folder)


def check_names(family: ModelFamily, directory: Path) -> None:
    """Classes, parameters and arguments are called as in ``transformers``; no head is absent."""
    module = sys.modules[reference_class(family.encoder).__module__]
    expected = {name for name in module.__all__ if _is_model(getattr(module, name), name)}
    given = {model.__name__ for model in family.models}
    assert given == expected, f"models that only one side has: {sorted(given ^ expected)}"
    for model_class in family.models:
        theirs = reference_class(model_class)
        arguments = [
            list(inspect.signature(each.forward).parameters) for each in (model_class, theirs)
        ]
        named = [[name for name in names if "kwargs" not in name] for names in arguments]
        assert named[0][: len(named[1])] == named[1], (
            f"{model_class.__name__}.forward takes {named[0]} instead of {named[1]}"
        )
        for attribute in ("base_model_prefix", "config_class"):
            values = [getattr(each, attribute) for each in (model_class, theirs)]
            assert values[0] == values[1], f"{attribute} is {values[0]} instead of {values[1]}"
        ours, reference = family.build(model_class), family.reference(model_class)
        shapes = [
            {name: tuple(value.shape) for name, value in model.state_dict().items()}
            for model in (ours, reference)
        ]
        assert shapes[0] == shapes[1], f"{model_class.__name__}: weights differ"
        tied = [set(model.all_tied_weights_keys) for model in (ours, reference)]
        assert tied[0] == tied[1], f"{model_class.__name__} ties {tied[0]} instead of {tied[1]}"
        for part in ("get_input_embeddings", "get_output_embeddings"):
            found = [_name_of(getattr(model, part)(), model) for model in (ours, reference)]
            assert found[0] == found[1], f"{part} gives {found[0]} instead of {found[1]}"


def check_parity(family: ModelFamily, directory: Path) -> None:
    """Outputs and gradients of every model equal the reference's, however texts are padded."""
    for model_class in family.models:
        for padding in ("none", "right", "left"):
            for labels in (True, False):
                ours, reference = family.pair(model_class)
                inputs = family.inputs(model_class, padding, labels=labels)
                check_model_parity(ours.train(), reference.train(), inputs)


def check_padding(family: ModelFamily, directory: Path) -> None:
    """Padding is not computed: what passes a linear map or a norm is as many rows as tokens."""
    for model_class in (family.encoder, family.head("ForSequenceClassification")):
        model = family.build(model_class)
        model.config.use_mems_eval = False
        encoder = model.base_model
        rows: dict[str, int] = {}
        for name, module in encoder.named_modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.register_forward_pre_hook(_count_rows(rows, name))
        # What stands for the text is the last token of XLNet: pad where no result needs it.
        side = "left" if getattr(model, "summary_at", "first") == "last" else "right"
        with torch.no_grad():
            model(**family.inputs(model_class, side))
        assert rows, "no linear map and no norm of the encoder was called as a module"
        most = max(rows.values())
        assert most == sum(LENGTHS), (
            f"{model_class.__name__} computes {most} rows for {sum(LENGTHS)} tokens "
            f"({max(rows, key=lambda name: rows[name])})"
        )


def check_independence(family: ModelFamily, directory: Path) -> None:
    """A text's states do not depend on padding, its side and amount, nor on its neighbours."""
    model = family.build(family.encoder)
    ids = family.inputs(family.encoder, "none")["input_ids"]
    texts = [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]
    alone = [model(text[None]).last_hidden_state[0] for text in texts]
    for side in ("right", "left"):
        for more in (0, 4):
            for order in ((0, 1, 2), (2, 0), (1,)):
                chosen = tuple(LENGTHS[index] for index in order)
                batch, mask = _padded([texts[index] for index in order], chosen, side, more, family)
                options = _own_positions(model, mask)
                states = model(batch, attention_mask=mask.long(), **options).last_hidden_state
                for row, index in enumerate(order):
                    what = f"text {index} of {order}, {side} padding, {more} more"
                    assert_close(states[row][mask[row]], alone[index], what)


def check_resizing(family: ModelFamily, directory: Path) -> None:
    """``resize_token_embeddings`` does to every model what it does to the reference."""
    for model_class in family.models:
        for change in (5, -3):
            ours, reference = family.pair(model_class)
            size = family.config.vocab_size + change
            for model in (ours, reference):
                model.resize_token_embeddings(size, mean_resizing=False)
                sizes = (model.config.vocab_size, model.get_input_embeddings().num_embeddings)
                assert sizes == (size, size), f"{model_class.__name__}: {sizes} words, not {size}"
            inputs = family.inputs(model_class, "right", labels=True)
            inputs["input_ids"] = inputs["input_ids"].clamp(max=size - 1)
            if inputs.get("labels") is not None and inputs["labels"].dim() == 2:
                inputs["labels"] = inputs["labels"].clamp(max=size - 1)
            check_model_parity(ours, reference, inputs)


MODEL_CHECKS: MappingProxyType[str, Callable[[ModelFamily, Path], None]] = MappingProxyType(
    {
        "names": check_names,
        "parity": check_parity,
        "round_trip": check_round_trip,
        "loading": check_loading,
        "padding": check_padding,
        "independence": check_independence,
        "resizing": check_resizing,
        "dropout": check_dropout,
        "checkpointing": check_checkpointing,
        "bf16": check_bf16,
        "compilation": check_compilation,
        "zero3": check_zero3,
        "generation": check_generation,
    }
)
"""Every check by its name: called with the architecture and an empty folder."""


def _is_model(value: Any, name: str) -> bool:
    is_module = isinstance(value, type) and issubclass(value, nn.Module)
    return is_module and "PreTrained" not in name and not name.endswith(("Layer", "Block"))


def _arguments(model_class: Any) -> list[str]:
    parameters = inspect.signature(model_class.forward).parameters.values()
    return [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]


def _name_of(part: nn.Module | None, model: nn.Module) -> str | None:
    return next((name for name, module in model.named_modules() if module is part), None)


def _count_rows(rows: dict[str, int], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows[name] = max(rows.get(name, 0), arguments[0].numel() // arguments[0].shape[-1])

    return hook


def _padded(
    texts: list[Tensor], lengths: tuple[int, ...], side: str, more: int, family: ModelFamily
) -> tuple[Tensor, Tensor]:
    mask = padding_mask(lengths, side)
    extra = torch.zeros(len(texts), more, dtype=torch.bool)
    mask = torch.cat([mask, extra] if side == "right" else [extra, mask], dim=1)
    batch = torch.full(mask.shape, family.config.pad_token_id)
    batch[mask] = torch.cat(texts)
    return batch, mask


def _own_positions(model: Any, mask: Tensor) -> dict[str, Tensor]:
    """Positions that count a text's own tokens, for models that count from the left edge."""
    if not accepts(model, "position_ids"):
        return {}
    # RoBERTa counts on from the id of padding.
    first = model.config.pad_token_id + 1 if model.config.model_type == "roberta" else 0
    return {"position_ids": first + (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
