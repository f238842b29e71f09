"""How far confidences can be believed, as figures and pictures that every task has.

Shape legend: N examples.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from posterion.trust._pictures import reliability_diagram, risk_coverage_diagram


def confidence_figures(confidence: ArrayLike, right: ArrayLike) -> dict[str, float]:
    """Figures of confidences against what happened.

    Args:
        confidence: Between 0 and 1. Shape: (N,).
        right: 0 or 1. Shape: (N,).

    Returns:
        ``mean_confidence``, ``right``, ``confidence_ece``, ``aurc`` and, where some answers are
        right and some wrong, ``auroc_of_error``.
    """
    from posterion import metrics

    sure = np.asarray(confidence, dtype=np.float64)
    is_right = np.asarray(right, dtype=np.float64)
    figures = {
        "mean_confidence": float(sure.mean()),
        "right": float(is_right.mean()),
        "confidence_ece": metrics.ece(sure, is_right),
        "aurc": metrics.aurc(sure, 1.0 - is_right),
        "auroc_of_error": metrics.auroc_of_error(sure, is_right),
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def confidence_pictures(
    out_dir: Path, confidence: ArrayLike, right: ArrayLike, *, title: str
) -> list[Path]:
    """Draw ``reliability.png`` and ``risk_coverage.png``; arguments as in their functions."""
    return [
        reliability_diagram(out_dir / "reliability.png", confidence, right, title=title),
        risk_coverage_diagram(out_dir / "risk_coverage.png", confidence, right),
    ]
