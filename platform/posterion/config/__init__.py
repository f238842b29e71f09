"""Recipes and settings: typed sections, read from YAML with every problem told at once."""

from posterion.config._base import Section
from posterion.config._load import (
    dump_yaml,
    fingerprint,
    json_schema,
    load,
    parse,
    parse_overrides,
)
from posterion.config._suggest import did_you_mean, nearest
from posterion.config.platform import (
    GatewaySettings,
    Home,
    PlatformSettings,
    Port,
    RaySettings,
    RegistrySettings,
)
from posterion.config.recipe import (
    DataSection,
    EarlyStopping,
    EngineSection,
    EvaluationSection,
    Fraction,
    HoldOut,
    ModelSection,
    Name,
    OptimizationSection,
    Probability,
    Recipe,
    RegistrySection,
    TaskSection,
    TrustSection,
)
from posterion.config.recipes import apps_dir, find_app, find_recipe, list_recipes, recipes_dir

__all__ = [
    "DataSection",
    "EarlyStopping",
    "EngineSection",
    "EvaluationSection",
    "Fraction",
    "GatewaySettings",
    "HoldOut",
    "Home",
    "ModelSection",
    "Name",
    "OptimizationSection",
    "PlatformSettings",
    "Port",
    "Probability",
    "RaySettings",
    "Recipe",
    "RegistrySection",
    "RegistrySettings",
    "Section",
    "TaskSection",
    "TrustSection",
    "apps_dir",
    "did_you_mean",
    "dump_yaml",
    "find_app",
    "find_recipe",
    "fingerprint",
    "json_schema",
    "list_recipes",
    "load",
    "nearest",
    "parse",
    "parse_overrides",
    "recipes_dir",
]
