"""The models against `transformers`: forward and training step, tokens per second and memory.

Both sides hold the same weights of base width (768, 12 heads, 3072 in the feed-forward layers) and
see the same batches in one process, in turns; `transformers` with each of its attention
implementations, of which the fastest counts. A training step is a forward and a backward pass
of a classifier in training mode (dropout 0.1), without an optimizer. Rates count real tokens,
medians over rounds with quartiles. Times are processor seconds with one thread, which other load on
the machine disturbs least, and wall-clock seconds with more or on an accelerator.

By default the processes run as Python starts them, as someone has it who changes an import. With
`--keep-memory` glibc keeps freed memory, as in the platform's training workers: otherwise every
step faults its large arrays in again, which costs the side more that makes more of them.

    python benchmarks/models.py                                 # everything, in a child each
    python benchmarks/models.py --only xlnet/512 --threads 1    # what contains this text
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _models_picture import draw

MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_MMAP_THRESHOLD_": "8000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What `--keep-memory` sets."""
RESULTS = Path(__file__).parent / "results" / "models.json"
ARCHITECTURES = ("bert", "roberta", "distilbert", "albert", "xlnet")
KINDS = ("64", "128", "512", "mix")
VOCABULARY = 8000
ROWS_OF_MIX = 16


@dataclass(frozen=True)
class Case:
    """One cell of the table."""

    architecture: str
    kind: str
    """Tokens of every text, or ``mix``: log-normal lengths as they come, median 96, 512 at most."""
    precision: str
    mode: str
    """``forward`` or ``training``; ``pretraining``: XLNet's two streams, 85 targets a text."""

    @property
    def name(self) -> str:
        """Key in the results."""
        return f"{self.architecture}/{self.kind}/{self.precision}/{self.mode}"


def cases() -> Iterator[Case]:
    """The whole table."""
    for architecture in ARCHITECTURES:
        for kind in KINDS:
            for precision in ("fp32", "bf16"):
                for mode in ("forward", "training"):
                    yield Case(architecture, kind, precision, mode)
                # In bf16 the reference's query stream fails.
                if architecture == "xlnet" and kind == "512" and precision == "fp32":
                    yield Case(architecture, kind, precision, "pretraining")


def configuration(architecture: str, layers: int) -> Any:
    """Base width, few layers: layers are alike, so ratios are those of the whole model."""
    import transformers

    width, heads, inner = 768, 12, 3072
    if architecture == "xlnet":
        return transformers.XLNetConfig(
            vocab_size=VOCABULARY,
            d_model=width,
            n_head=heads,
            d_inner=inner,
            n_layer=layers,
            use_mems_eval=False,  # a classifier has no use for the memory it would return
        )
    if architecture == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=VOCABULARY, dim=width, n_heads=heads, hidden_dim=inner, n_layers=layers
        )
    name = {"bert": "BertConfig", "roberta": "RobertaConfig", "albert": "AlbertConfig"}
    return getattr(transformers, name[architecture])(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_hidden_layers=layers,
        max_position_embeddings=514,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )


def batches(case: Case, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Padded batches, and in how many tokens they really hold."""
    import numpy as np
    import torch

    generator = np.random.default_rng(0)
    made = []
    for _ in range(rounds):
        if case.kind == "mix":
            lengths = np.exp(generator.normal(np.log(96), 0.8, ROWS_OF_MIX)).astype(int)
            lengths = lengths.clip(8, 512)
        else:
            lengths = np.full(max(1, tokens // int(case.kind)), int(case.kind))
        longest = int(lengths.max())
        mask = torch.arange(longest)[None] < torch.from_numpy(lengths)[:, None]
        if case.architecture == "xlnet":
            mask = mask.flip(1)  # its tokenizer pads on the left
        ids = torch.from_numpy(generator.integers(10, VOCABULARY, tuple(mask.shape)))
        batch = {"input_ids": torch.where(mask, ids, 0)}
        if case.architecture == "roberta":
            batch["input_ids"] = torch.where(mask, ids, 1)
        if case.kind == "mix":
            batch["attention_mask"] = mask.long()
        if case.mode == "pretraining":
            batch.update(permuted(len(lengths), longest))
        made.append(batch)
    return made


def permuted(rows: int, length: int) -> dict[str, Any]:
    """A random order in which the last 85 tokens of each text are predicted."""
    import torch

    num_targets = length // 6
    order = torch.rand(rows, length, generator=torch.Generator().manual_seed(0)).argsort(1)
    rank = order.argsort(1)
    targets = order[:, -num_targets:].contiguous()
    return {
        "perm_mask": (rank[:, :, None] <= rank[:, None, :]).float(),
        "target_mapping": torch.nn.functional.one_hot(targets, length).float(),
        "labels": targets,
    }


def build(case: Case, layers: int, device: str) -> dict[str, Any]:
    """The sides, with equal weights."""
    import torch
    import transformers

    import posterion.models

    transformers.utils.logging.set_verbosity_error()
    family = type(configuration(case.architecture, 1)).__name__.removesuffix("Config")
    head = "LMHeadModel" if case.mode == "pretraining" else "ForSequenceClassification"
    torch.manual_seed(0)
    ours = getattr(posterion.models, family + head)(configuration(case.architecture, layers))
    sides = {"posterion": ours}
    reference = getattr(transformers, family + head)
    for implementation in ("sdpa", "eager"):
        if implementation == "sdpa" and not reference._supports_sdpa:
            continue
        config = configuration(case.architecture, layers)
        config._attn_implementation = implementation
        sides[f"transformers {implementation}"] = reference(config)
        sides[f"transformers {implementation}"].load_state_dict(ours.state_dict())
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    return {name: side.to(device, dtype) for name, side in sides.items()}


def step(model: Any, batch: dict[str, Any], case: Case) -> None:
    """One forward pass, or forward and backward."""
    import torch

    train = case.mode != "forward"
    model.train(train)
    with torch.inference_mode(not train):
        output = model(**batch)
    if train:
        loss = output.loss if case.mode == "pretraining" else output.logits.float().pow(2).mean()
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None


def placed(batch: dict[str, Any], case: Case, device: str) -> dict[str, Any]:
    """On the device, masks in the model's type."""
    import torch

    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in batch.items()
    }


