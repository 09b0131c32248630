# SPDX-License-Identifier: Apache-2.0
"""What tells the weights of one network from those of another."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["digest_of_weights"]


def digest_of_weights(model: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and saved buffers.

    Parameters
    ----------
    model : nn.Module
        On any device.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Not every type of torch is one of numpy, but all are bytes.
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"
