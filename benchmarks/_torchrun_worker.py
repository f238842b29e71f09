"""What ``torchrun`` starts in the benchmark of Ray's overhead: the training loop, nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from posterion.training import JsonLinesListener, NullListener, TorchGang, TrainingSpec, fit

if __name__ == "__main__":
    torch.set_num_threads(1)
    spec = TrainingSpec.from_json(Path(sys.argv[1]).read_text())
    dist.init_process_group("gloo")
    first = int(os.environ["RANK"]) == 0
    fit(spec, TorchGang(), JsonLinesListener(Path(sys.argv[2])) if first else NullListener())
    dist.destroy_process_group()
