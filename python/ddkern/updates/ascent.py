# SPDX-License-Identifier: Apache-2.0
"""The step up that comes before a sharpness-aware step down.

P. Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021,
equation 2; the adaptive form of J. Kwon et al., "ASAM", ICML 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddkern import _core, kernel_calls
from ddkern.checks import as_number
from ddkern.updates.flat import array, check, kernel_takes, wide

__all__ = ["sam_ascent", "sam_ascent_reference"]


def sam_ascent(gradient: Tensor, *, rho: float, parameters: Tensor | None = None) -> Tensor:
    """``rho g / |g|``, or adaptively ``rho p^2 g / | p g |``.

    Parameters
    ----------
    gradient : Tensor, shape (..., n_parameters)
        Of one network, or of several at once: every vector along the last axis has a norm of its
        own.
    rho : float
        How far, at least 0.
    parameters : Tensor, optional
        ``p``, of the shape, dtype and device of ``gradient``: large parameters go further.

    Returns
    -------
    Tensor
        What to add to the parameters; 0 where the norm is 0. It has no derivative: the method
        takes it for a constant.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or shapes, dtypes or devices differ.

    Notes
    -----
    On the CPU and on CUDA, float32 takes one pass for the norms, whose sums are float64, and one
    more. The bits are the same for any number of threads, every instruction set and every device.
    Other devices and dtypes go through :func:`sam_ascent_reference`.

    Examples
    --------
    >>> import torch
    >>> from ddkern.updates import sam_ascent
    >>> sam_ascent(torch.tensor([3.0, 4.0]), rho=0.5)
    tensor([0.3000, 0.4000])
    """
    step = _checked(gradient, rho, parameters)
    if not kernel_takes(gradient) or gradient.numel() == 0:
        return sam_ascent_reference(gradient, rho=step, parameters=parameters)
    g = gradient.detach().contiguous()
    p = None if parameters is None else parameters.detach().contiguous()
    out = torch.empty(g.shape, dtype=g.dtype, device=g.device)
    n = g.shape[-1]
    n_rows = g.numel() // n
    module = kernel_calls.module_for(g)
    if module is None:
        _core.ascent_step(
            gradient=array(g).reshape(n_rows, n),
            size=None if p is None else array(p).reshape(n_rows, n),
            out=array(out).reshape(n_rows, n),
            rho=step,
            n_threads=kernel_calls.n_threads(),
        )
        return out
    n_workspace = module.ascent_workspace(n_rows=n_rows, n=n)
    workspace = torch.empty(n_workspace, dtype=torch.float64, device=g.device)
    kernel_calls.run(
        module.ascent_step,
        g.device,
        n_rows=n_rows,
        n=n,
        gradient=g.data_ptr(),
        size=0 if p is None else p.data_ptr(),
        out=out.data_ptr(),
        rho=step,
        workspace=workspace.data_ptr(),
    )
    return out


def sam_ascent_reference(
    gradient: Tensor, *, rho: float, parameters: Tensor | None = None
) -> Tensor:
    """What :func:`sam_ascent` computes, in operations of torch."""
    step = _checked(gradient, rho, parameters)
    g = gradient.detach()
    p = None if parameters is None else parameters.detach()
    weighted = g.double() if p is None else p.double() * g.double()
    norm = weighted.square().sum(-1, keepdim=True).sqrt()
    dtype = wide(g.dtype)
    factor = torch.where(norm == 0, 0.0, step / norm).to(dtype)
    direction = g.to(dtype) if p is None else p.to(dtype).square() * g.to(dtype)
    return (factor * direction).to(g.dtype)


def _checked(gradient: Tensor, rho: float, parameters: Tensor | None) -> float:
    others = {} if parameters is None else {"parameters": parameters}
    check(gradient=gradient, **others)
    if gradient.ndim == 0:
        raise ValueError("gradient has no axes; it must have one at least")
    return float(as_number("rho", rho, at_least=0))
