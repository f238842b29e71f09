import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from posterion.trust import (
    Prediction,
    confidence_figures,
    coverage_diagram,
    faithfulness_diagram,
    reliability_diagram,
    residual_diagram,
    risk_coverage_diagram,
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
        "risk_coverage": lambda path: risk_coverage_diagram(path, confidence, right),
        "faithfulness": lambda path: faithfulness_diagram(
            path, {"own": ([0, 1, 2], [2, 1, 0]), "random": ([0, 0.4, 2], [2, 1.6, 0])}
        ),
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
    readable(risk_coverage_diagram(tmp_path / "d" / "d.png", [0.7], [1]), tmp_path / "d")


def test_figures_of_confidence(figures):
    confidence, right = figures
    found = confidence_figures(confidence, right)
    assert found["right"] == pytest.approx(right.mean())
    assert found["auroc_of_error"] == pytest.approx(roc_auc_score(right, confidence))
    risks = [1 - right[np.argsort(-confidence)[:k]].mean() for k in range(1, 301)]
    assert found["aurc"] == pytest.approx(np.mean(risks))
    assert "auroc_of_error" not in confidence_figures([0.5, 0.6], [1, 1])


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
