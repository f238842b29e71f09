"""XLNet's answers in a text: their first and last token, and whether there is one.

Shapes: B examples, L tokens, C hidden size, S beams of first tokens, E last tokens of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.xlnet.modeling_xlnet import (
    XLNetForQuestionAnsweringOutput,
    XLNetForQuestionAnsweringSimpleOutput,
)

from posterion.models._drop_in import span_loss
from posterion.models.layers import Linear, linear
from posterion.models.xlnet.config import XLNetConfig
from posterion.models.xlnet.inputs import padding_of
from posterion.models.xlnet.model import XLNetModel, XLNetPreTrainedModel, returned

_IMPOSSIBLE = 1e30
_IMPOSSIBLE_HALF = 65500.0
_ANSWERABILITY = 0.5
"""Weight of the loss of answerability beside that of the answer."""


class XLNetPoolerStartLogits(nn.Module):
    """A score of each token to be the first of the answer."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, 1)

    def forward(self, states: Tensor, p_mask: Tensor | None = None) -> Tensor:
        """Shape: (B, L, C), (B, L) to (B, L)."""
        return _possible(self.dense(states).squeeze(-1), p_mask)


class PairLinear(Linear):
    """A linear map of two vectors side by side.

    The two halves of the weight are applied apart, so that pairs of all of one kind with all of
    another need no product each.
    """

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """Shape: (..., C), (..., C), in shapes that broadcast, to (..., out)."""
        width = first.shape[-1]
        of_first = linear(first, self.weight[:, :width], self.bias)
        return of_first + linear(second, self.weight[:, width:])


class XLNetPoolerEndLogits(nn.Module):
    """A score of each token to be the last of an answer that begins at a given one."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.dense_0 = PairLinear(config.hidden_size * 2, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dense_1 = Linear(config.hidden_size, 1)

    def forward(self, states: Tensor, starts: Tensor, p_mask: Tensor | None = None) -> Tensor:
        """Score.

        Args:
            states: (B, L, 1, C).
            starts: (B, 1, S, C) states of first tokens.
            p_mask: (B, L), 1 where no answer may be.

        Returns:
            (B, L, S).
        """
        pairs = self.LayerNorm(torch.tanh(self.dense_0(states, starts)))
        mask = None if p_mask is None else p_mask.unsqueeze(-1)
        return _possible(self.dense_1(pairs).squeeze(-1), mask)


class XLNetPoolerAnswerClass(nn.Module):
    """A score of there being no answer."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.dense_0 = PairLinear(config.hidden_size * 2, config.hidden_size)
        self.dense_1 = Linear(config.hidden_size, 1, bias=False)

    def forward(self, states: Tensor, starts: Tensor, cls_index: Tensor | None = None) -> Tensor:
        """Score.

        Args:
            states: (B, L, C).
            starts: (B, C) state of the first token.
            cls_index: (B,) position of the token that stands for the text; the last when absent.

        Returns:
            (B,).
        """
        of_text = states[:, -1] if cls_index is None else _states_at(states, cls_index)
        return self.dense_1(torch.tanh(self.dense_0(starts, of_text))).squeeze(-1)  # type: ignore[no-any-return]


