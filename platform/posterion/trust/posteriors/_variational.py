"""Linear layers whose weights are Gaussians that training fits: Bayes by Backprop.

Shape legend: T rows (tokens or texts), I input features, U output features, O outputs.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterion.models import TextModel
from posterion.models.layers import Linear, linear
from posterion.trust.posteriors._base import require_samples
from posterion.trust.posteriors._weights import WeightSamples

Estimator = Literal["local", "flipout", "shared"]
"""How a training pass draws; see :class:`VariationalLinear`."""
Prior = Literal["zero", "pretrained"]
"""Mean of the prior: 0, or the weights as they were when the layer was made (MOPED)."""


class VariationalLinear(Linear):
    """A linear map with weights ``w ~ N(weight, softplus(weight_rho)^2)``, independent.

    Means bear the names of the layer they replace, so a checkpoint of the means is one of the plain
    model. In evaluation mode the means answer. In training mode:

    =========== =================================================================================
    ``local``   noise of the outputs instead of the weights, for every row of its own: ``N(x m,
                x^2 s^2)`` (Kingma et al. 2015). The least variance of gradients. Rows are taken to
                be independent; for the tokens of one text that is an approximation.
    ``flipout`` one draw of weights a pass, with signs of its own for every row (Wen et al. 2018).
    ``shared``  one draw of weights a pass, for all rows (Blundell et al. 2015).
    =========== =================================================================================

    Noise comes from torch's global generator, as all of training's.

    Args:
        plain: The layer; a text model's head with its dropout too.
        initial_std: Standard deviation that weights begin with.
        relative: ``initial_std`` is a share of each weight's size (MOPED, Krishnan et al. 2020).
        prior: Mean of the prior.
        prior_std: Its standard deviation.
        estimator: See above.
    """

    prior_mean: Tensor
    prior_bias: Tensor

    def __init__(
        self,
        plain: nn.Linear,
        *,
        initial_std: float = 0.02,
        relative: bool = False,
        prior: Prior = "zero",
        prior_std: float = 1.0,
        estimator: Estimator = "local",
    ) -> None:
        if initial_std <= 0.0 or prior_std <= 0.0:
            raise ValueError(
                f"initial_std {initial_std} and prior_std {prior_std} must be positive"
            )
        has_bias = plain.bias is not None
        super().__init__(plain.in_features, plain.out_features, bias=has_bias, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        # A head has dropout before its map, and computes in single precision.
        self.dropout: nn.Module | None = getattr(plain, "dropout", None)
        self.prior_std, self.estimator = prior_std, estimator
        self.weight_rho = _rho_parameter(plain.weight, initial_std, relative)
        self.bias_rho = _rho_parameter(plain.bias, initial_std, relative) if has_bias else None
        factor = 1.0 if prior == "pretrained" else 0.0
        self.register_buffer("prior_mean", plain.weight.detach() * factor, persistent=False)
        if has_bias:
            self.register_buffer("prior_bias", plain.bias.detach() * factor, persistent=False)

    @property
    def weight_std(self) -> Tensor:
        """Standard deviations of the weights. Shape: (U, I)."""
        return F.softplus(self.weight_rho)

    @property
    def bias_std(self) -> Tensor | None:
        """Standard deviations of the biases. Shape: (U,)."""
        return None if self.bias_rho is None else F.softplus(self.bias_rho)

    def forward(self, input: Tensor, activation: Literal["none", "gelu"] = "none") -> Tensor:
        """Shape: (..., I) to (..., U)."""
        if self.dropout is not None:
            with torch.autocast(input.device.type, enabled=False):
                return self._outputs(self.dropout(input.float()), activation)
        return self._outputs(input, activation)

    def _outputs(self, values: Tensor, activation: Literal["none", "gelu"]) -> Tensor:
        if not self.training:
            return super().forward(values, activation)
        outputs = linear(values, self.weight, self.bias) + self._noise(values)
        return F.gelu(outputs) if activation == "gelu" else outputs

    def _noise(self, values: Tensor) -> Tensor:
        """What a draw of the weights adds to the outputs of their means."""
        std, bias_std = self.weight_std.to(values), self.bias_std
        if self.estimator == "local":
            bias_variance = None if bias_std is None else bias_std.square().to(values)
            variance = F.linear(values.square(), std.square(), bias_variance)
            # A gradient of sqrt at 0 would be infinite, as for a row of zeros without bias.
            return (variance + 1e-16).sqrt() * torch.randn_like(variance)
        step = std * torch.randn_like(std)
        bias_step = None if bias_std is None else bias_std.to(values)
        if bias_step is not None:
            bias_step = bias_step * torch.randn_like(bias_step)
        if self.estimator == "shared":
            return F.linear(values, step, bias_step)
        sign_in = torch.randint_like(values, 2) * 2.0 - 1.0
        flipped = F.linear(values * sign_in, step)
        sign_out = torch.randint_like(flipped, 2) * 2.0 - 1.0
        flipped = flipped * sign_out
        return flipped if bias_step is None else flipped + bias_step

    def kl(self) -> Tensor:
        """``KL(q || prior)`` of all weights of the layer, in nats, float32."""
        total = _gaussian_kl(self.weight, self.weight_std, self.prior_mean, self.prior_std)
        if self.bias_std is not None:
            total = total + _gaussian_kl(self.bias, self.bias_std, self.prior_bias, self.prior_std)
        return total

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One set of weights, by their names in the layer."""
        drawn = {}
        for name, std in (("weight", self.weight_std), ("bias", self.bias_std)):
            if std is not None:
                mean = self.get_parameter(name).detach().float().cpu()
                noise = torch.randn(mean.shape, generator=generator)
                drawn[name] = mean + std.detach().float().cpu() * noise
        return drawn


