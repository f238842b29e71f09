"""XLNet without a head (Yang et al. 2019).

Shapes: B examples, L tokens, T computed tokens, C hidden size, M memory, N targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.models.xlnet.modeling_xlnet import XLNetModelOutput

from posterion.models._drop_in import DropInModel, only_one, output_flags
from posterion.models.layers import Dropout, TokenLayout
from posterion.models.xlnet.config import XLNetConfig, check_config
from posterion.models.xlnet.embeddings import distance_embeddings
from posterion.models.xlnet.encoder import XLNetLayer, XLNetRelativeAttention
from posterion.models.xlnet.inputs import (
    Streams,
    XLNetInputs,
    can_pack,
    make_streams,
    padding_of,
)

_EMBEDDINGS = ("word_embedding", "mask_emb")


class XLNetPreTrainedModel(DropInModel):
    """Base of XLNet and its heads."""

    config_class = XLNetConfig
    base_model_prefix = "transformer"
    # A configuration may be shared with transformers' model, which knows one implementation.
    _supports_sdpa = False
    _no_split_modules = ["XLNetLayer"]
    dropout_fields = ("dropout", "summary_last_dropout")
    summary_at = "last"
    pretraining_weights = ("mask_emb",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, XLNetRelativeAttention):
            for parameter in module.parameters(recurse=False):
                initialization.normal_(parameter, std=self.config.initializer_range)
        elif isinstance(module, XLNetModel):
            initialization.normal_(module.mask_emb, std=self.config.initializer_range)

    @classmethod
    def layer_of(cls, name: str, num_layers: int) -> int:
        """See :meth:`DropInModel.layer_of`."""
        if any(part in _EMBEDDINGS for part in name.split(".")):
            return 0
        return super().layer_of(name, num_layers)

    def text_inputs(self, input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Any]:
        """See :meth:`DropInModel.text_inputs`.

        The token that stands for the text has a segment of its own, as the tokenizer says.
        """
        last = torch.full_like(input_ids[:, :1], input_ids.shape[1] - 1)
        if attention_mask is not None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
            last = torch.where(attention_mask != 0, positions, 0).amax(dim=1, keepdim=True)
        segments = torch.zeros_like(input_ids).scatter_(1, last, 2)
        inputs = super().text_inputs(input_ids, attention_mask)
        return {**inputs, "token_type_ids": segments, "use_mems": False}

    def flops_per_token(self, length: float) -> float:
        """See :meth:`DropInModel.flops_per_token`.

        Scores by distance count once per key; the keys of distances, shared by all texts of a
        batch, are left out.
        """
        config = self.config
        projections = 4 * config.d_model**2 + 2 * config.d_model * config.d_inner
        return float(config.n_layer * 2 * (projections + 3 * length * config.d_model))


class XLNetModel(XLNetPreTrainedModel):
    """Equal to ``transformers.XLNetModel``; see :class:`DropInModel` for states at padding."""

    def __init__(self, config: XLNetConfig) -> None:
        check_config(config)
        super().__init__(config)
        self.word_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.mask_emb = nn.Parameter(torch.empty(1, 1, config.d_model))
        self.layer = nn.ModuleList([XLNetLayer(config) for _ in range(config.n_layer)])
        self.dropout = Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.word_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings."""
        self.word_embedding = value

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
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        head_mask: Tensor | None = None,
        compute_padding: bool = False,
        mem_len: int | None = None,
        **kwargs: Any,
    ) -> XLNetModelOutput | tuple[Any, ...]:
        """States of a batch.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), 1 at tokens and 0 at padding.
            mems: Of every layer (M, B, C), as returned for the text before.
            perm_mask: (B, L, L), 1 where a token does not see another.
            target_mapping: (B, N, L), 1 at the position of each target; asks for the query stream.
            token_type_ids: (B, L) segments.
            input_mask: (B, L), 0 at tokens and 1 at padding; instead of ``attention_mask``.
            inputs_embeds: (B, L, C) instead of ``input_ids``.
            use_mems: Return memories for the text that follows. They hold states of padding too,
                so that padding is then computed. By default the configuration decides.
            output_attentions: Return attention weights; of both streams where there are two.
            output_hidden_states: Return all states; of both streams in turn where there are two.
            return_dict: Whether to return an output object rather than a tuple.
            head_mask: (H,) or (layers, H), factor of each head's attention weights.
            compute_padding: Compute states at padding, which otherwise may be 0.
            mem_len: Positions to keep as memory, instead of the configuration's.
            **kwargs: Ignored, as in ``transformers``.

        Returns:
            ``last_hidden_state`` (B, L, C), or (B, N, C) with ``target_mapping``; ``mems`` of
            every layer; and what was asked for.

        Raises:
            ValueError: Both or neither of the kinds of input, or both kinds of masks.
        """
        flags = {
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        wants_states, wants_weights = output_flags(self.config, flags)
        wants_mems = use_mems
        if wants_mems is None:
            config = self.config
            wants_mems = config.use_mems_train if self.training else config.use_mems_eval
        like = only_one(input_ids, inputs_embeds)
        inputs = XLNetInputs(
            batch_size=like.shape[0],
            length=like.shape[1],
            memory=0 if not mems or mems[0] is None else mems[0].shape[0],
            padding=padding_of(attention_mask, input_mask),
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
        )
        rectangular = wants_weights or wants_mems or compute_padding
        streams = self._streams(like, inputs, rectangular, wants_weights)
        cut = (self.config.reuse_len, mem_len or self.config.mem_len)
        trace = _Trace(streams, mems, cut if wants_mems else None, bool(wants_states))
        content, query = self._embed(input_ids, inputs_embeds, streams)
        attentions = []
        for index, layer in enumerate(self.layer):
            trace.before_layer(index, content, query)
            of_layer = head_mask if head_mask is None or head_mask.dim() == 1 else head_mask[index]
            memory = None if mems is None else mems[index]
            content, query, seen = layer(content, query, streams, memory, wants_weights, of_layer)
            attentions.append(seen)
        trace.keep(content, query)
        output = XLNetModelOutput(
            last_hidden_state=trace.rectangle(self.dropout(content if query is None else query)),
            mems=tuple(trace.mems) if wants_mems else None,
            hidden_states=tuple(trace.states) if wants_states else None,
            attentions=tuple(attentions) if wants_weights else None,
        )
        return returned(output, return_dict, self.config)

    def _streams(
        self, like: Tensor, inputs: XLNetInputs, rectangular: bool, wants_weights: bool
    ) -> Streams:
        rectangular = rectangular or not can_pack(self.config, inputs)
        layout = TokenLayout.of(
            like,
            None if inputs.padding is None else ~inputs.padding,
            rectangular=rectangular,
        )
        length = inputs.length
        if layout.packed:
            length = max((group.length for group in layout.groups), default=0)
        distances = distance_embeddings(
            self.config, length, inputs.memory + length, self.mask_emb.device
        )
        return make_streams(
            self.config, inputs, self.dropout(distances), layout, expand_targets=wants_weights
        )

    def _embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, streams: Streams
    ) -> tuple[Tensor, Tensor | None]:
        """Both streams before the first layer: (T, C) and (B * N, C)."""
        pack = streams.layout.pack
        if inputs_embeds is not None:
            words = pack(inputs_embeds)
        else:
            assert input_ids is not None
            words = self.word_embedding(pack(input_ids))
        query = None
        if streams.targets is not None:
            num_rows = streams.targets.mapping.shape[:2].numel()
            query = self.dropout(self.mask_emb[0].expand(num_rows, -1))
        return self.dropout(words), query

    def encode_long(
        self,
        input_ids: Tensor,
        segment_length: int,
        *,
        token_type_ids: Tensor | None = None,
        memory_length: int | None = None,
    ) -> Iterator[Tensor]:
        """States of a long document, segment by segment, in constant memory.

        Each segment sees itself and the memory of those before it (section 2.2; Dai et al. 2019,
        section 3.2).

        Args:
            input_ids: (B, any length), without padding.
            segment_length: Tokens computed at a time.
            token_type_ids: Segments of ``input_ids``.
            memory_length: Positions kept in memory, instead of the configuration's ``mem_len``.

        Yields:
            (B, segment_length, C), the last perhaps shorter. Keep what is needed of each.

        Raises:
            ValueError: A length below 1, or nothing limits the memory.
        """
        memory_length = memory_length or self.config.mem_len
        if segment_length < 1 or not memory_length or memory_length < 1:
            raise ValueError(
                f"segment_length ({segment_length}) and memory_length ({memory_length}) must both "
                "be at least 1. Give memory_length where the configuration has no mem_len."
            )
        mems = None
        for start in range(0, input_ids.shape[1], segment_length):
            part = slice(start, start + segment_length)
            output = self(
                input_ids[:, part],
                mems=mems,
                token_type_ids=None if token_type_ids is None else token_type_ids[:, part],
                use_mems=True,
                return_dict=True,
                mem_len=memory_length,
            )
            mems = output.mems
            yield output.last_hidden_state


