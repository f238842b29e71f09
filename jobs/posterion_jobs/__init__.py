"""What runs on the cluster, and how it is submitted.

:mod:`posterion_jobs.finetune` is the core of a fine-tuning job and needs no cluster;
:mod:`posterion_jobs.run` is what a Ray job executes; :mod:`posterion_jobs.service` runs the
local Ray head; :mod:`posterion_jobs.commands` are the commands ``submit`` and ``jobs``.
Importing this package pulls in neither Ray nor torch.
"""

from posterion_jobs._events import Emitter
from posterion_jobs._outcome import Outcome
from posterion_jobs._runs import RunFolder, Status

__all__ = ["Emitter", "Outcome", "RunFolder", "Status"]
