"""What can be trained, one module per job."""

from posterion.training.workloads._held_out import held_out_rows, perplexity_of
from posterion.training.workloads.finetune import FinetuneSpec
from posterion.training.workloads.pretrain import PretrainSpec

__all__ = ["FinetuneSpec", "PretrainSpec", "held_out_rows", "perplexity_of"]
