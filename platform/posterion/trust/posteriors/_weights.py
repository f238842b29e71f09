"""Posteriors that are a finite set of weights: ensembles, snapshots, draws from anything.

Shape legend: S samples, B examples of a batch, O outputs of the head, D features it sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from posterion.models import TextModel
from posterion.trust.posteriors._base import Batch, Posterior, features_of
from posterion.trust.posteriors._sharing import sharing_copy

Weights = Mapping[str, Tensor]
"""Values of some of a model's parameters, by their names."""
HEAD_WEIGHTS = frozenset({"head.weight", "head.bias"})


class WeightSamples(Posterior):
    """S equally likely sets of weights of one architecture.

    Only what differs from the model is kept S times. Where nothing but the head's weights does,
    the encoder runs once and the S heads are one matrix product: the cost of a single model.

    Args:
        model: Holds the weights that all samples share.
        weights: Of every sample, the parameters that differ; the same names in each.

    Raises:
        ValueError: No samples, names that the model lacks or that differ between samples,
            other shapes, or values that are not finite.
    """

    def __init__(self, model: TextModel, weights: Sequence[Weights]) -> None:
        self.model = model
        self.weights = tuple(dict(each) for each in weights)
        self.samples = len(self.weights)
        _check(model, self.weights)
        self.head_only = set(self.weights[0]) <= HEAD_WEIGHTS
        """Whether the samples differ in nothing but the head."""
        self._members = [] if self.head_only else [_member(model, each) for each in self.weights]

    def sample(self, batch: Batch) -> Tensor:
        """See :meth:`Posterior.sample`."""
        if not self.head_only:
            with torch.inference_mode():
                return torch.stack([member(*batch).float() for member in self._members])
        features = features_of(self.model, batch)
        head = self.model.head
        weight, bias = (
            torch.stack([each.get(f"head.{name}", own) for each in self.weights]).to(features)
            for name, own in (("weight", head.weight), ("bias", head.bias))
        )
        with torch.inference_mode():
            return torch.einsum("bd,sod->sbo", features, weight) + bias[:, None]


class DeepEnsemble(Posterior):
    """Models trained from different seeds, each as likely (Lakshminarayanan et al. 2017).

    Members may be posteriors themselves, e.g. each a Laplace posterior: a mixture in which
    every member has the same weight, whatever its number of samples.

    Args:
        members: Posteriors; their outputs mean the same.
    """

    def __init__(self, members: Sequence[Posterior]) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        counts = {member.samples for member in members}
        if len(counts) > 1:
            raise ValueError(
                f"members have {sorted(counts)} samples; give all the same number, so that each "
                "counts equally"
            )
        self.members = tuple(members)
        self.samples = sum(member.samples for member in members)

    def sample(self, batch: Batch) -> Tensor:
        """See :meth:`Posterior.sample`: the members' samples one after another."""
        return torch.cat([member.sample(batch) for member in self.members])


def snapshot_ensemble(
    model: TextModel, snapshots: Iterable[Weights], *, keep: int | None = None
) -> WeightSamples:
    """The models at the ends of the cycles of one training run (Huang et al. 2017).

    Args:
        model: Of the architecture; what snapshots leave out is its own.
        snapshots: Weights in the order they were taken; read once.
        keep: Use the last so many only; all when absent.
    """
    kept = deque(
        ({name: value.detach().clone() for name, value in each.items()} for each in snapshots),
        maxlen=keep,
    )
    return WeightSamples(model, _without_common(model, list(kept)))


def _without_common(model: TextModel, weights: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Leave out parameters that equal the model's own in all samples."""
    own = dict(model.named_parameters())
    differ = [
        name
        for name in (weights[0] if weights else ())
        if name not in own
        or any(
            not torch.equal(each.get(name, own[name]).to(own[name]), own[name]) for each in weights
        )
    ]
    names = differ or list(HEAD_WEIGHTS)
    return [{name: each[name] for name in names if name in each} for each in weights]


def _check(model: TextModel, weights: Sequence[dict[str, Tensor]]) -> None:
    if not weights or not weights[0]:
        raise ValueError("at least one sample with at least one weight is needed")
    own = dict(model.named_parameters())
    for number, each in enumerate(weights, start=1):
        if each.keys() != weights[0].keys():
            names = sorted(each.keys() ^ weights[0].keys())
            raise ValueError(
                f"sample {number} and sample 1 differ in names: {', '.join(names[:5])}"
            )
        for name, value in each.items():
            if name not in own:
                raise ValueError(f"the model has no weight {name!r}; a sample of it has")
            if value.shape != own[name].shape:
                raise ValueError(
                    f"{name} of sample {number} has shape {tuple(value.shape)}, "
                    f"the model's {tuple(own[name].shape)}"
                )
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} of sample {number} holds NaN or infinite values")


def _member(model: TextModel, weights: Weights) -> TextModel:
    """The model with some weights replaced; the others are shared."""
    member = sharing_copy(model).eval()
    for name, value in weights.items():
        path, _, parameter = name.rpartition(".")
        module = member.get_submodule(path)
        own = module.get_parameter(parameter)
        replacement = torch.nn.Parameter(value.detach().to(own), requires_grad=False)
        module.register_parameter(parameter, replacement)
        if getattr(module, "_packed", None) is not None:
            module.pack()  # type: ignore[operator]
    return member
