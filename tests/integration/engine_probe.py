"""Trains a small model with the engine, as groups of workers: ``engine_probe.py PLAN.json``.

The plan is a list of groups, one after the other: ``{"world_size": 2, "cases": [...]}``. Each
worker is forked from this process, which has everything imported, and goes through the cases
in order: build an engine, load, train some steps, save. What the cases say: :func:`run_case`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from posterion import PosterionError
from posterion.config import EngineSection, OptimizationSection
from posterion.training import TorchGang
from posterion.training._deepspeed import import_deepspeed
from posterion.training._engine import Engine
from posterion.training._frozen_engine import FrozenEngine
from posterion.training._groups import parameter_groups

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "sizes": (11, 5, 7),
    "rows": 16,
    "micro_batches": 4,  # with three workers, two make an idle pass
    "engine": {},
    "save": {},
    "output": "dict",
    "checkpointing": False,
}


@dataclass
class Output:
    """What DeepSpeed does not look into."""

    logits: Tensor


class Probe(nn.Module):
    """Tied, frozen, odd-sized and tiny parameters, and a buffer."""

    def __init__(self, sizes: tuple[int, int, int], *, output: str, checkpointing: bool) -> None:
        super().__init__()
        vocabulary, width, hidden = sizes
        self.embedding = nn.Embedding(vocabulary, width)
        self.frozen = nn.Linear(width, width)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width, bias=False)
        self.output = nn.Linear(width, vocabulary)
        self.output.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scratch", torch.ones(width), persistent=False)
        self.frozen.requires_grad_(False)
        self.kind = output
        self.checkpointing = checkpointing

    def forward(self, token_ids: Tensor) -> dict[str, Tensor] | Output:
        states = self.embedding(token_ids)
        if self.checkpointing:
            states = states + checkpoint(self.block, states, use_reentrant=False)
        else:
            states = states + self.block(states)
        logits = self.output(states + (self.shift * self.scratch).to(states.dtype))
        return {"logits": logits} if self.kind == "dict" else Output(logits)

    def block(self, states: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(self.frozen(states)))) * self.scale


def probe(case: dict[str, Any]) -> Probe:
    torch.manual_seed(case["seed"])
    model = Probe(tuple(case["sizes"]), output=case["output"], checkpointing=case["checkpointing"])
    model.shift.normal_()
    return model


def build(case: dict[str, Any]) -> Engine:
    model = probe(case)
    optimization = OptimizationSection(learning_rate=0.02, layer_decay=0.9, gradient_clipping=0.5)
    groups = parameter_groups(
        model.named_parameters(),
        layer_of=lambda name: int(not name.startswith("embedding")),
        num_layers=1,
        optimization=optimization,
    )
    options = {"zero": case["zero"], "precision": case["precision"], **case["engine"]}
    section = EngineSection(**options)
    return Engine(model, groups, engine=section, optimization=optimization, gang=TorchGang())


def train_step(engine: Engine, step: int, case: dict[str, Any]) -> list[float]:
    """Loss of the whole step and gradient norm, the same on every worker."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    micro_batches = case["micro_batches"]
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(case["sizes"][0], (case["rows"], 9), generator=generator)
    parts = rows.chunk(micro_batches)
    rounds = -(-micro_batches // world_size)
    total = torch.zeros(1, dtype=torch.float64)
    for index in range(rounds):
        number = rank + index * world_size
        weight = 1.0 if number < micro_batches else 0.0
        loss = loss_of(engine, parts[min(number, micro_batches - 1)])
        total += float(loss.detach()) * weight
        engine.backward(loss * (weight / micro_batches))
    norm = engine.step(1.0)
    torch.distributed.all_reduce(total)
    return [float(total) / micro_batches, norm]


def loss_of(engine: Engine, tokens: Tensor) -> Tensor:
    output = engine.forward(tokens[:, :-1])
    logits = output.logits if isinstance(output, Output) else output["logits"]
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Build an engine, load a checkpoint, train, save.

    Keys: ``zero``, ``precision``, ``engine`` (further fields), ``load`` (folder), ``first`` and
    ``last`` step, ``save`` (folder by step after which to write), and those of ``DEFAULTS``.
    """
    engine = build(case)
    if "load" in case:
        engine.load(Path(case["load"]))
    losses = []
    for step in range(case["first"], case["last"] + 1):
        if str(step) in case["save"]:
            engine.save(Path(case["save"][str(step)]))
        if step < case["last"]:
            losses.append(train_step(engine, step, case))
    whole = engine.full_precision_model()
    weights = {} if whole is None else whole.state_dict()
    sums = {name: value.double().sum().item() for name, value in weights.items()}
    return {"losses": losses, "state": sums, "rounded": rounded(engine, whole)}


def run_frozen(case: dict[str, Any]) -> dict[str, Any]:
    """What a frozen model computes on each worker, and the memory of its weights.

    Keys: ``frozen`` (the engine's arguments) and those of ``DEFAULTS``.
    """
    engine = FrozenEngine(probe(case), gang=TorchGang(), **case["frozen"])
    generator = torch.Generator().manual_seed(torch.distributed.get_rank())
    outputs = []
    for _ in range(2):
        rows = torch.randint(case["sizes"][0], (case["rows"], 9), generator=generator)
        logits = engine.forward(rows)["logits"]
        assert not logits.requires_grad
        outputs.append(logits.float())
    told = torch.stack([value.double().sum() for value in outputs])
    torch.distributed.all_reduce(told)
    return {
        "sums": told.tolist(),
        "first": outputs[0].flatten()[:50].tolist(),
        "weight_bytes": engine.weight_bytes,
    }


def rounded(engine: Engine, whole: nn.Module | None) -> bool:
    """Whether the weights of the passes are the rounded master weights."""
    import deepspeed

    same = True
    expected = {} if whole is None else dict(whole.named_parameters())
    for name, parameter in engine.model.named_parameters():
        sharded = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(sharded):
            if whole is not None:
                same &= torch.equal(parameter.detach().cpu(), expected[name].to(parameter.dtype))
    return same


def work(group: dict[str, Any], rank: int, meeting_point: str) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    world_size = group["world_size"]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=world_size
    )
    results = []
    for case in group["cases"]:
        try:
            run = run_frozen if "frozen" in case else run_case
            results.append(run({**DEFAULTS, **case}))
        except PosterionError as error:
            results.append({"error": f"{type(error).__name__}: {error}"})
    if rank == 0:
        Path(group["results"]).write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def main(plan: Path) -> int:
    torch.set_num_threads(1)
    import_deepspeed()
    for group in json.loads(plan.read_text()):
        meeting_point = str(plan.with_name(f"meeting-{uuid.uuid4().hex}"))
        children = []
        for rank in range(group["world_size"]):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    work(group, rank, meeting_point)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        if any(os.waitpid(child, 0)[1] for child in children):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
