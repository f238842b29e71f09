"""From a model version to predictions; evaluation, the registry and serving all use this."""

from posterion.inference._artifact import (
    assemble_version,
    manifest_digest,
    verify_manifest,
    write_manifest,
    write_model_dir,
)
from posterion.inference._card import (
    CardFacts,
    Figure,
    card_text,
    interval_figures,
    language_model_card,
    measure,
)
from posterion.inference._explain import (
    Counterfactual,
    Explanation,
    Faithfulness,
    counterfactual,
    explain,
    faithfulness,
)
from posterion.inference._laplace import fit_laplace
from posterion.inference._predictor import EncodedExample, Predictor
from posterion.inference._speed import one_thread, speed_ratio
from posterion.trust import Prediction

__all__ = [
    "CardFacts",
    "Counterfactual",
    "EncodedExample",
    "Explanation",
    "Faithfulness",
    "Figure",
    "Prediction",
    "Predictor",
    "assemble_version",
    "card_text",
    "counterfactual",
    "explain",
    "faithfulness",
    "fit_laplace",
    "interval_figures",
    "language_model_card",
    "manifest_digest",
    "measure",
    "one_thread",
    "speed_ratio",
    "verify_manifest",
    "write_manifest",
    "write_model_dir",
]
