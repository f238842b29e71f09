"""Stacking by a Gaussian process (Rasmussen and Williams 2006, chapter 2).

Shape legend: N rows, M members, P rows kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._combiner import Combiner
from posterion.ensembles._table import MemberPredictions, OutOfFold
from posterion.trust import Distribution, RegressionDistribution

Array = NDArray[np.float64]

_BOUNDS = (1e-5, 1e5)


@dataclass(frozen=True, kw_only=True)
class GaussianProcessStack(Combiner):
    r"""A linear trend with smooth departures over the members' predictions.

    The kernel, on inputs and target of mean 0 and variance 1:

    .. math:: k(x, x') = a \, (1 + x^\top x') + s \exp\left(-\frac{|x - x'|^2}{2 \ell^2}\right)
       + n \, \delta_{x x'}

    ``a``, ``s``, the length ``l`` and the noise ``n`` maximise the marginal likelihood
    (equation 2.30). Aleatoric variance is ``n``, epistemic the latent function's
    (equation 2.26): it grows where the members say what they did not say in training.
    """

    kind: ClassVar[str] = "gaussian_process_stack"

    linear: float
    """``a``."""
    signal: float
    """``s``."""
    length: float
    """``l``."""
    noise: float
    """``n``."""
    inputs: Sequence[Sequence[float]]
    """Standardised predictions of the rows kept. Shape: (P, M)."""
    targets: Sequence[float]
    """Standardised. Length: P."""
    centre: Sequence[float]
    """Mean of each member's predictions, then of the target. Length: M + 1."""
    scale: Sequence[float]
    """Their standard deviations. Length: M + 1."""

    @classmethod
    def fit(cls, table: OutOfFold, *, max_rows: int = 1000, seed: int = 0) -> Self:
        """Fit with scikit-learn's ``GaussianProcessRegressor``.

        Args:
            table: Out-of-fold predictions of a regression.
            max_rows: Of more rows these many are drawn: time grows with the third power.
            seed: Of the draw.

        Raises:
            DataError: The members predict classes, fewer than 3 rows, or a ``max_rows`` below 3.
        """
        values = table.require_mean("A Gaussian process stack").T
        if min(len(values), max_rows) < 3:
            raise DataError(
                f"A Gaussian process stack needs 3 rows at least, not {len(values)} "
                f"with max_rows {max_rows}."
            )
        joint = np.column_stack([values, table.target])
        centre, scale = joint.mean(axis=0), joint.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        standard = (joint - centre) / scale
        if len(standard) > max_rows:
            generator = np.random.default_rng(seed)
            standard = standard[np.sort(generator.permutation(len(standard))[:max_rows])]
        inputs, targets = standard[:, :-1], standard[:, -1]
        return cls(
            members=table.members,
            inputs=inputs.tolist(),
            targets=targets.tolist(),
            centre=centre.tolist(),
            scale=scale.tolist(),
            **_kernel_numbers(inputs, targets),
        )

    def _combine(self, predictions: MemberPredictions) -> Distribution:
        from scipy.linalg import solve_triangular

        values = predictions.require_mean("A Gaussian process stack").T
        inputs = (values - np.asarray(self.centre[:-1])) / np.asarray(self.scale[:-1])
        factor, dual = self._solution
        cross = self._kernel(inputs, np.asarray(self.inputs))
        explained = (solve_triangular(factor, cross.T, lower=True) ** 2).sum(axis=0)
        prior = self.linear * (1.0 + (inputs**2).sum(axis=1)) + self.signal
        unit = self.scale[-1]
        return RegressionDistribution(
            self.centre[-1] + unit * (cross @ dual),
            np.full(len(values), self.noise * unit**2),
            np.maximum(prior - explained, 0.0) * unit**2,
        )

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """Cholesky factor of the kernel matrix (P, P), and it solved for the targets (P,)."""
        from scipy.linalg import cho_solve, cholesky

        kept = np.asarray(self.inputs)
        matrix = self._kernel(kept, kept) + (self.noise + 1e-10) * np.eye(len(kept))
        factor = cholesky(matrix, lower=True)
        return factor, cho_solve((factor, True), np.asarray(self.targets))

    def _kernel(self, left: Array, right: Array) -> Array:
        from scipy.spatial.distance import cdist

        distance = cdist(left / self.length, right / self.length, "sqeuclidean")
        kernel: Array = self.linear * (1.0 + left @ right.T) + self.signal * np.exp(-0.5 * distance)
        return kernel

    def check(self) -> None:
        """See :meth:`Combiner.check`."""
        super().check()
        num = len(self.members)
        if np.shape(self.inputs) != (len(self.targets), num) or not len(self.targets):
            raise ValueError(f"inputs have shape {np.shape(self.inputs)} for {num} members")
        if not len(self.centre) == len(self.scale) == num + 1:
            raise ValueError("centre and scale must be one number a member and one for the target")
        numbers = (self.linear, self.signal, self.length, self.noise, *self.scale)
        if min(numbers) <= 0.0:
            raise ValueError("numbers of the kernel and scales must be above 0")


def _kernel_numbers(inputs: Array, targets: Array) -> dict[str, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import (
        RBF,
        ConstantKernel,
        DotProduct,
        WhiteKernel,
    )

    length = float(np.sqrt(inputs.shape[1]))
    kernel = (
        ConstantKernel(1.0, _BOUNDS) * DotProduct(1.0, "fixed")
        + ConstantKernel(0.1, _BOUNDS) * RBF(length, _BOUNDS)
        + WhiteKernel(0.1, _BOUNDS)
    )
    with warnings.catch_warnings():
        # A number at its wide bound only says that the data do without that part.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianProcessRegressor(kernel).fit(inputs, targets).kernel_
    numbers = fitted.get_params()
    return {
        "linear": float(numbers["k1__k1__k1__constant_value"]),
        "signal": float(numbers["k1__k2__k1__constant_value"]),
        "length": float(numbers["k1__k2__k2__length_scale"]),
        "noise": float(numbers["k2__noise_level"]),
    }
