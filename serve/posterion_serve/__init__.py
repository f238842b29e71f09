"""Ray Serve deployments and protocols."""

from posterion_serve._config import AppConfig, LimitsSection, QuotaSection, ServedModel
from posterion_serve._keys import ApiKey, KeyStore

__all__ = [
    "ApiKey",
    "AppConfig",
    "KeyStore",
    "LimitsSection",
    "QuotaSection",
    "ServedModel",
]
