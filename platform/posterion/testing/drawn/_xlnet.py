"""Configurations of XLNet, and the inputs that no other architecture has.

Shapes: B texts, L tokens, M tokens of memory, P predicted tokens, D the width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers
from hypothesis import strategies as st

from posterion.testing.drawn._configs import _problem, _sizes


@st.composite
def xlnet_configs(draw: st.DrawFn) -> Any:
    """Configurations of :class:`transformers.XLNetModel`."""
    sizes = draw(_sizes())
    return transformers.XLNetConfig(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["hidden_size"],
        n_layer=sizes["num_hidden_layers"],
        n_head=sizes["num_attention_heads"],
        d_inner=sizes["intermediate_size"],
        ff_activation=draw(st.sampled_from(["gelu", "relu", "silu", "gelu_new"])),
        attn_type=draw(st.sampled_from(["bi", "bi", "uni"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        dropout=0.0,
        summary_last_dropout=0.0,
        mem_len=draw(st.sampled_from([None, 0, 3, 512])),
        reuse_len=draw(st.sampled_from([None, None, 2])),
        use_mems_eval=draw(st.booleans()),
        use_mems_train=draw(st.booleans()),
        bi_data=draw(st.sampled_from([False, False, False, True])),
        clamp_len=draw(st.sampled_from([-1, -1, 2])),
        same_length=draw(st.booleans()),
        summary_type=draw(st.sampled_from(["last", "last", "first", "mean", "cls_index"])),
        summary_use_proj=draw(st.booleans()),
        summary_activation=draw(st.sampled_from(["tanh", "tanh", "gelu"])),
        start_n_top=draw(st.integers(1, 2)),
        end_n_top=draw(st.integers(1, 2)),
        pad_token_id=draw(st.sampled_from([0, 3, 5])),
        tie_word_embeddings=draw(st.sampled_from([True, True, False])),
        **draw(_problem()),
    )


@st.composite
def xlnet_inputs(draw: st.DrawFn, class_name: str, config: Any, inputs: dict[str, Any]) -> Any:
    """Add memory, a permutation and its targets to drawn inputs; change the mask's kind."""
    first = inputs.get("input_ids")
    first = inputs["inputs_embeds"] if first is None else first
    shape = first.shape[:3] if class_name.endswith("MultipleChoice") else first.shape[:2]
    batch, length = int(math.prod(shape[:-1])), shape[-1]
    if config.bi_data and batch % 2:
        config.bi_data = False
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    # With attn_type "uni" the mask of transformers has one row for all texts.
    masked = config.attn_type == "bi" or batch == 1
    if not masked:
        inputs.pop("attention_mask", None)
    _change_mask(draw(st.sampled_from(["long", "float", "input_mask"])), inputs)
    if draw(st.sampled_from([False, False, True])):
        past = draw(st.integers(1, 3))
        inputs["mems"] = [
            torch.randn(past, batch, config.d_model, generator=generator)
            for _ in range(config.n_layer)
        ]
    use_mems = draw(st.sampled_from([None, None, True, False]))
    if use_mems is not None:
        inputs["use_mems"] = use_mems
    if class_name.endswith("MultipleChoice"):
        return inputs
    if masked and draw(st.booleans()):
        inputs["perm_mask"] = _permutation(batch, length, generator, draw(st.booleans()))
    # A predicted token that sees nothing attends to all alike. From left to right, the gradient
    # that transformers then gives comes from positions that the text does not have.
    blind = config.attn_type == "uni" and {"attention_mask", "input_mask", "perm_mask"} & set(
        inputs
    )
    if class_name in ("XLNetModel", "XLNetLMHeadModel") and not blind and draw(st.booleans()):
        _add_targets(draw, batch, length, config, inputs, generator)
    return inputs


def _change_mask(kind: str, inputs: dict[str, Any]) -> None:
    mask = inputs.get("attention_mask")
    if mask is None:
        return
    if kind == "input_mask":
        del inputs["attention_mask"]
        inputs["input_mask"] = 1.0 - mask.float()
    else:
        # transformers subtracts the mask from 1, which a bool tensor does not allow.
        inputs["attention_mask"] = mask.float() if kind == "float" else mask.long()


def _permutation(batch: int, length: int, generator: torch.Generator, strict: bool) -> Any:
    """(B, L, L): 1 where a token may not see another; of a random order, or random entries."""
    if not strict:
        return (torch.rand(batch, length, length, generator=generator) < 0.3).float()
    order = torch.stack([torch.randperm(length, generator=generator) for _ in range(batch)])
    return (order[:, :, None] <= order[:, None, :]).float()


def _add_targets(
    draw: st.DrawFn,
    batch: int,
    length: int,
    config: Any,
    inputs: dict[str, Any],
    generator: torch.Generator,
) -> None:
    predicted = draw(st.sampled_from([number for number in (1, 2, 3) if number != length]))
    targets = torch.randint(0, length, (batch, predicted), generator=generator)
    inputs["target_mapping"] = torch.nn.functional.one_hot(targets, length).float()
    if "labels" in inputs:
        inputs["labels"] = torch.randint(
            0, config.vocab_size, (batch, predicted), generator=generator
        )
