# SPDX-License-Identifier: Apache-2.0
"""Unrolled SGD through a stored graph of all its steps: the oracle of ddkern.distill.unroll.

Plain torch, as the systems of the field write it. The network is a list of parameter tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def stored_graph_distance(
    model: nn.Module,
    batches: Sequence[Tensor],
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: Tensor,
    *,
    augment: Callable[[Tensor, int], Tensor] | None = None,
    momentum: float = 0.0,
    match: str | Sequence[int] = "last",
    gradient: str = "exact",
) -> Tensor:
    """Return the distance with its graph; ``gradient`` cuts it where the biased ones do."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    buffers = dict(model.named_buffers())
    first = 0
    if gradient.startswith("truncated"):
        first = len(batches) - int(gradient.split(":")[1])
    theta, velocity = start, None
    found, absolute = [], []
    for step, rows in enumerate(batches):
        if first and step == first:
            theta = theta.detach()
            velocity = None if velocity is None else velocity.detach()
        is_source = gradient == "tesla" or not theta.requires_grad
        at = theta.detach().requires_grad_() if is_source else theta
        parts = [part.view(shape) for part, shape in zip(at.split(sizes), shapes, strict=True)]
        x = images[rows]
        x = x if augment is None else augment(x, step)
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        named = dict(zip(names, parts, strict=True))
        logits = torch.func.functional_call(model, (named, copies), (x,))
        loss = nn.functional.cross_entropy(logits, labels[rows])
        (g,) = torch.autograd.grad(loss, at, create_graph=True)
        if step < first:
            g = g.detach()
        velocity = g if velocity is None else momentum * velocity + g
        theta = theta - (lr if step >= first else lr.detach()) * velocity
        absolute.append((theta - target).detach().abs().sum())
        found.append((theta - target).square().sum() / (start - target).square().sum())
    distances = torch.stack(found)
    if match == "last":
        return distances[-1]
    if match == "nearest":
        return distances[int(distances.argmin())]
    if match == "nearest_l1":
        return distances[int(torch.stack(absolute).argmin())]
    return distances[[step - 1 for step in match]].mean()
