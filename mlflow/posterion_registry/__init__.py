"""Tracking and registry on MLflow: runs that never lose a figure, versions that verify.

:class:`RunTracker` logs a run, :class:`Registry` registers, finds and promotes model
versions, :mod:`posterion_registry.flavour` is the MLflow flavour that loads them, and
:mod:`posterion_registry.service` runs the local server. MLflow itself is imported when it
is first needed, never by importing this package.
"""

from posterion_registry._references import ModelReference, parse_reference
from posterion_registry._registry import Registry
from posterion_registry._tracker import RunTracker, deliver
from posterion_registry._versions import Comparison, ModelVersion, RegisteredModel

__all__ = [
    "Comparison",
    "ModelReference",
    "ModelVersion",
    "RegisteredModel",
    "Registry",
    "RunTracker",
    "deliver",
    "parse_reference",
]
