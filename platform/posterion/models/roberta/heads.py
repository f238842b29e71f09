"""RoBERTa's heads: words, classes of texts and tokens, answers, choices.

What they compute is written in :mod:`posterion.models._text_heads` and
:mod:`posterion.models.bert.pretraining`; here is what RoBERTa has of its own.

Shapes: B examples, L tokens of the longest, C hidden size, V vocabulary, K labels, N choices.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import MultipleChoiceModelOutput

from posterion.models._text_heads import (
    AnswerFinder,
    ChoiceClassifier,
    TextClassifier,
    TokenClassifier,
    head_dropout,
)
from posterion.models.bert.pretraining import CausalLanguageModel, MaskedLanguageModel
from posterion.models.layers import Dropout, Linear
from posterion.models.roberta.config import RobertaConfig
from posterion.models.roberta.encoder import RobertaModel, RobertaPreTrainedModel

logger = logging.getLogger(__name__)


class RobertaHeadModel(RobertaPreTrainedModel):
    """A head on RoBERTa."""

    encoder_class = RobertaModel


class RobertaWordHead(nn.Module):
    """States to scores of words; the map's weights are the word embeddings'."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder: nn.Module = Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (..., C) to (..., V)."""
        return self.decoder(self.layer_norm(self.dense(hidden, "gelu")))  # type: ignore[no-any-return]


class RobertaWords(RobertaHeadModel):
    """What RoBERTa's models with scores of words share."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RobertaWordHead):
            init.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The map to the vocabulary, tied to the word embeddings."""
        return self.lm_head.decoder  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the map to the vocabulary and its bias."""
        self.lm_head.decoder = new_embeddings
        self.lm_head.bias = new_embeddings.bias

    def word_scores(self, hidden: Tensor) -> Tensor:
        """Shape: (..., C) to (..., V)."""
        return self.lm_head(hidden)  # type: ignore[no-any-return]


class RobertaForMaskedLM(RobertaWords, MaskedLanguageModel):
    """RoBERTa's scores of hidden words."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            logger.warning(
                "RobertaForMaskedLM looks both ways only with config.is_decoder = False."
            )
        self.add_encoder(with_pooler=False)
        self.lm_head = RobertaWordHead(config)
        self.post_init()


class RobertaForCausalLM(RobertaWords, CausalLanguageModel, GenerationMixin):  # type: ignore[misc]
    """RoBERTa as a decoder: scores of the next word, and generation."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("RobertaForCausalLM sees later words unless config.is_decoder = True.")
        self.add_encoder(with_pooler=False)
        self.lm_head = RobertaWordHead(config)
        self.post_init()


class RobertaTextHead(nn.Module):
    """The first token's state through a tanh layer to scores, with dropout before both maps."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(head_dropout(config))
        self.out_proj = Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shape: (B, L, C) to (B, K)."""
        pooled = torch.tanh(self.dense(self.dropout(hidden[:, 0])))
        return self.out_proj(self.dropout(pooled))  # type: ignore[no-any-return]


class RobertaForSequenceClassification(RobertaHeadModel, TextClassifier):
    """Classes, or values, of whole texts, by RoBERTa."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.add_encoder(with_pooler=False)
        self.classifier = RobertaTextHead(config)
        self.post_init()

    def text_scores(self, outputs: Any) -> Tensor:
        """See :class:`posterion.models._text_heads.TextClassifier`."""
        return self.classifier(outputs.last_hidden_state)  # type: ignore[no-any-return]


class RobertaForMultipleChoice(RobertaHeadModel, ChoiceClassifier):
    """Which of several texts fits, by RoBERTa."""

    def choice_dropout(self, config: Any) -> float:
        """That of the hidden states, whatever ``classifier_dropout`` says."""
        return float(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput | tuple[Tensor, ...]:
        """As :meth:`posterion.models._text_heads.ChoiceClassifier.forward`, in another order.

        Args:
            input_ids: See there.
            token_type_ids: See there.
            attention_mask: See there.
            labels: See there.
            position_ids: See there.
            inputs_embeds: See there.
            **kwargs: See there.
        """
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            labels,
            **kwargs,
        )


class RobertaForTokenClassification(RobertaHeadModel, TokenClassifier):
    """A class for each token, by RoBERTa."""


class RobertaForQuestionAnswering(RobertaHeadModel, AnswerFinder):
    """First and last token of the answer that the text holds, by RoBERTa."""