def real_tokens(batch: dict[str, Any]) -> int:
    """Tokens that are not padding."""
    mask = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if mask is None else mask.sum())


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates of all sides, in turns."""
    import torch

    torch.set_num_threads(arguments.threads)
    device = arguments.device
    alone = arguments.threads == 1 and device == "cpu"
    clock = time.process_time if alone else time.perf_counter
    wait: Callable[[], None] = torch.cuda.synchronize if device != "cpu" else lambda: None
    sides = build(case, arguments.layers, device)
    data = [placed(each, case, device) for each in batches(case, arguments.tokens, 4)]
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(-1, arguments.rounds):
        batch = data[round_number % len(data)]
        for name, side in sides.items():
            wait()
            started = clock()
            step(side, batch, case)
            wait()
            if round_number >= 0:
                rates[name].append(real_tokens(batch) / (clock() - started))
    found: dict[str, Any] = {}
    for name, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4)
        found[name] = {"tokens_per_second": middle, "lower_quartile": low, "upper_quartile": high}
    best = max(
        (name for name in sides if name != "posterion"),
        key=lambda name: found[name]["tokens_per_second"],
    )
    paired = [a / b for a, b in zip(rates["posterion"], rates[best], strict=True)]
    low, middle, high = statistics.quantiles(paired, n=4)
    found["ratio"] = {"to": best, "median": middle, "lower_quartile": low, "upper_quartile": high}
    if case.mode == "training" and device != "cpu":
        found["share_of_peak"] = share_of_peak(sides["posterion"], case, found, device)
    return found


def share_of_peak(model: Any, case: Case, found: dict[str, Any], device: str) -> float:
    """Model FLOPs of the training step against a measured product of large matrices."""
    import torch

    a = torch.randn(8192, 8192, device=device, dtype=next(model.parameters()).dtype)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    peak = 10 * 2 * 8192**3 / (time.perf_counter() - started)
    length = 140.0 if case.kind == "mix" else float(case.kind)
    needed = 3 * model.base_model.flops_per_token(length)
    return float(needed * found["posterion"]["tokens_per_second"] / peak)


def memory(case: Case, side: str, arguments: argparse.Namespace) -> float:
    """MiB that one step takes beyond the model; in a process of its own."""
    import torch

    torch.set_num_threads(arguments.threads)
    sides = build(case, arguments.layers, arguments.device)
    model = sides.pop(side)
    sides.clear()
    batch = placed(batches(case, arguments.tokens, 1)[0], case, arguments.device)
    if arguments.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, batch, case)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # What building the sides took and gave back is filled first, so that the peak is the step's.
    status = Path("/proc/self/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    slack = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    filler = torch.ones(max(1, slack * 1024 // 4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(model, batch, case)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del filler
    return (after - before) / 1024


def in_child(arguments: argparse.Namespace, case: Case, *extra: str) -> Any:
    """Measure one case in a fresh process and return its JSON."""
    command = [sys.executable, __file__, "--case", case.name, *extra]
    for name in ("threads", "rounds", "tokens", "layers", "device"):
        command += [f"--{name}", str(getattr(arguments, name))]
    # Memory is measured as it is asked for: glibc's default gives it back at once.
    settings = MALLOC if arguments.keep_memory and "--memory" not in extra else {}
    environment = {**os.environ, **settings, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def everything(arguments: argparse.Namespace) -> None:
    """Measure the table, keeping each cell as soon as it is there."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    key = f"{arguments.device}, {arguments.threads} threads"
    key += ", memory kept" if arguments.keep_memory else ""
    table = found.setdefault(key, {"cases": {}})
    import torch

    table["conditions"] = {
        "layers": arguments.layers,
        "rounds": arguments.rounds,
        "tokens": arguments.tokens,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    chosen = [case for case in cases() if any(part in case.name for part in arguments.only)]
    started = time.monotonic()
    for number, case in enumerate(chosen, start=1):
        cell = in_child(arguments, case)
        if case.mode != "forward" and case.kind in ("512", "mix") and not arguments.keep_memory:
            cell["memory_mib"] = {
                side: round(in_child(arguments, case, "--memory", side))
                for side in ("posterion", cell["ratio"]["to"])
            }
        table["cases"][case.name] = cell
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
        left = (time.monotonic() - started) / number * (len(chosen) - number)
        rate = cell["posterion"]["tokens_per_second"]
        ratio = cell["ratio"]
        print(
            f"{case.name:34}{rate:10,.0f} tokens/s  x {ratio['median']:.2f} "
            f"({ratio['lower_quartile']:.2f}-{ratio['upper_quartile']:.2f}) {ratio['to']}"
            f"  {cell.get('memory_mib', '')}  {left / 60:.0f} min left",
            flush=True,
        )
    draw(found, RESULTS.with_suffix(".svg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048, help="of a batch of equal lengths")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name contains one")
    parser.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is None:
        everything(arguments)
        return
    case = Case(*arguments.case.split("/"))
    print(json.dumps(memory(case, arguments.memory, arguments) if arguments.memory else
                     measure(case, arguments)))  # fmt: skip


if __name__ == "__main__":
    main()
