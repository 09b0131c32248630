# SPDX-License-Identifier: Apache-2.0
"""Parts of networks as differentiable functions on kernels, each beside its plain torch reference.

Importing this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.layers.fused import norm_relu_pool, norm_relu_pool_reference

__all__ = ["norm_relu_pool", "norm_relu_pool_reference"]
