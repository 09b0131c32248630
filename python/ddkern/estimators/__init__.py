# SPDX-License-Identifier: Apache-2.0
"""Estimators with scikit-learn's interface.

Importing this package needs scikit-learn: ``pip install ddkern[sklearn]``.
"""

from __future__ import annotations

from ddkern.estimators.kmeans import KMeans

__all__ = ["KMeans"]
