"""RoBERTa's ablation at a small scale: masking, sentence pairs, rows, batch size, one at a time.

Trains the recipes ``pretraining/ablation-*`` for as many tokens each, in this process, and measures
all by the same held-out rows (full sentences) with the same words hidden. The text is cut short, so
that it is seen several times, and static masking has one mask for all of them: with BERT's ten, a
short run would see none twice.

    POSTERION_DATA=/data python benchmarks/roberta_ablation.py [--megatokens 0.6] [--seeds 0]

Source: Liu et al. 2019, "RoBERTa", section 4.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("POSTERION_DATA", HERE.parent.parent / "shared" / "data"))
BASELINE = "dynamic"
VARIANTS = (BASELINE, "static", "next-sentence", "doc-sentences", "large-batch")


def train(variant: str, seed: int, options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Train one variant; measure it on the baseline's held-out rows."""
    from posterion.config import find_recipe
    from posterion.tasks import load_recipe
    from posterion.training import held_out_rows, perplexity_of
    from posterion_jobs import pretrain

    name = find_recipe(f"pretraining/ablation-{variant}")
    recipe: Any = load_recipe(name)
    step_tokens = recipe.optimization.batch_tokens * recipe.optimization.accumulation
    steps = round(options.megatokens * 1e6 / step_tokens)
    recipe = load_recipe(
        name,
        (
            f"seed={seed}",
            f"optimization.max_steps={steps}",
            "optimization.epochs=1000",
            f"corpus.text.limit_megabytes={options.megabytes}",
            *(["objective.static_copies=1"] if variant == "static" else []),
            f"evaluation.every_steps={steps}",
            "engine.workers=0",
        ),
    )
    begun = time.monotonic()
    outcome = pretrain.run(recipe, home / f"{variant}-{seed}")
    baseline: Any = load_recipe(find_recipe(f"pretraining/ablation-{BASELINE}"))
    table = held_out_rows(outcome.version_dir / "model", baseline_corpus(home, seed), baseline)
    return {
        "variant": variant,
        "seed": seed,
        "steps": steps,
        "seconds": time.monotonic() - begun,
        **perplexity_of(table),
    }


def baseline_corpus(home: Path, seed: int) -> Path:
    """The corpus of full sentences, built by the baseline's run."""
    stage = home / f"{BASELINE}-{seed}" / "stages" / "corpus.json"
    return Path(json.loads(stage.read_text())["dir"])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Perplexity of each variant, one dot a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([row["perplexity"] for row in rows], [row["variant"] for row in rows], "o")
    axes.invert_yaxis()
    axes.set_xlabel("held-out perplexity (less is better)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megatokens", type=float, default=0.6, help="that each variant sees")
    parser.add_argument("--megabytes", type=int, default=1, help="of text")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "roberta_ablation.json")
    options = parser.parse_args()
    os.environ["POSTERION_DATA"] = str(DATA)
    import torch

    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["POSTERION_HOME"] = name
        for seed in options.seeds:
            for variant in VARIANTS:
                rows.append(train(variant, seed, options, Path(name)))
                print(json.dumps(rows[-1]), flush=True)
    summary = {
        variant: statistics.mean(row["perplexity"] for row in rows if row["variant"] == variant)
        for variant in VARIANTS
    }
    result = {
        "when": time.strftime("%Y-%m-%d"),
        "megatokens": options.megatokens,
        "megabytes": options.megabytes,
        "perplexity": summary,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, options.output.with_suffix(".svg"))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