class XLNetForQuestionAnsweringSimple(XLNetPreTrainedModel):
    """XLNet with independent scores of the answer's first and last token."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = XLNetModel(config)
        self.qa_outputs = Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> XLNetForQuestionAnsweringSimpleOutput | tuple[Any, ...]:
        """Scores (B, L) twice, and with positions (B,) the mean of their cross entropies.

        The other arguments are those of :meth:`XLNetModel.forward`. The softmax of the scores
        runs over padding too, so that is computed.
        """
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            compute_padding=padding_of(attention_mask, input_mask) is not None,
            **kwargs,
        )
        start, end = self.qa_outputs(outputs.last_hidden_state).split(1, dim=-1)
        start, end = start.squeeze(-1).contiguous(), end.squeeze(-1).contiguous()
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, start_positions, end_positions)
        output = XLNetForQuestionAnsweringSimpleOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)


class XLNetForQuestionAnswering(XLNetPreTrainedModel):
    """XLNet with a beam of answers: first tokens, last tokens given the first, and none."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.start_n_top = config.start_n_top
        self.end_n_top = config.end_n_top
        self.transformer = XLNetModel(config)
        self.start_logits = XLNetPoolerStartLogits(config)
        self.end_logits = XLNetPoolerEndLogits(config)
        self.answer_class = XLNetPoolerAnswerClass(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Sequence[Tensor | None] | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        is_impossible: Tensor | None = None,
        cls_index: Tensor | None = None,
        p_mask: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> XLNetForQuestionAnsweringOutput | tuple[Any, ...]:
        """The best answers, or, with positions (B,), the loss.

        Args:
            start_positions: (B,) the answer's first token.
            end_positions: (B,) the answer's last token.
            is_impossible: (B,) 1 where there is no answer.
            cls_index: (B,) position of the token that stands for the text; the last when absent.
            p_mask: (B, L), 1 where no answer may be.
            input_ids: This and the others: see :meth:`XLNetModel.forward`.
            attention_mask: ...
            mems: ...
            perm_mask: ...
            target_mapping: ...
            token_type_ids: ...
            input_mask: ...
            inputs_embeds: ...
            use_mems: ...
            output_attentions: ...
            output_hidden_states: ...
            return_dict: ...
            **kwargs: ...
        """
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            inputs_embeds=inputs_embeds,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            compute_padding=padding_of(attention_mask, input_mask) is not None,
            **kwargs,
        )
        states = outputs.last_hidden_state
        if start_positions is not None and end_positions is not None:
            positions = (start_positions, end_positions, cls_index, is_impossible)
            results = {"loss": self._loss(states, p_mask, *map(_flat, positions))}
        else:
            results = self._beam(states, p_mask, _flat(cls_index))
        output = XLNetForQuestionAnsweringOutput(
            **results,
            mems=outputs.mems,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return returned(output, return_dict, self.config)

    def _loss(
        self,
        states: Tensor,
        p_mask: Tensor | None,
        start_positions: Tensor,
        end_positions: Tensor,
        cls_index: Tensor | None,
        is_impossible: Tensor | None,
    ) -> Tensor:
        """Last tokens are scored given the true first one."""
        starts = _states_at(states, start_positions)
        of_start = self.start_logits(states, p_mask)
        of_end = self.end_logits(states.unsqueeze(2), starts[:, None, None], p_mask).squeeze(2)
        loss = F.cross_entropy(of_start, start_positions) + F.cross_entropy(of_end, end_positions)
        loss = loss / 2
        if cls_index is not None and is_impossible is not None:
            none = self.answer_class(states, starts, cls_index)
            of_none = F.binary_cross_entropy_with_logits(none, is_impossible.to(none.dtype))
            loss = loss + _ANSWERABILITY * of_none
        return loss

    def _beam(
        self, states: Tensor, p_mask: Tensor | None, cls_index: Tensor | None
    ) -> dict[str, Tensor]:
        """The likeliest first tokens, and the likeliest last tokens of each."""
        start = F.softmax(self.start_logits(states, p_mask), dim=-1)
        start_best, start_index = torch.topk(start, self.start_n_top, dim=-1)
        index = start_index.unsqueeze(-1).expand(-1, -1, states.shape[-1])
        starts = states.gather(1, index)
        end = F.softmax(self.end_logits(states.unsqueeze(2), starts.unsqueeze(1), p_mask), dim=1)
        end_best, end_index = torch.topk(end, self.end_n_top, dim=1)
        expected = torch.bmm(start.unsqueeze(1), states).squeeze(1)
        return {
            "start_top_log_probs": start_best,
            "start_top_index": start_index,
            "end_top_log_probs": end_best.flatten(1),
            "end_top_index": end_index.flatten(1),
            "cls_logits": self.answer_class(states, expected, cls_index),
        }


def _flat(positions: Any) -> Any:
    """(B,) from (B,) or (B, 1)."""
    return positions.squeeze(-1) if positions is not None and positions.dim() > 1 else positions


def _states_at(states: Tensor, positions: Tensor) -> Tensor:
    """(B, L, C) and (B,) to (B, C)."""
    index = positions[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


def _possible(scores: Tensor, p_mask: Tensor | None) -> Tensor:
    """Scores, very low where ``p_mask`` is 1."""
    if p_mask is None:
        return scores
    low = _IMPOSSIBLE_HALF if p_mask.dtype == torch.float16 else _IMPOSSIBLE
    return scores * (1 - p_mask) - low * p_mask
