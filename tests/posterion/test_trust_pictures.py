import numpy as np
import pytest
from PIL import Image

from posterion.trust import (
    Prediction,
    coverage_diagram,
    reliability_diagram,
    residual_diagram,
)


@pytest.fixture
def figures():
    generator = np.random.default_rng(0)
    confidence = generator.random(300)
    return confidence, generator.random(300) < confidence


def readable(path, folder):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or []) > 10
    assert [file.name for file in folder.iterdir()] == [path.name]  # no half-written file stays


def test_pictures_are_pngs_with_something_on_them(tmp_path, figures):
    confidence, right = figures
    for name, draw in {
        "reliability": lambda path: reliability_diagram(path, confidence, right),
        "coverage": lambda path: coverage_diagram(path, confidence, intervals=(0.9, 0.91)),
        "residuals": lambda path: residual_diagram(
            path, confidence, right, interval=np.stack([confidence - 1, confidence + 1], axis=1)
        ),
    }.items():
        folder = tmp_path / name
        readable(draw(folder / f"{name}.png"), folder)


def test_one_example_is_enough(tmp_path):
    readable(reliability_diagram(tmp_path / "a" / "a.png", [0.7], [1]), tmp_path / "a")
    readable(coverage_diagram(tmp_path / "b" / "b.png", [0.3]), tmp_path / "b")
    readable(residual_diagram(tmp_path / "c" / "c.png", [1.0], [1.0]), tmp_path / "c")


def test_prediction_has_the_published_fields_and_only_finite_numbers():
    prediction = Prediction(
        answer=np.float32(1.5),
        confidence=0.25,
        interval=(float("-inf"), 2.0),
        alternatives=[{"answer": "a", "confidence": np.float64(0.5)}],
        uncertainty={"aleatoric": 1.0, "epistemic": 0.0},
        model="reader-en@7",
    )
    assert prediction.to_dict() == {
        "answer": 1.5,
        "confidence": 0.25,
        "abstained": False,
        "calibrated": True,
        "interval": [None, 2.0],
        "alternatives": [{"answer": "a", "confidence": 0.5}],
        "evidence": [],
        "model": "reader-en@7",
    }
    assert Prediction(answer=["x"], confidence=1.0).to_dict()["interval"] is None
    assert prediction.with_model("b@1").model == "b@1"
