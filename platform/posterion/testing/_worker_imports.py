"""What the server that training workers are forked from imports beforehand."""

import importlib

from posterion.training._deepspeed import import_deepspeed

import_deepspeed()
# Imported late in a training, and slow to import.
for _name in (
    "matplotlib.backends.backend_agg",
    "posterion.training.workloads",
    "scipy.stats",
):
    importlib.import_module(_name)
