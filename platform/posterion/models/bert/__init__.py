"""BERT (Devlin et al. 2019), with the parameter names of the published checkpoints."""

from posterion.models.bert.encoder import BertModel

__all__ = ["BertModel"]
