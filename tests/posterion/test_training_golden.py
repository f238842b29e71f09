"""A fixed recipe's loss curve per architecture, kept in ``tests/golden``: changed on purpose only.

Dropout is on, so the curve also pins the order of random draws. One thread and fp32, so that
sums are taken in one order; what remains between processors (other vector widths in the
matrix products) stays within the tolerance. After a wanted change, write it anew:

    POSTERION_WRITE_GOLDEN=1 pytest tests/posterion/test_training_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from posterion.testing import TINY_ARCHITECTURES, tiny_training
from posterion.training import SoloGang, fit

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPE = {
    "optimization.epochs": 2,
    "optimization.layer_decay": 0.9,
    "optimization.accumulation": 2,
    "optimization.schedule": "cosine",
    "engine.precision": "fp32",
}
FIGURES = ("loss", "gradient_norm", "learning_rate")


@pytest.mark.parametrize("architecture", TINY_ARCHITECTURES)
def test_loss_curve_is_the_known_one(architecture: str, tmp_path: Path):
    golden = GOLDEN / f"training_loss_{architecture}.json"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = fit(tiny_training(tmp_path, RECIPE, architecture=architecture), SoloGang())
    finally:
        torch.set_num_threads(threads)
    history = json.loads(result.history_path.read_text())
    found = {name: history[name] for name in FIGURES}
    found["rmse"] = [evaluation["metrics"]["rmse"] for evaluation in history["evaluations"]]
    if os.environ.get("POSTERION_WRITE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1) + "\n")
    expected = json.loads(golden.read_text())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
