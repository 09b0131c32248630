# SPDX-License-Identifier: Apache-2.0
"""Small sets that stand for large ones.

Importing this package needs numpy alone; ``NetworkFeatures``, ``Looks`` and ``Unroll`` import torch
when they are first used.

Public names
------------
distill
    Run a method on a data set.
Method, make_method, method_names
    What a method is, and methods by name.
Random, Herding, KCenter, KMeansNearest, Forgetting
    Coresets: real images, chosen class by class.
Whole
    All images: the upper line.
DDOQ, D4M
    Centroids of latents, decoded by a diffusion model; with and without their masses.
MTT
    Images that are learned, so that students end where experts of the real images came.
DC, DM
    Images that are learned to give the gradients, or the features, of the real ones.
Looks
    How a set that is learned is tested on the way.
Unroll
    Steps of SGD on a synthetic set, with the exact gradient of where they lead.
FeatureSpace, PixelFeatures, PcaFeatures, NetworkFeatures
    What images are compared by.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ddkern.distill.features import FeatureSpace, PcaFeatures, PixelFeatures
from ddkern.distill.make import make_method, method_names
from ddkern.distill.method import Method, distill
from ddkern.distill.methods.d4m import D4M
from ddkern.distill.methods.dc import DC
from ddkern.distill.methods.ddoq import DDOQ
from ddkern.distill.methods.dm import DM
from ddkern.distill.methods.forgetting import Forgetting
from ddkern.distill.methods.herding import Herding
from ddkern.distill.methods.k_center import KCenter
from ddkern.distill.methods.k_means import KMeansNearest
from ddkern.distill.methods.mtt import MTT
from ddkern.distill.methods.random import Random
from ddkern.distill.methods.whole import Whole

if TYPE_CHECKING:
    from ddkern.distill.network_features import NetworkFeatures
    from ddkern.distill.synthesis import Looks
    from ddkern.distill.unroll import Unroll

__all__ = [
    "D4M",
    "DC",
    "DDOQ",
    "DM",
    "MTT",
    "FeatureSpace",
    "Forgetting",
    "Herding",
    "KCenter",
    "KMeansNearest",
    "Looks",
    "Method",
    "NetworkFeatures",
    "PcaFeatures",
    "PixelFeatures",
    "Random",
    "Unroll",
    "Whole",
    "distill",
    "make_method",
    "method_names",
]


# Names that import torch, and where they are defined.
_WITH_TORCH = {"Looks": "synthesis", "NetworkFeatures": "network_features", "Unroll": "unroll"}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        from ddkern.optional import import_optional

        import_optional("torch", name, "torch")
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module 'ddkern.distill' has no attribute {name!r}")
