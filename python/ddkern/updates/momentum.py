# SPDX-License-Identifier: Apache-2.0
"""Stochastic gradient descent with momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from ddkern import _core, kernel_calls
from ddkern.updates.flat import array, check, coefficient, kernel_takes, scalar, write
from ddkern.updates.linear import axpy, axpy_reference

__all__ = ["sgd_step", "sgd_step_reference"]


def sgd_step(
    theta: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    *,
    lr: float | Tensor,
    momentum: float,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """``v = momentum velocity + gradient`` and ``theta - lr v``.

    Parameters
    ----------
    theta, velocity, gradient : Tensor
        Of one shape, floating dtype and device.
    lr : float or Tensor
        One number. A tensor on the device is not waited for.
    momentum : float
    in_place : bool
        Write to ``theta`` and ``velocity``, as under ``torch.no_grad``, and return them.

    Returns
    -------
    theta, velocity : Tensor
        Unless in place, differentiable any number of times with respect to the three and ``lr``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or shapes, dtypes or devices differ.

    Notes
    -----
    On the CPU and on CUDA, float32 takes one pass (two where gradients are wanted). Every operation
    is rounded, and the bits are the same for any number of threads, every instruction set and
    every device. Other devices and dtypes go through :func:`sgd_step_reference`.
    """
    check(theta=theta, velocity=velocity, gradient=gradient)
    rate = scalar("lr", lr)
    tensors = (theta, velocity, gradient)
    if in_place:
        if not (kernel_takes(*tensors) and theta.is_contiguous() and velocity.is_contiguous()):
            with torch.no_grad():
                new = sgd_step_reference(*tensors, lr=rate, momentum=momentum)
            return write(theta, new[0]), write(velocity, new[1])
        _into(theta, velocity, theta, velocity, gradient.contiguous(), rate, momentum)
        torch.autograd.graph.increment_version(theta)
        torch.autograd.graph.increment_version(velocity)
        return theta, velocity
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, rate))
    if recorded or torch.compiler.is_compiling() or not kernel_takes(*tensors):
        new_velocity = axpy(gradient, momentum, velocity)
        return axpy(theta, -rate, new_velocity), new_velocity
    new_theta = torch.empty(theta.shape, dtype=theta.dtype, device=theta.device)
    new_velocity = torch.empty_like(new_theta)
    dense = (theta.contiguous(), velocity.contiguous(), gradient.contiguous())
    _into(new_theta, new_velocity, *dense, rate, momentum)
    return new_theta, new_velocity


def sgd_step_reference(
    theta: Tensor, velocity: Tensor, gradient: Tensor, *, lr: float | Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """What :func:`sgd_step` computes, in operations of torch."""
    check(theta=theta, velocity=velocity, gradient=gradient)
    new_velocity = axpy_reference(gradient, momentum, velocity)
    return axpy_reference(theta, -scalar("lr", lr), new_velocity), new_velocity


def _into(
    theta_out: Tensor,
    velocity_out: Tensor,
    theta: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    rate: Tensor,
    momentum: float,
) -> None:
    vectors = {
        "theta": theta,
        "velocity": velocity,
        "gradient": gradient,
        "theta_out": theta_out,
        "velocity_out": velocity_out,
    }
    module = kernel_calls.module_for(theta)
    if module is None:
        _core.momentum_update(
            **{name: array(x) for name, x in vectors.items()},
            lr=float(rate.detach()),
            momentum=momentum,
            n_threads=kernel_calls.n_threads(),
        )
        return
    number, at = coefficient(rate.detach(), theta.device)
    kernel_calls.run(
        module.momentum_update,
        theta.device,
        n=theta.numel(),
        **{name: x.data_ptr() for name, x in vectors.items()},
        lr=number,
        lr_at=0 if at is None else at.data_ptr(),
        momentum=momentum,
    )
