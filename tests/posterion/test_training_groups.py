from __future__ import annotations

import pytest
import torch
from torch import nn

from posterion.config import OptimizationSection
from posterion.training._groups import parameter_groups

SHAPES = {
    "bert.embeddings.word.weight": (4, 2),
    "bert.encoder.layer.0.dense.weight": (2, 2),
    "bert.encoder.layer.0.dense.bias": (2,),
    "bert.encoder.layer.1.dense.weight": (2, 2),
    "bert.encoder.layer.1.LayerNorm.weight": (2,),
    "head.weight": (1, 2),
    "head.bias": (1,),
}
LAYERS = {"bert.embeddings": 0, "bert.encoder.layer.0": 1, "bert.encoder.layer.1": 2, "head": 3}


def layer_of(name: str) -> int:
    return next(layer for prefix, layer in LAYERS.items() if name.startswith(prefix))


def groups(**settings: float):
    parameters = [(name, nn.Parameter(torch.zeros(shape))) for name, shape in SHAPES.items()]
    return parameter_groups(
        parameters,
        layer_of=layer_of,
        num_layers=2,
        optimization=OptimizationSection(**settings),  # type: ignore[arg-type]
    )


def rate_of(found, name: str) -> float:
    return next(group.learning_rate for group in found if name in group.names)


def test_without_layer_decay_there_are_two_groups():
    found = groups(learning_rate=1e-3, weight_decay=0.1)
    assert [group.weight_decay for group in found] == [0.0, 0.1]
    assert all(group.learning_rate == 1e-3 for group in found)


def test_vectors_do_not_decay_and_nothing_is_lost():
    found = groups(layer_decay=0.5, weight_decay=0.1)
    names = [name for group in found for name in group.names]
    assert sorted(names) == sorted(SHAPES)
    for group in found:
        assert {len(SHAPES[name]) > 1 for name in group.names} == {group.weight_decay > 0}


def test_layers_decay_from_the_top():
    found = groups(learning_rate=1e-3, layer_decay=0.5)
    assert rate_of(found, "head.weight") == 1e-3
    assert rate_of(found, "bert.encoder.layer.1.dense.weight") == 1e-3
    assert rate_of(found, "bert.encoder.layer.0.dense.weight") == pytest.approx(5e-4)
    assert rate_of(found, "bert.embeddings.word.weight") == pytest.approx(2.5e-4)


def test_head_rate_stands_apart_and_comes_last():
    found = groups(learning_rate=1e-3, head_learning_rate=1e-2)
    assert found[-1].learning_rate == 1e-2
    assert rate_of(found, "head.bias") == 1e-2
    assert rate_of(found, "bert.encoder.layer.1.dense.weight") == 1e-3


def test_frozen_parameters_are_left_out():
    frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    found = parameter_groups(
        [("head.weight", frozen)],
        layer_of=layer_of,
        num_layers=2,
        optimization=OptimizationSection(),
    )
    assert found == []