def make_variational(
    model: nn.Module,
    patterns: Sequence[str],
    *,
    initial_std: float = 0.02,
    relative: bool = False,
    prior: Prior = "zero",
    prior_std: float = 1.0,
    estimator: Estimator = "local",
) -> list[str]:
    """Turn chosen linear layers of any model into variational ones, in place.

    Args:
        model: Any of our models.
        patterns: Names of modules as in ``named_modules``, with ``*`` and ``?``, e.g. ``head``,
            ``*.layer.5.*``, ``*.attention.output.dense``.
        initial_std: See :class:`VariationalLinear`.
        relative: See :class:`VariationalLinear`.
        prior: See :class:`VariationalLinear`.
        prior_std: See :class:`VariationalLinear`.
        estimator: See :class:`VariationalLinear`.

    Returns:
        Names of the layers that were turned.

    Raises:
        ValueError: A pattern fits no linear layer.
    """
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, VariationalLinear)
    }
    for pattern in patterns:
        if not fnmatch.filter(linears, pattern):
            shown = ", ".join(sorted(linears, key=lambda name: (len(name), name))[:5])
            raise ValueError(
                f"pattern {pattern!r} fits none of the model's {len(linears)} linear layers "
                f"({shown}, ...)"
            )
    chosen = [name for name in linears if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    for name in chosen:
        parent, _, child = name.rpartition(".")
        layer = VariationalLinear(
            linears[name],
            initial_std=initial_std,
            relative=relative,
            prior=prior,
            prior_std=prior_std,
            estimator=estimator,
        )
        model.get_submodule(parent).add_module(child, layer.train(linears[name].training))
    return chosen


def kl_divergence(model: nn.Module) -> Tensor:
    """``KL(q || prior)`` of all variational layers, in nats.

    The negative evidence bound per example is ``loss.mean() + kl_divergence(model) / N`` for N
    training examples (Blundell et al. 2015, equation 1).

    Raises:
        ValueError: The model has no variational layer.
    """
    parts = [layer.kl() for _, layer in _variational(model)]
    if not parts:
        raise ValueError("the model has no variational layer; make_variational adds them")
    return torch.stack(parts).sum()


def variational_samples(model: TextModel, *, samples: int = 20, seed: int = 0) -> WeightSamples:
    """The fitted posterior as a set of weights, without variational layers.

    Args:
        model: With variational layers; left as it is.
        samples: S.
        seed: Of the draws.
    """
    require_samples(samples, 2, "a variational posterior")
    layers = list(_variational(model))
    if not layers:
        raise ValueError("the model has no variational layer; make_variational adds them")
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        {
            f"{path}.{name}": value
            for path, layer in layers
            for name, value in layer.draw(generator).items()
        }
        for _ in range(samples)
    ]
    return WeightSamples(model, drawn)


def _variational(model: nn.Module) -> Iterator[tuple[str, VariationalLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, VariationalLinear):
            yield name, module


def _rho_parameter(mean: Tensor, initial_std: float, relative: bool) -> nn.Parameter:
    """Softplus of it is the standard deviation."""
    std = torch.full_like(mean, initial_std, dtype=torch.float32)
    if relative:
        # A weight of 0 keeps a thousandth of the mean size, or it could never move.
        size = mean.detach().float().abs()
        std = std * size.clamp_min(max(1e-3 * float(size.mean()), 1e-8))
    return nn.Parameter(torch.log(torch.expm1(std)))


def _gaussian_kl(mean: Tensor, std: Tensor, prior_mean: Tensor, prior_std: float) -> Tensor:
    distance = (mean.float() - prior_mean.float()).square() + std.square()
    logs = math.log(prior_std) - torch.log(std)
    return (logs + distance / (2.0 * prior_std**2) - 0.5).sum()
