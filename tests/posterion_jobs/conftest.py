"""A fine-tuning job of seconds: a tiny encoder and a table that the test writes."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from posterion.config import Home, Recipe
from posterion.tasks import parse_recipe
from posterion.testing import TINY_WORDS, tiny_model

MOODS = {"good": 1.0, "great": 1.5, "happy": 1.0, "bad": -1.0, "awful": -1.5, "sad": -1.0}

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data.csv`` and ``encoder/``."""
    folder = tmp_path_factory.mktemp("tiny-job")
    write_ratings(folder / "data.csv", num_rows=120)
    tiny_model(folder / "encoder")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home folder."""
    monkeypatch.setenv("POSTERION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.current()


@pytest.fixture
def make_recipe(tiny_dir: Path) -> MakeRecipe:
    """A recipe for the tiny job; keywords replace whole sections."""

    def make(**sections: Mapping[str, Any]) -> Recipe:
        return parse_recipe({**tiny_recipe(tiny_dir), **sections})

    return make


def tiny_recipe(folder: Path) -> dict[str, Any]:
    """The tiny job as it would stand in a file."""
    return {
        "job": "finetune",
        "name": "tiny",
        "seed": 3,
        "task": {"kind": "regression"},
        "data": {
            "source": f"path:{folder}/data.csv",
            "max_length": 32,
            "test": {"fraction": 0.2},
            "validation": {"fraction": 0.2},
            "calibration": {"fraction": 0.3},
        },
        "model": {"source": f"path:{folder}/encoder"},
        "optimization": {"learning_rate": 3e-3, "epochs": 2, "batch_tokens": 128},
        "engine": {"precision": "fp32"},
    }


def write_ratings(path: Path, *, num_rows: int) -> None:
    """Made-up texts with a rating that their words decide, and noise."""
    generator = random.Random(0)
    texts: dict[str, float] = {}
    while len(texts) < num_rows:
        words = generator.choices(TINY_WORDS, k=generator.randint(4, 12))
        mood = sum(MOODS.get(word, 0.0) for word in words)
        texts[" ".join(words)] = mood + generator.gauss(0.0, 0.3)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "target"])
        writer.writerows(texts.items())
