# SPDX-License-Identifier: Apache-2.0
"""scikit-learn-intelex: the same estimator, computed by oneDAL."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import daal4py
import sklearnex
from sklearnex.cluster import KMeans

from bench.baselines.sklearn import Sklearn


class Sklearnex(Sklearn):
    """oneDAL behind scikit-learn's interface; its k-means++ is greedy with as many candidates."""

    estimator = KMeans

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        daal4py.daalinit(threads)
        # A silent fallback to scikit-learn would be scikit-learn measured twice.
        sklearnex.set_config(allow_sklearn_after_onedal=False)

    def versions(self) -> dict[str, str]:
        names = ("scikit-learn-intelex", "daal")
        return super().versions() | {name: importlib.metadata.version(name) for name in names}

    def facts(self) -> dict[str, Any]:
        return {"threads": int(daal4py.num_threads())}
