# SPDX-License-Identifier: Apache-2.0
"""Instance norm, ReLU and pooling by two with their gradients, in float64, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """The output, and what bounds of errors are made of."""

    out: Values  # (n, c, h // 2, w // 2)
    mean: Values  # (n, c)
    rstd: Values  # (n, c)
    unit: Values  # (n, c, h, w): x less its mean, over its deviation
    z: Values  # (n, c, h, w): what goes into the ReLU


def forward(x: Values, weight: Values, bias: Values, eps: float) -> Forward:
    n, c, h, w = x.shape
    mean, rstd, unit, z = np.empty((n, c)), np.empty((n, c)), np.empty(x.shape), np.empty(x.shape)
    out = np.empty((n, c, h // 2, w // 2))
    for i, k in np.ndindex(n, c):
        plane = x[i, k]
        mean[i, k] = plane.sum() / (h * w)
        variance = ((plane - mean[i, k]) ** 2).sum() / (h * w)
        rstd[i, k] = 1 / np.sqrt(variance + eps)
        unit[i, k] = (plane - mean[i, k]) * rstd[i, k]
        z[i, k] = unit[i, k] * weight[k] + bias[k]
        for a, b in np.ndindex(h // 2, w // 2):
            window = z[i, k, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2]
            out[i, k, a, b] = np.maximum(window, 0).sum() / 4
    return Forward(out, mean, rstd, unit, z)


def gradients(
    grad_out: Values, seen: Forward, weight: Values
) -> tuple[Values, Values, Values, Values]:
    """Gradients of x, weight and bias, and the gradient in front of the ReLU."""
    n, c, h, w = seen.z.shape
    g = np.zeros(seen.z.shape)
    for i, k, a, b in np.ndindex(n, c, h // 2 * 2, w // 2 * 2):
        if seen.z[i, k, a, b] > 0:
            g[i, k, a, b] = grad_out[i, k, a // 2, b // 2] / 4
    grad_x = np.empty(seen.z.shape)
    for i, k in np.ndindex(n, c):
        unit, slope = seen.unit[i, k], g[i, k] * weight[k]
        # The derivative of (x - mean) / deviation: what is left beside the constant and the unit.
        grad_x[i, k] = seen.rstd[i, k] * (
            slope - slope.sum() / (h * w) - unit * (slope * unit).sum() / (h * w)
        )
    return grad_x, (g * seen.unit).sum((0, 2, 3)), g.sum((0, 2, 3)), g
