"""What Ray Train costs: the same training by Ray's workers and by plain `torchrun`, in turn.

Both train the same small RoBERTa by the same loop, two processes of one thread each that meet
through gloo, on the same rows. Compared are the durations of single steps after the first ten: the
median of each run, and the ratio of each round. Told too: how long workers waited for data.

    python benchmarks/ray_overhead.py [--rounds 4] [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _local_ray import start_ray

HERE = Path(__file__).resolve().parent
WARM_UP = 10
MOST_OVERHEAD, MOST_WAIT = 0.03, 0.02


def make_spec(directory: Path, steps: int, run: str, workers: int) -> Any:
    """A training of a RoBERTa of 3.5 million parameters on made-up text."""
    from posterion.config.corpus import CorpusSection
    from posterion.data.corpus import build_corpus
    from posterion.models import load_language_model, save_language_model
    from posterion.tasks import parse_recipe
    from posterion.testing import running_documents
    from posterion.text import Tokenizer, train_tokenizer
    from posterion.training import PretrainSpec

    text, corpus, model = (directory / name for name in ("text.jsonl", "corpus", "model"))
    if not text.exists():
        documents = running_documents(3000, seed=1)
        text.write_text("\n".join(json.dumps({"text": each}) for each in documents))
        train_tokenizer("bpe", documents, 4000).save(model)
        section = {
            "text": {"sources": [f"path:{text}"]},
            "packing": {"max_length": 128},
            "language": {"detect": False},
            "deduplication": {"near": False},
            "validation": 0.01,
        }
        build_corpus(CorpusSection.model_validate(section), Tokenizer.load(model), corpus)
        config = {
            "hidden_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "max_position_embeddings": 130,
        }
        tokenizer = Tokenizer.load(model)
        changes = {**config, "vocab_size": tokenizer.vocabulary_size}
        made, _ = load_language_model("new:roberta", "masked", changes=changes)
        save_language_model(made, model)
    recipe = {
        "job": "pretrain",
        "seed": 7,
        "corpus": {"source": f"path:{corpus}"},
        "model": {"source": f"path:{model}"},
        "objective": {"kind": "masked"},
        "optimization": {
            "learning_rate": 1e-3,
            "epochs": 1000,
            "max_steps": steps,
            "batch_tokens": 1024,
            "accumulation": 1 if workers else 2,
        },
        "evaluation": {"every_steps": 10 * steps},
        "engine": {
            "precision": "fp32",
            "workers": workers,
            # Spare processes start in the midst of the run, which two cores would feel.
            "spares_after_seconds": None,
        },
    }
    return PretrainSpec(
        recipe=parse_recipe(recipe).model_dump(mode="json"),
        model_dir=model,
        run_dir=directory / run,
        corpus_dir=corpus,
    )


def by_ray(directory: Path, run: str, steps: int) -> Path:
    """Train by Ray's workers; returns the file of the steps."""
    from posterion_jobs import _training
    from posterion_jobs._events import no_events
    from posterion_jobs._forward import NoTracker

    spec = make_spec(directory, steps, run, 2)
    spec.run_dir.mkdir()
    engine = spec.parsed_recipe().engine
    _training.train(spec, engine, emit=no_events, tracker=NoTracker())
    return Path(spec.run_dir / "training.jsonl")


def by_torchrun(directory: Path, run: str, steps: int) -> Path:
    """Train by two processes that ``torchrun`` starts; returns the file of the steps."""
    spec = make_spec(directory, steps, run, 0)
    spec.run_dir.mkdir()
    path, events = spec.run_dir / "spec.json", spec.run_dir / "training.jsonl"
    path.write_text(spec.to_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", "29511"]
    command += [str(HERE / "_torchrun_worker.py"), str(path), str(events)]
    subprocess.run(command, check=True, capture_output=True)
    return events


def measured(path: Path) -> dict[str, float]:
    """Median duration of a step, and the share of it spent waiting for data."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"][WARM_UP:]
    return {
        "step_seconds": statistics.median(step["seconds"] for step in steps),
        "data_wait_share": statistics.mean(step["data_wait_share"] for step in steps),
        "tokens_per_second": steps[-1]["tokens_per_second"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "ray_overhead.json")
    options = parser.parse_args()
    start_ray(2)
    import ray

    rounds = []
    with tempfile.TemporaryDirectory() as name:
        sides = {"torchrun": by_torchrun, "ray": by_ray}
        for number in range(options.rounds):
            order = list(sides) if number % 2 else list(reversed(sides))
            found = {
                side: measured(sides[side](Path(name), f"{side}-{number}", options.steps))
                for side in order
            }
            rounds.append(found)
            print(json.dumps(found), flush=True)
    ray.shutdown()
    overheads = [
        each["ray"]["step_seconds"] / each["torchrun"]["step_seconds"] - 1 for each in rounds
    ]
    waits = [each["ray"]["data_wait_share"] for each in rounds]
    result = {
        "when": time.strftime("%Y-%m-%d"),
        "steps": options.steps,
        "overhead_median": statistics.median(overheads),
        "overhead_of_rounds": overheads,
        "data_wait_share": statistics.median(waits),
        "holds": statistics.median(overheads) <= MOST_OVERHEAD
        and statistics.median(waits) <= MOST_WAIT,
        "rounds": rounds,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
