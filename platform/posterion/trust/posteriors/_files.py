"""The posterior of a model version, in one file beside its weights."""

from __future__ import annotations

from pathlib import Path

from posterion.models import TextModel
from posterion.trust.posteriors._laplace import LastLayerLaplace
from posterion.trust.posteriors._tensors import read_tensors, write_tensors
from posterion.trust.posteriors._weights import Weights, WeightSamples

POSTERIOR_FILE = "posterior.safetensors"
"""Name of the file in a model folder."""
_WEIGHTS = "weight_samples"


def save_posterior(path: Path, posterior: LastLayerLaplace | WeightSamples) -> None:
    """Write a posterior that :func:`load_posterior` gives back.

    Args:
        path: ``posterior.safetensors`` in a model folder.
        posterior: A Laplace posterior, or weights: a snapshot ensemble, draws of SWAG or of
            variational layers.
    """
    if isinstance(posterior, LastLayerLaplace):
        posterior.save(path)
        return
    tensors = {
        f"{index}/{name}": value
        for index, each in enumerate(posterior.weights)
        for name, value in each.items()
    }
    write_tensors(path, _WEIGHTS, {"samples": posterior.samples}, tensors)


def load_posterior(path: Path, model: TextModel) -> LastLayerLaplace | WeightSamples:
    """Read a posterior and put it on its model.

    Raises:
        ArtifactError: No such file, a damaged one, or one of an unknown kind.
        ValueError: It does not fit the model.
    """
    settings, tensors = read_tensors(path, "laplace", _WEIGHTS)
    if settings["kind"] == "laplace":
        return LastLayerLaplace.load(path, model)
    weights: list[Weights] = [
        {
            key.partition("/")[2]: value
            for key, value in tensors.items()
            if key.partition("/")[0] == str(index)
        }
        for index in range(int(settings["samples"]))
    ]
    return WeightSamples(model, weights)
