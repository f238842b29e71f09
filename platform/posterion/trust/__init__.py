"""How a model comes to say how sure it is: posteriors, distributions, calibration."""

from posterion.trust._beta import BetaCalibration
from posterion.trust._calibration import Calibration, Uncalibrated
from posterion.trust._class_calibration import ClassCalibration
from posterion.trust._confidence import confidence_figures, confidence_pictures
from posterion.trust._conformal import ConformalRegression, gaussian_within
from posterion.trust._conformal_sets import ConformalSets, Raps
from posterion.trust._cross_conformal import CrossConformalRegression
from posterion.trust._distribution import (
    ClassificationDistribution,
    Distribution,
    RegressionDistribution,
)
from posterion.trust._isotonic import IsotonicCalibration
from posterion.trust._mondrian import MondrianRegression, bands
from posterion.trust._pictures import (
    coverage_diagram,
    faithfulness_diagram,
    reliability_diagram,
    residual_diagram,
    risk_coverage_diagram,
)
from posterion.trust._prediction import Prediction
from posterion.trust._quantile_regression import ConformalQuantiles
from posterion.trust._recalibration import RegressionRecalibration
from posterion.trust._selective_risk import SelectiveRiskControl, selective_risk_bound
from posterion.trust._sliced import SlicedCalibration
from posterion.trust._temperature import TemperatureScaling, answer_confidence
from posterion.trust._vector import VectorScaling

__all__ = [
    "BetaCalibration",
    "Calibration",
    "ClassCalibration",
    "ClassificationDistribution",
    "ConformalQuantiles",
    "ConformalRegression",
    "ConformalSets",
    "CrossConformalRegression",
    "Distribution",
    "IsotonicCalibration",
    "MondrianRegression",
    "Prediction",
    "Raps",
    "RegressionDistribution",
    "RegressionRecalibration",
    "SelectiveRiskControl",
    "SlicedCalibration",
    "TemperatureScaling",
    "Uncalibrated",
    "VectorScaling",
    "answer_confidence",
    "bands",
    "confidence_figures",
    "confidence_pictures",
    "coverage_diagram",
    "faithfulness_diagram",
    "gaussian_within",
    "reliability_diagram",
    "residual_diagram",
    "risk_coverage_diagram",
    "selective_risk_bound",
]
