"""How DeepSpeed's checkpoint files are written and read: durable, and without running code."""

from __future__ import annotations

import os
from typing import Any


def make_checkpoint_engine() -> Any:
    """A checkpoint engine for DeepSpeed, made late because its base class imports DeepSpeed.

    DeepSpeed's own reads with an unrestricted ``pickle``, which runs whatever a tampered
    file says, and leaves it to the system when bytes reach the disk. This one reads weights
    and the three plain classes that DeepSpeed puts beside them, and waits for the disk.
    """
    import torch
    from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    class SafeCheckpointEngine(CheckpointEngine):  # type: ignore[misc]
        def create(self, info: Any) -> None:
            pass

        def save(self, state_dict: Any, path: str) -> None:
            with open(path, "wb") as stream:
                torch.save(state_dict, stream)
                stream.flush()
                os.fsync(stream.fileno())

        def load(self, path: str, map_location: Any = None) -> Any:
            with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
                return torch.load(path, map_location=map_location, weights_only=True)

        def commit(self, info: Any) -> bool:
            return True

    return SafeCheckpointEngine()
