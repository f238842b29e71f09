"""What can be trained, one module per job."""

from posterion.training.workloads.finetune import FinetuneSpec

__all__ = ["FinetuneSpec"]
