# SPDX-License-Identifier: Apache-2.0
"""Faster training on the CPU, for loops that do without what only plain layers can do."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from ddkern.models.convnet import Blocks

__all__ = ["accelerate"]

_Model = TypeVar("_Model", bound=nn.Module)


def accelerate(model: _Model, enabled: bool = True) -> _Model:
    """Let a network compute the same with fused kernels, or undo it.

    Parameters
    ----------
    model : nn.Module
        Changed in place. In a :class:`~ddkern.models.ConvNet` with instance norm, ReLU and average
        pooling, these three run as :func:`ddkern.layers.norm_relu_pool`, and maps have their
        channels last. Every other module, and what other modules contain, is left as it is.
    enabled : bool
        False makes the layers plain again.

    Returns
    -------
    nn.Module
        ``model`` itself. Its modules, its parameters with their layout and order, and the keys of
        its state dictionary are untouched, so optimisers, files and flattened parameters fit as
        before. Results differ by rounding.

    Raises
    ------
    TypeError
        If ``model`` is no module, or ``enabled`` no bool.

    Notes
    -----
    An option because of what it costs: hooks on the fused layers are not called, transforms of
    ``torch.func`` such as ``grad`` and ``vmap`` fail, and derivatives of gradients
    (``create_graph=True``) are right, but no faster than those of plain layers. On other devices
    than the CPU and for other dtypes than float32 and bfloat16 torch's own layers run, as without
    it. Under ``torch.autocast("cpu", torch.bfloat16)`` convolutions and maps are bfloat16, which is
    faster again.

    Examples
    --------
    >>> from ddkern.models import accelerate, make_model
    >>> net = accelerate(make_model("convnet-d3", n_classes=10, image_size=32))
    >>> net.features.fused
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; it must be an nn.Module")
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled is a {type(enabled).__name__}; it must be True or False")
    for module in model.modules():
        if isinstance(module, Blocks):
            module.fused = enabled and module.can_fuse()
    return model
