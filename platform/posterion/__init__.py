"""Posterion: Transformers that say how sure they are.

The library: data, models, objectives, training, trust and inference. It knows nothing of
clusters, registries or servers; those are the packages ``posterion_registry``,
``posterion_jobs`` and ``posterion_serve``. Importing this package does no work and pulls
in no heavy dependency.
"""

from posterion._exceptions import (
    ArtifactError,
    ConfigError,
    DataError,
    Interrupted,
    ModelSourceError,
    NotFoundError,
    PosterionError,
    Problem,
    RequestError,
    ServiceError,
    WorkError,
)

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "ModelSourceError",
    "NotFoundError",
    "PosterionError",
    "Problem",
    "RequestError",
    "ServiceError",
    "WorkError",
    "__version__",
]
