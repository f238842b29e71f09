r"""Weights that make a combination's squared error least, under constraints.

With :math:`u = 1/M` for each member and :math:`\lambda` the ridge penalty, all solve

.. math:: \min_{w, b} \frac1N \lVert y - b - X w \rVert^2 + \lambda \lVert w - u \rVert^2

Shape legend: N rows, M members.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Constraint = Literal["none", "sum_to_one", "nonnegative", "simplex"]
"""``none``: any weights; ``sum_to_one``: any that do; ``nonnegative``: at least 0;
``simplex``: both."""


def least_squares_weights(
    inputs: Array, target: Array, constraint: Constraint, ridge: float
) -> Array:
    """The best weights, exactly (no iteration to a tolerance).

    Args:
        inputs: Predictions of the members, centred if there is an intercept. Shape: (N, M).
        target: Centred likewise. Shape: (N,).
        constraint: What weights may be.
        ridge: The penalty, in the target's squared units.

    Returns:
        Shape: (M,). Of several equally good solutions without constraint or with the sum 1, the
        nearest to equal weights.
    """
    num_rows, num_members = inputs.shape
    equal = np.full(num_members, 1.0 / num_members)
    penalty = np.sqrt(num_rows * ridge) * np.eye(num_members)
    x, y = _triangular(np.vstack([inputs, penalty]), np.concatenate([target, penalty @ equal]))
    if constraint == "nonnegative":
        return _nonnegative(x, y)
    if constraint == "simplex":
        return _simplex(x, y)
    rest = y - x @ equal
    if constraint == "none":
        free: Array = equal + np.linalg.lstsq(x, rest, rcond=None)[0]
        return free
    # Directions that keep the sum: orthonormal and orthogonal to the vector of ones.
    rotation: Array = np.linalg.qr(np.column_stack([equal, np.eye(num_members)[:, 1:]]))[0]
    basis = rotation[:, 1:]
    summed: Array = equal + basis @ np.linalg.lstsq(x @ basis, rest, rcond=None)[0]
    return summed


def _triangular(x: Array, y: Array) -> tuple[Array, Array]:
    """The same squared errors, but for a constant, from M + 1 rows instead of N + M."""
    factor: Array = np.asarray(np.linalg.qr(np.column_stack([x, y]), mode="r"))
    return factor[:, :-1], factor[:, -1]


def _nonnegative(x: Array, y: Array) -> Array:
    from scipy.optimize import nnls

    # In units of y, so that nnls's own tolerance means the same for any target.
    unit = float(np.abs(x).max()) or 1.0
    weights: Array = nnls(x / unit, y / unit)[0]
    return weights


def _simplex(x: Array, y: Array) -> Array:
    """The nearest point to y within the convex hull of x's columns.

    As weights sum to 1, the residual is ``Z w`` with ``Z = x - y``. Its shortest value on the
    simplex is the direction of ``argmin over v >= 0 of |Z v|^2 + (sum v - 1)^2``: with ``v = t w``
    the best ``t`` is ``1 / (1 + |Z w|^2)`` and leaves ``|Z w|^2 / (1 + |Z w|^2)``, which grows with
    ``|Z w|^2`` (least distance programming, Lawson and Hanson 1974, chapter 23).
    """
    from scipy.optimize import nnls

    shifted = x - y[:, None]
    # Any unit gives the same weights; this one keeps the two terms of like size.
    unit = float(np.linalg.norm(shifted, axis=0).min())
    if unit == 0.0:
        exact: Array = np.eye(x.shape[1])[np.linalg.norm(shifted, axis=0).argmin()]
        return exact
    system = np.vstack([shifted / unit, np.ones(x.shape[1])])
    weights: Array = nnls(system, np.append(np.zeros(len(x)), 1.0))[0]
    scaled: Array = weights / weights.sum()
    return scaled
