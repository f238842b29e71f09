"""Posteriors over weights behind one interface; see docs/techniques/posteriors.md.

Needs torch, which the rest of :mod:`posterion.trust` does not: import it where it is used.
"""

from posterion.trust.posteriors._base import (
    Batch,
    Likelihood,
    Point,
    Posterior,
    features_of,
    token_seed,
)
from posterion.trust.posteriors._curvature import (
    FullCurvature,
    KroneckerCurvature,
    OutputKind,
    loss_curvature,
)
from posterion.trust.posteriors._dropout import McDropout, McHeads
from posterion.trust.posteriors._evidence import best_precision, linear_evidence, log_evidence
from posterion.trust.posteriors._files import POSTERIOR_FILE, load_posterior, save_posterior
from posterion.trust.posteriors._laplace import LastLayerLaplace, bridge
from posterion.trust.posteriors._likelihoods import CategoricalLikelihood, GaussianLikelihood
from posterion.trust.posteriors._swag import SwagMoments, swag_samples
from posterion.trust.posteriors._variational import (
    VariationalLinear,
    kl_divergence,
    make_variational,
    variational_samples,
)
from posterion.trust.posteriors._weights import DeepEnsemble, WeightSamples, snapshot_ensemble

__all__ = [
    "POSTERIOR_FILE",
    "Batch",
    "CategoricalLikelihood",
    "DeepEnsemble",
    "FullCurvature",
    "GaussianLikelihood",
    "KroneckerCurvature",
    "LastLayerLaplace",
    "Likelihood",
    "McDropout",
    "McHeads",
    "OutputKind",
    "Point",
    "Posterior",
    "SwagMoments",
    "VariationalLinear",
    "WeightSamples",
    "best_precision",
    "bridge",
    "features_of",
    "kl_divergence",
    "linear_evidence",
    "load_posterior",
    "log_evidence",
    "loss_curvature",
    "make_variational",
    "save_posterior",
    "snapshot_ensemble",
    "swag_samples",
    "token_seed",
    "variational_samples",
]
