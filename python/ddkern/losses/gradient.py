# SPDX-License-Identifier: Apache-2.0
"""How far the gradients of a network on synthetic data are from those on real data.

The distances of gradient matching, [1]_ and [2]_, and the norm that [3]_ adds to them.

References
----------
.. [1] B. Zhao, K. R. Mopuri and H. Bilen, "Dataset condensation with gradient matching", ICLR 2021.
.. [2] W. Jin et al., "Condensing graphs via one-step gradient matching", KDD 2022.
.. [3] S. Wang et al., "Not all samples should be utilized equally: towards understanding and
   improving dataset distillation", arXiv:2408.12483, 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ddkern import _core, kernel_calls
from ddkern.checks import check_choice
from ddkern.losses import trajectory_ops
from ddkern.losses.buffers import empty_like
from ddkern.losses.lists import (
    Parameters,
    any_needed,
    as_lists,
    dense,
    dtype_of_result,
    host_array,
)

__all__ = [
    "GradientMetric",
    "gradient_distance",
    "gradient_distance_reference",
    "gradient_norm",
    "gradient_norm_reference",
]

GradientMetric: TypeAlias = Literal["cosine", "flat_cosine", "mse", "normalized_mse", "euclidean"]

# What keeps the quotient finite where a gradient is zero; the value of reference 1.
_EPSILON = 1e-6

# The operations live in torch's registry, so that torch.compile sees them as one node each.
_LIBRARY: Any = torch.library.Library("ddkern", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("row_products(Tensor[] a, Tensor[] b) -> Tensor")
_LIBRARY.define("row_combination(Tensor[] a, Tensor[] b, Tensor of_a, Tensor of_b) -> Tensor[]")

_Products: TypeAlias = Callable[[list[Tensor], list[Tensor]], Tensor]
_Squares: TypeAlias = Callable[[list[Tensor], list[Tensor]], Tensor]


def gradient_distance(
    synthetic: Parameters, real: Parameters, metric: GradientMetric = "cosine"
) -> Tensor:
    """Distance between the gradients of one network on two batches.

    Parameters
    ----------
    synthetic, real : Tensor or sequence of Tensor
        Gradients of the network's parameters, the same shapes in both, of one floating dtype and
        device. Lists are not flattened.
    metric : str
        With ``s`` and ``r`` for the gradients of all parameters together:

        ``"cosine"``
            ``1 - <s_i, r_i> / (|s_i| |r_i| + 1e-6)``, summed over rows ``i``, which are the outputs
            of layers: a tensor of shape ``(o, ...)`` has ``o`` of them [1]_. Tensors of one
            dimension or none, such as biases and scales of norms, count nothing, and no gradient
            reaches them.
        ``"flat_cosine"``
            ``1 - <s, r> / (|s| |r| + 1e-6)``.
        ``"mse"``
            ``|s - r|^2``: the sum, in spite of the name, which is that of the literature.
        ``"normalized_mse"``
            ``|s - r|^2 / |r|^2`` [2]_.
        ``"euclidean"``
            ``|s - r|``.

    Returns
    -------
    Tensor
        A single number, float32 (float64 for float64 gradients); differentiable any number of
        times with respect to both. The derivative of a norm is zero where the norm is.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, shapes, dtypes or devices differ, the metric is unknown,
        or no tensor has rows for ``"cosine"``. Where ``real`` is zero, ``"normalized_mse"`` is
        infinite, or NaN.

    Notes
    -----
    Float32 and bfloat16 gradients take one pass over the two, and the derivative one more: on the
    CPU, and on CUDA devices of compute capability 8.0 and up where ddkern was built with CUDA. The
    sums of every row, or tensor, are float64 and have the same bits for any number of threads,
    every instruction set and every device. On CUDA nothing waits for the device, and a call can be
    captured in a graph. Other devices and dtypes go through :func:`gradient_distance_reference`.

    References
    ----------
    .. [1] B. Zhao, K. R. Mopuri and H. Bilen, "Dataset condensation with gradient matching", ICLR
       2021, section 3.2, with the constant of its code.
    .. [2] W. Jin et al., "Condensing graphs via one-step gradient matching", KDD 2022.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import gradient_distance
    >>> synthetic, real = torch.eye(2), torch.tensor([[2.0, 0.0], [-3.0, 0.0]])
    >>> gradient_distance(synthetic, real)  # a row that agrees, and one at a right angle
    tensor(1.0000)
    >>> gradient_distance(synthetic, real, "mse")
    tensor(11.)
    """
    return _distance(synthetic, real, metric, torch.ops.ddkern.row_products, _squares)


def gradient_distance_reference(
    synthetic: Parameters, real: Parameters, metric: GradientMetric = "cosine"
) -> Tensor:
    """What :func:`gradient_distance` computes, in operations of torch."""
    return _distance(synthetic, real, metric, _products_in_torch, _squares_in_torch)


def gradient_norm(gradient: Parameters) -> Tensor:
    """``|g|`` over all parameters together: how hard samples are for a network.

    Parameters
    ----------
    gradient : Tensor or sequence of Tensor
        Gradients of a network's parameters, of one floating dtype and device.

    Returns
    -------
    Tensor
        A single number, float32 (float64 for float64 gradients); differentiable any number of
        times, with the derivative zero where the norm is.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or dtypes or devices differ.

    References
    ----------
    .. [1] S. Wang et al., "Not all samples should be utilized equally: towards understanding and
       improving dataset distillation", arXiv:2408.12483, 2024.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import gradient_norm
    >>> gradient_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    tensor(5.)
    """
    return _norm(gradient, torch.ops.ddkern.row_products)


def gradient_norm_reference(gradient: Parameters) -> Tensor:
    """What :func:`gradient_norm` computes, in operations of torch."""
    return _norm(gradient, _products_in_torch)


# ------------------------------------------------------------------------------------ the formulas


def _distance(
    synthetic: Parameters,
    real: Parameters,
    metric: str,
    products: _Products,
    squares: _Squares,
) -> Tensor:
    check_choice("metric", metric, get_args(GradientMetric))
    s, r = as_lists({"synthetic": synthetic, "real": real})
    found: Tensor
    if metric == "cosine":
        found = _one_minus_cosine(products(_rows(s), _rows(r))).sum()
    elif metric == "flat_cosine":
        found = _one_minus_cosine(products(_flat(s), _flat(r)).sum(1))
    else:
        found = squares(s, r)
        if metric == "euclidean":
            found = _root(found)
        elif metric == "normalized_mse":
            found = found / _square(r, products)
    return found.to(dtype_of_result(s))


def _norm(gradient: Parameters, products: _Products) -> Tensor:
    (tensors,) = as_lists({"gradient": gradient})
    return _root(_square(tensors, products)).to(dtype_of_result(tensors))


def _rows(tensors: list[Tensor]) -> list[Tensor]:
    """Matrices with a row for each output of a layer."""
    found = [tensor.flatten(1) for tensor in tensors if tensor.ndim > 1]
    if not found:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(
            f"metric='cosine' compares rows, and the gradients have shapes {shapes}; one of them "
            "must have two dimensions or more"
        )
    return found


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.reshape(1, tensor.numel()) for tensor in tensors]


def _one_minus_cosine(products: Tensor) -> Tensor:
    dot, square_a, square_b = products.unbind()
    return 1 - dot / (_root(square_a) * _root(square_b) + _EPSILON)


def _root(square: Tensor) -> Tensor:
    """The square root; its derivative is 0 where it is 0, not infinite."""
    at_zero = square == 0
    return torch.where(at_zero, 0.0, torch.where(at_zero, 1.0, square).sqrt())


def _square(tensors: list[Tensor], products: _Products) -> Tensor:
    # The other side is detached: its part of the derivative is zero, and need not be computed.
    flat = _flat(tensors)
    squares: Tensor = products(flat, [tensor.detach() for tensor in flat])[1]
    return squares.sum()


def _squares(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return trajectory_ops.sums(a, b, [], [], 0)[0]


def _squares_in_torch(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return trajectory_ops.sums_in_torch(a, b, [], [], 0)[0]


# ---------------------------------------------------------------------------------- the operations


def _products_in_torch(a: list[Tensor], b: list[Tensor]) -> Tensor:
    parts = []
    for narrow_x, narrow_y in zip(a, b, strict=True):
        x, y = narrow_x.double(), narrow_y.double()
        parts.append(torch.stack([(x * y).sum(1), x.square().sum(1), y.square().sum(1)]))
    return torch.cat(parts, 1)


def _combination_in_torch(
    a: list[Tensor], b: list[Tensor], of_a: Tensor, of_b: Tensor
) -> list[Tensor]:
    rows = [len(x) for x in a]
    return [
        (p[:, None] * x.double() + q[:, None] * y.double()).to(x.dtype)
        for x, y, p, q in zip(a, b, torch.split(of_a, rows), torch.split(of_b, rows), strict=True)
    ]


def _products(a: list[Tensor], b: list[Tensor]) -> Tensor:
    found: Tensor = kernel_calls.dispatch(
        a,
        (a, b),
        on_cpu=_products_on_cpu,
        on_device=_products_on_device,
        in_torch=_products_in_torch,
    )
    return found


def _combination(a: list[Tensor], b: list[Tensor], of_a: Tensor, of_b: Tensor) -> list[Tensor]:
    found: list[Tensor] = kernel_calls.dispatch(
        a,
        (a, b, of_a, of_b),
        on_cpu=_combination_on_cpu,
        on_device=_combination_on_device,
        in_torch=_combination_in_torch,
    )
    return found


def _products_on_device(module: Any, a: list[Tensor], b: list[Tensor]) -> Tensor:
    first, shapes = a[0], _shapes(a)
    flat = {"a": [dense(x) for x in a], "b": [dense(x) for x in b]}
    n_workspace = module.products_workspace(**shapes)
    workspace = first.new_empty(n_workspace, dtype=torch.float64)
    out = _products_shape(a, b)
    kernel_calls.run(
        module.row_products,
        first.device,
        **{name: kernel_calls.addresses(xs, a, name) for name, xs in flat.items()},
        **shapes,
        bfloat16=first.dtype == torch.bfloat16,
        workspace=workspace.data_ptr(),
        out=out.data_ptr(),
    )
    return out


def _combination_on_device(
    module: Any, a: list[Tensor], b: list[Tensor], of_a: Tensor, of_b: Tensor
) -> list[Tensor]:
    first, shapes = a[0], _shapes(a)
    out = _combination_shape(a, b, of_a, of_b)
    flat = {"a": [dense(x) for x in a], "b": [dense(x) for x in b], "out": out}
    factors = {}
    for name, of in (("of_a", of_a), ("of_b", of_b)):
        if of.numel() != sum(shapes["n_rows"]):
            raise ValueError(f"{name} has {of.numel()} factors; it must have one for each row")
        factors[name] = of.detach().to(first.device, torch.float64).contiguous()
    kernel_calls.run(
        module.row_combination,
        first.device,
        **{name: kernel_calls.addresses(xs, a, name) for name, xs in flat.items()},
        **shapes,
        bfloat16=first.dtype == torch.bfloat16,
        **{name: of.data_ptr() for name, of in factors.items()},
    )
    return out


def _shapes(matrices: list[Tensor]) -> dict[str, list[int]]:
    return {"n_rows": [x.shape[0] for x in matrices], "n_columns": [x.shape[1] for x in matrices]}


def _products_on_cpu(a: list[Tensor], b: list[Tensor]) -> Tensor:
    out = torch.empty(3, sum(map(len, a)), dtype=torch.float64)
    _core.row_products(
        a=[host_array(x) for x in a],
        b=[host_array(x) for x in b],
        out=out.numpy(),
        n_threads=kernel_calls.n_threads(),
    )
    return out


def _combination_on_cpu(
    a: list[Tensor], b: list[Tensor], of_a: Tensor, of_b: Tensor
) -> list[Tensor]:
    out = [empty_like(x) for x in a]
    _core.row_combination(
        a=[host_array(x) for x in a],
        b=[host_array(x) for x in b],
        of_a=host_array(of_a),
        of_b=host_array(of_b),
        out=[host_array(x) for x in out],
        n_threads=kernel_calls.n_threads(),
    )
    return out


def _products_shape(a: list[Tensor], b: list[Tensor]) -> Tensor:  # noqa: ARG001
    return a[0].new_empty(3, sum(len(x) for x in a), dtype=torch.float64)


def _combination_shape(
    a: list[Tensor],
    b: list[Tensor],  # noqa: ARG001
    of_a: Tensor,  # noqa: ARG001
    of_b: Tensor,  # noqa: ARG001
) -> list[Tensor]:
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]


def _keep_products(ctx: Any, inputs: tuple[list[Tensor], ...], output: Tensor) -> None:  # noqa: ARG001
    a, b = inputs
    ctx.count = len(a)
    ctx.save_for_backward(*a, *b)


def _products_backward(ctx: Any, grad: Tensor) -> tuple[Any, Any]:
    saved = list(ctx.saved_tensors)
    a, b = saved[: ctx.count], saved[ctx.count :]
    for_a, for_b = map(any_needed, ctx.needs_input_grad)
    combine = torch.ops.ddkern.row_combination
    of_dot, of_square_a, of_square_b = (part.contiguous() for part in grad)
    of_a = combine(a, b, 2 * of_square_a, of_dot) if for_a else [None] * ctx.count
    of_b = combine(a, b, of_dot, 2 * of_square_b) if for_b else [None] * ctx.count
    return of_a, of_b


def _keep_combination(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    a, b, of_a, of_b = inputs
    ctx.count = len(a)
    ctx.save_for_backward(*a, *b, of_a, of_b)


def _combination_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    *saved, of_a, of_b = ctx.saved_tensors
    a, b = saved[: ctx.count], saved[ctx.count :]
    given = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, a, strict=True)]
    rows = [len(x) for x in a]
    to_a, to_b = (
        [
            (f[:, None] * g.double()).to(g.dtype)
            for f, g in zip(torch.split(of, rows), given, strict=True)
        ]
        for of in (of_a, of_b)
    )
    products = torch.ops.ddkern.row_products
    return to_a, to_b, products(given, a)[0], products(given, b)[0]


for _name, _op, _shape, _backward, _keep in (
    ("row_products", _products, _products_shape, _products_backward, _keep_products),
    (
        "row_combination",
        _combination,
        _combination_shape,
        _combination_backward,
        _keep_combination,
    ),
):
    _LIBRARY.impl(_name, _op, "CPU")
    _LIBRARY.impl(_name, _op, "CUDA")
    torch.library.register_fake(f"ddkern::{_name}", _shape)
    torch.library.register_autograd(f"ddkern::{_name}", _backward, setup_context=_keep)