class _Trace:
    """What a forward pass leaves behind besides its result."""

    def __init__(
        self,
        streams: Streams,
        mems: Sequence[Tensor | None] | None,
        cut: tuple[int | None, int | None] | None,
        wants_states: bool,
    ) -> None:
        self.streams = streams
        self.old_mems = mems
        self.cut = cut
        """``reuse_len`` and ``mem_len``; ``None``: no memory is wanted."""
        self.wants_states = wants_states
        self.mems: list[Tensor] = []
        self.states: list[Tensor] = []

    def before_layer(self, index: int, content: Tensor, query: Tensor | None) -> None:
        self.keep(content, query)
        if self.cut is None:
            return
        reuse_len, mem_len = self.cut
        new = self.streams.layout.unpack(content.detach()).transpose(0, 1)
        new = new[:reuse_len] if reuse_len else new
        old = None if self.old_mems is None else self.old_mems[index]
        if old is not None:
            new = torch.cat((old.detach().to(new.dtype), new))
        self.mems.append(new[-mem_len:] if mem_len else new)

    def keep(self, content: Tensor, query: Tensor | None) -> None:
        if self.wants_states:
            self.states.append(self.streams.layout.unpack(content))
            if query is not None:
                self.states.append(self.rectangle(query))

    def rectangle(self, states: Tensor) -> Tensor:
        """(T, C) to (B, L, C), or (B * N, C) to (B, N, C)."""
        if self.streams.targets is None:
            return self.streams.layout.unpack(states)
        return states.view(*self.streams.targets.mapping.shape[:2], states.shape[-1])


def returned(output: Any, return_dict: bool | None, config: XLNetConfig) -> Any:
    """An output object, or its tuple where the caller or the configuration wants one."""
    wants_object = config.return_dict if return_dict is None else return_dict
    return output if wants_object else output.to_tuple()
