"""How a model comes to say how sure it is: posteriors, distributions, calibration."""

from posterion.trust._calibration import Calibration, Uncalibrated
from posterion.trust._conformal import ConformalRegression, gaussian_within
from posterion.trust._distribution import (
    ClassificationDistribution,
    Distribution,
    RegressionDistribution,
)
from posterion.trust._pictures import coverage_diagram, reliability_diagram, residual_diagram
from posterion.trust._posterior import posterior_logits, token_seed
from posterion.trust._prediction import Prediction
from posterion.trust._temperature import TemperatureScaling, answer_confidence

__all__ = [
    "Calibration",
    "ClassificationDistribution",
    "ConformalRegression",
    "Distribution",
    "Prediction",
    "RegressionDistribution",
    "TemperatureScaling",
    "Uncalibrated",
    "answer_confidence",
    "coverage_diagram",
    "gaussian_within",
    "posterior_logits",
    "reliability_diagram",
    "residual_diagram",
    "token_seed",
]
