"""RoBERTa's model without a head: BERT's layers on embeddings of its own."""

from __future__ import annotations

from typing import Any

from posterion.models.bert.model import BareModel, BertLikeModel
from posterion.models.roberta.config import RobertaConfig, check_positions
from posterion.models.roberta.embeddings import RobertaEmbeddings


class RobertaPreTrainedModel(BertLikeModel):
    """What RoBERTa's encoder and all its heads share."""

    config_class = RobertaConfig
    base_model_prefix = "roberta"
    _no_split_modules = ["RobertaEmbeddings", "BertLayer"]

    @classmethod
    def max_tokens(cls, config: Any) -> int | None:
        """See :meth:`posterion.models._drop_in.DropInModel.max_tokens`."""
        # The first token stands at pad_token_id + 1.
        return int(config.max_position_embeddings) - int(config.pad_token_id) - 1


class RobertaModel(RobertaPreTrainedModel, BareModel):
    """RoBERTa without a task's head (Liu et al. 2019), as encoder or decoder.

    Equal to ``transformers.RobertaModel`` at every real token; states at padding are 0.
    """

    embeddings_class = RobertaEmbeddings

    def __init__(self, config: Any, add_pooling_layer: bool = True) -> None:
        check_positions(config)
        super().__init__(config, add_pooling_layer)
