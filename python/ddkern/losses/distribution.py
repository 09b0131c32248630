# SPDX-License-Identifier: Apache-2.0
"""How far features of synthetic data are from those of real data, as distributions.

Class means, [1]_, and the maximum mean discrepancy, [2]_ and [3]_.

References
----------
.. [1] B. Zhao and H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
.. [2] A. Gretton et al., "A kernel two-sample test", JMLR 13, 2012.
.. [3] H. Zhang et al., "M3D: dataset condensation by minimizing maximum mean discrepancy", AAAI
   2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ddkern import _core, kernel_calls
from ddkern.checks import as_count, as_number
from ddkern.losses.lists import dense, dtype_of_result, host_array

__all__ = [
    "mean_distance",
    "mean_distance_reference",
    "mmd",
    "mmd_bandwidths",
    "mmd_reference",
    "segment_means",
    "segment_means_reference",
]

# The operations live in torch's registry, so that torch.compile sees them as one node each. `name`
# is what the caller calls the labels: only the operation learns whether a class is empty.
_LIBRARY: Any = torch.library.Library("ddkern", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("segment_means(Tensor values, Tensor labels, int n_classes, str name) -> Tensor")
_LIBRARY.define("mmd_means(Tensor x, Tensor y, Tensor rates) -> Tensor")
_LIBRARY.define("mmd_pull(Tensor x, Tensor y, Tensor rates, Tensor own, Tensor cross) -> Tensor")

# What the kernels here take.
_KERNEL_DTYPES = (torch.float32,)

# Rates that one launch of a kernel takes along, as numbers: csrc/matching/cuda/distribution.h.
_MOST_RATES = 32

_Means: TypeAlias = Callable[[Tensor, Tensor, int, str], Tensor]
_BlockMeans: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def segment_means(values: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Mean of the rows of each class.

    Parameters
    ----------
    values : Tensor, shape (n, features)
        Of floating point.
    labels : Tensor, shape (n,)
        Integers in ``[0, n_classes)``, each of which occurs.
    n_classes : int

    Returns
    -------
    Tensor, shape (n_classes, features)
        float64; differentiable any number of times with respect to ``values``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, a label is out of range, or a class is empty.
        The kernel on CUDA does not wait to find out: all means are NaN where a label is out of
        range, and those of a class where it is empty.

    Notes
    -----
    Float32 values take one pass: on the CPU, and on CUDA devices of compute capability 8.0 and up
    where ddkern was built with CUDA. Sums are float64, of the rows of a class in their order: the
    same bits for any number of threads, every instruction set and every device. On CUDA nothing
    waits for the device, and a call can be captured in a graph. Other devices and dtypes go through
    :func:`segment_means_reference`.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import segment_means
    >>> segment_means(torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([0, 1, 0]), 2)
    tensor([[2.],
            [5.]], dtype=torch.float64)
    """
    return _segment_means(values, labels, n_classes, torch.ops.ddkern.segment_means)


def segment_means_reference(values: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """What :func:`segment_means` computes, in operations of torch."""
    return _segment_means(values, labels, n_classes, _means_in_torch)


def mean_distance(
    synthetic: Tensor,
    real: Tensor,
    synthetic_labels: Tensor,
    real_labels: Tensor,
    *,
    n_classes: int | None = None,
) -> Tensor:
    """Squared distances between class means of features, summed over features and classes.

    Parameters
    ----------
    synthetic, real : Tensor, shapes (n, features) and (m, features)
        Features of two batches, of one floating dtype and device.
    synthetic_labels, real_labels : Tensor, shapes (n,) and (m,)
        Classes as integers.
    n_classes : int, optional
        Classes are ``0, ..., n_classes - 1``. By default they are those that occur; which these are
        has to be looked up, for which a GPU is waited for, and which one graph of ``torch.compile``
        cannot do.

    Returns
    -------
    Tensor
        A single number, float32 (float64 for float64 features); differentiable any number of times
        with respect to the features.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, dtypes or devices differ, a label is out of
        range, or a class has rows on one side only. Given ``n_classes``, the distance is NaN
        instead where :func:`segment_means` gives NaN.

    Notes
    -----
    Means are those of :func:`segment_means`, and are subtracted in float64: what two close means
    have in common does not cost precision.

    References
    ----------
    .. [1] B. Zhao and H. Bilen, "Dataset condensation with distribution matching", WACV 2023.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import mean_distance
    >>> synthetic, real = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [4.0, 4.0]])
    >>> mean_distance(synthetic, real, torch.tensor([7]), torch.tensor([7, 7]))
    tensor(8.)
    """
    labels = {"synthetic_labels": synthetic_labels, "real_labels": real_labels}
    return _mean_distance(synthetic, real, labels, n_classes, torch.ops.ddkern.segment_means)


def mean_distance_reference(
    synthetic: Tensor,
    real: Tensor,
    synthetic_labels: Tensor,
    real_labels: Tensor,
    *,
    n_classes: int | None = None,
) -> Tensor:
    """What :func:`mean_distance` computes, in operations of torch."""
    labels = {"synthetic_labels": synthetic_labels, "real_labels": real_labels}
    return _mean_distance(synthetic, real, labels, n_classes, _means_in_torch)


def mmd(synthetic: Tensor, real: Tensor, bandwidths: float | Sequence[float] | Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two sets of features.

    ``mean k(s, s') - 2 mean k(s, r) + mean k(r, r')`` over all pairs, those of a point with itself
    included (the biased estimate), with ``k(x, y) = sum_i exp(-|x - y|^2 / (2 bandwidths[i]^2))``.

    Parameters
    ----------
    synthetic, real : Tensor, shapes (n, features) and (m, features)
        One row each at least, of one floating dtype and device.
    bandwidths : float, sequence of float, or Tensor of shape (kernels,)
        Positive, one for each kernel of the sum; see :func:`mmd_bandwidths`. Constants: no gradient
        reaches them.

    Returns
    -------
    Tensor
        A single number, float32 (float64 for float64 features), differentiable any number of times
        with respect to the features. Zero for equal sets, up to rounding in float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, dtypes or devices differ, or a bandwidth is not
        positive and finite; bandwidths on a device are not looked at.

    Notes
    -----
    Float32 features have kernels on the CPU, and on CUDA devices of compute capability 8.0 and up
    where ddkern was built with CUDA. They are taken 16 by 16 points: no matrix of distances or
    kernels is stored, neither for the value nor for the derivative. What is: on the CPU a float64
    copy of the features; on CUDA a sum for every 16 by 16 points, and for the derivative the
    weights of some points at a time (32 MB, more for sets of many thousands). Everything is float64
    and has the same bits for any number of threads, every instruction set and every device. On CUDA
    nothing waits for the device as long as bandwidths lie there, or are at most 32 numbers, and a
    call can be captured in a graph. Other devices and dtypes, and derivatives with
    ``create_graph=True``, take operations of torch.

    References
    ----------
    .. [1] A. Gretton et al., "A kernel two-sample test", JMLR 13, 2012, equation 5.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import mmd
    >>> mmd(torch.tensor([[0.0]]), torch.tensor([[1.0]]), 1.0)  # 2 - 2 exp(-1 / 2)
    tensor(0.7869)
    """
    return _mmd(synthetic, real, bandwidths, torch.ops.ddkern.mmd_means)


def mmd_reference(
    synthetic: Tensor, real: Tensor, bandwidths: float | Sequence[float] | Tensor
) -> Tensor:
    """What :func:`mmd` computes, in operations of torch."""
    return _mmd(synthetic, real, bandwidths, _block_means_in_torch)


@torch.no_grad()
def mmd_bandwidths(synthetic: Tensor, real: Tensor, n_kernels: int = 5) -> Tensor:
    """Bandwidths that fit the scale of the data, each squared twice the one before.

    Parameters
    ----------
    synthetic, real : Tensor, shapes (n, features) and (m, features)
        Of one floating dtype and device.
    n_kernels : int
        How many.

    Returns
    -------
    Tensor, shape (n_kernels,)
        float64, without a gradient. With ``h`` for the mean squared distance between two different
        points of both sets together, ``2 bandwidths[i]^2 = h 2^(i - n_kernels // 2)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape, dtypes or devices differ, or all points are
        equal; on other devices than the CPU, which are not waited for, bandwidths are 0 then.

    References
    ----------
    .. [1] H. Zhang et al., "M3D: dataset condensation by minimizing maximum mean discrepancy", AAAI
       2024.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import mmd_bandwidths
    >>> mmd_bandwidths(torch.tensor([[0.0]]), torch.tensor([[2.0]]), 3)  # h = 4
    tensor([1.0000, 1.4142, 2.0000], dtype=torch.float64)
    """
    _check_features(synthetic, real)
    as_count("n_kernels", n_kernels)
    both = torch.cat([synthetic, real]).double()
    # The mean over pairs, from distances to the mean.
    spread = 2 * (both - both.mean(0)).square().sum() / (len(both) - 1)
    if spread.is_cpu and spread == 0:
        raise ValueError("synthetic and real hold equal points alone; their bandwidth would be 0")
    powers = torch.arange(n_kernels, dtype=torch.float64, device=both.device) - n_kernels // 2
    return (spread / 2 * 2.0**powers).sqrt()


# ------------------------------------------------------------------------------------ the formulas


def _segment_means(values: Tensor, labels: Tensor, n_classes: int, means: _Means) -> Tensor:
    _check_matrix("values", values)
    _check_labels("labels", labels, "values", values)
    as_count("n_classes", n_classes)
    return means(values, labels, n_classes, "labels")


def _mean_distance(
    synthetic: Tensor,
    real: Tensor,
    labels: dict[str, Tensor],
    n_classes: int | None,
    means: _Means,
) -> Tensor:
    _check_features(synthetic, real)
    of_synthetic, of_real = labels
    _check_labels(of_synthetic, labels[of_synthetic], "synthetic", synthetic)
    _check_labels(of_real, labels[of_real], "real", real)
    if n_classes is None:
        labels, n_classes = _numbered(labels)
    else:
        as_count("n_classes", n_classes)
    difference = means(synthetic, labels[of_synthetic], n_classes, of_synthetic) - means(
        real, labels[of_real], n_classes, of_real
    )
    # Class by class, whose sums torch does not share among threads.
    return difference.square().sum(1).sum().to(dtype_of_result([synthetic]))


def _numbered(labels: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Labels as numbers of the classes that occur, and how many there are."""
    classes, numbers = torch.unique(torch.cat(list(labels.values())), return_inverse=True)
    parts = torch.split(numbers, [len(part) for part in labels.values()])
    for name, part in zip(labels, parts, strict=True):
        empty = torch.bincount(part, minlength=len(classes)) == 0
        if empty.any():
            raise ValueError(
                f"{name} has no row of class {int(classes[empty][0])}, which occurs on the other "
                "side; every class must have rows on both"
            )
    return dict(zip(labels, parts, strict=True)), len(classes)


def _mmd(synthetic: Tensor, real: Tensor, bandwidths: Any, block_means: _BlockMeans) -> Tensor:
    _check_features(synthetic, real)
    means = block_means(synthetic, real, _rates(bandwidths, synthetic.device))
    return (means[0] - 2 * means[1] + means[2]).to(dtype_of_result([synthetic]))


def _rates(bandwidths: Any, device: torch.device) -> Tensor:
    """What squared distances are multiplied by in the exponent, but for the sign.

    Those of numbers stay on the CPU: to send them to a device would be to wait for it.
    """
    if isinstance(bandwidths, Tensor):
        if bandwidths.ndim != 1 or len(bandwidths) == 0 or not bandwidths.is_floating_point():
            raise ValueError(
                f"bandwidths has shape {tuple(bandwidths.shape)} and {bandwidths.dtype}; it must "
                "be of floating point, with shape (kernels,), one at least"
            )
        # Looking at values would cut a graph in two, and wait for a device.
        if torch.compiler.is_compiling() or not (bandwidths.is_cpu or device.type == "cpu"):
            return 0.5 / bandwidths.detach().double().square()
        bandwidths = bandwidths.tolist()
    values = list(bandwidths) if isinstance(bandwidths, Iterable) else [bandwidths]
    if not values:
        raise ValueError("bandwidths is empty; it must hold one number at least")
    rule = "it must be a positive number whose square is neither zero nor infinite"
    checked = [
        as_number(f"bandwidths[{index}]", value, at_least=1e-150, at_most=1e150, rule=rule)
        for index, value in enumerate(values)
    ]
    return torch.tensor([0.5 / b**2 for b in checked], dtype=torch.float64)


def _check_matrix(name: str, values: Any) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floating point")
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; it must be (rows, features), with one row at "
            "least"
        )


def _check_features(synthetic: Any, real: Any) -> None:
    _check_matrix("synthetic", synthetic)
    _check_matrix("real", real)
    found = (real.shape[1], real.dtype, real.device)
    expected = (synthetic.shape[1], synthetic.dtype, synthetic.device)
    if found != expected:
        raise ValueError(
            f"real has {found[0]} features, {found[1]} on {found[2]}; it must have {expected[0]} "
            f"features, {expected[1]} on {expected[2]}, as synthetic"
        )


def _check_labels(name: str, labels: Any, of: str, values: Tensor) -> None:
    if (
        not isinstance(labels, Tensor)
        or labels.dtype == torch.bool
        or labels.is_floating_point()
        or labels.is_complex()
    ):
        raise TypeError(f"{name} must be a tensor of integers")
    if labels.shape != values.shape[:1] or labels.device != values.device:
        raise ValueError(
            f"{name} has shape {tuple(labels.shape)} on {labels.device}; it must have shape "
            f"{tuple(values.shape[:1])} on {values.device}, one label for each row of {of}"
        )


# ------------------------------------------------------------------------- the operations of means


def _counts(labels: Tensor, n_classes: int, name: str) -> Tensor:
    wrong = labels[(labels < 0) | (labels >= n_classes)]
    if len(wrong):
        raise ValueError(
            f"{name} holds {int(wrong[0])}; with n_classes={n_classes} labels must be in "
            f"[0, {n_classes})"
        )
    counts = torch.bincount(labels, minlength=n_classes)
    if (counts == 0).any():
        empty = int((counts == 0).nonzero()[0])
        raise ValueError(f"{name} has no row of class {empty}; every class must have rows")
    return counts


def _means_in_torch(values: Tensor, labels: Tensor, n_classes: int, name: str) -> Tensor:
    counts = _counts(labels, n_classes, name)
    sums = values.new_zeros((n_classes, values.shape[1]), dtype=torch.float64)
    return sums.index_add(0, labels.long(), values.double()) / counts[:, None]


def _means(values: Tensor, labels: Tensor, n_classes: int, name: str) -> Tensor:
    found: Tensor = kernel_calls.dispatch(
        [values],
        (values, labels, n_classes, name),
        on_cpu=_means_on_cpu,
        on_device=_means_on_device,
        in_torch=_means_in_torch,
        dtypes=_KERNEL_DTYPES,
    )
    return found


def _means_on_device(
    module: Any, values: Tensor, labels: Tensor, n_classes: int, name: str
) -> Tensor:
    if labels.shape != values.shape[:1] or labels.device != values.device:
        raise ValueError(f"{name} must hold one label for each row, on their device")
    rows, index = dense(values), labels.long().contiguous()
    n_rows, n_features = values.shape
    n_workspace = module.segment_workspace(n_rows=n_rows, n_classes=n_classes)
    workspace = values.new_empty(n_workspace, dtype=torch.float64)
    out = _means_shape(values, labels, n_classes, name)
    kernel_calls.run(
        module.segment_means,
        values.device,
        values=rows.data_ptr(),
        labels=index.data_ptr(),
        n_rows=n_rows,
        n_features=n_features,
        n_classes=n_classes,
        workspace=workspace.data_ptr(),
        out=out.data_ptr(),
    )
    return out


def _means_on_cpu(values: Tensor, labels: Tensor, n_classes: int, name: str) -> Tensor:
    counts = _counts(labels, n_classes, name)
    out = torch.empty(n_classes, values.shape[1], dtype=torch.float64)
    _core.segment_means(
        values=host_array(values),
        labels=host_array(labels.long()),
        counts=host_array(counts),
        out=out.numpy(),
        n_threads=kernel_calls.n_threads(),
    )
    return out


def _means_shape(values: Tensor, labels: Tensor, n_classes: int, name: str) -> Tensor:  # noqa: ARG001
    return values.new_empty((n_classes, values.shape[1]), dtype=torch.float64)


def _keep_means(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    values, labels, ctx.n_classes, _ = inputs
    ctx.dtype = values.dtype
    ctx.save_for_backward(labels)


def _means_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (labels,) = ctx.saved_tensors
    # On a device nobody has looked at the labels; one out of range has made NaN of everything.
    index = labels.long().clamp(0, ctx.n_classes - 1)
    counts = grad.new_zeros(ctx.n_classes).index_add(0, index, grad.new_ones(len(index)))
    return (grad / counts[:, None]).index_select(0, index).to(ctx.dtype), None, None, None


# --------------------------------------------------------------------------- the operations of mmd


def _squares_in_torch(x: Tensor, y: Tensor) -> Tensor:
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    return (norms - 2 * x @ y.T).clamp_min(0)


def _block_means_in_torch(x: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    x, y = x.double(), y.double()
    means = []
    for a, b in ((x, x), (x, y), (y, y)):
        squares = _squares_in_torch(a, b)
        kernels = [torch.exp(-rate * squares).mean() for rate in rates.unbind()]
        means.append(torch.stack(kernels).sum())
    return torch.stack(means)


def _pull_in_torch(x: Tensor, y: Tensor, rates: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    wide = x.double()
    total = torch.zeros_like(wide)
    for points, factor in ((wide, own), (y.double(), cross)):
        squares = _squares_in_torch(wide, points)
        weights = torch.zeros_like(squares)
        for rate in rates.unbind():
            weights = weights + factor * rate * torch.exp(-rate * squares)
        total = total + weights.sum(1)[:, None] * wide - weights @ points
    return total.to(x.dtype)


def _block_means(x: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    found: Tensor = kernel_calls.dispatch(
        [x],
        (x, y, rates),
        on_cpu=_block_means_on_cpu,
        on_device=_block_means_on_device,
        in_torch=_block_means_in_torch,
        dtypes=_KERNEL_DTYPES,
    )
    return found


def _pull(x: Tensor, y: Tensor, rates: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    found: Tensor = kernel_calls.dispatch(
        [x],
        (x, y, rates, own, cross),
        on_cpu=_pull_on_cpu,
        on_device=_pull_on_device,
        in_torch=_pull_in_torch,
        dtypes=_KERNEL_DTYPES,
    )
    return found


def _block_means_on_device(module: Any, x: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    points, numbers, at = _kernel_arguments(x, y, rates)
    n_workspace = module.mmd_workspace(n=len(x), m=len(y))
    workspace = x.new_empty(n_workspace, dtype=torch.float64)
    out = _block_means_shape(x, y, rates)
    kernel_calls.run(
        module.mmd_means,
        x.device,
        x=points[0].data_ptr(),
        y=points[1].data_ptr(),
        n=len(x),
        m=len(y),
        n_features=x.shape[1],
        rates=numbers,
        rates_at=at.data_ptr(),
        n_rates_at=len(at),
        workspace=workspace.data_ptr(),
        out=out.data_ptr(),
    )
    return out


def _pull_on_device(
    module: Any, x: Tensor, y: Tensor, rates: Tensor, own: Tensor, cross: Tensor
) -> Tensor:
    points, numbers, at = _kernel_arguments(x, y, rates)
    factors = [factor.detach().to(x.device, torch.float64) for factor in (own, cross)]
    n_workspace = module.pull_workspace(n=len(x), m=len(y))
    workspace = x.new_empty(n_workspace, dtype=torch.float64)
    out = _pull_shape(x, y, rates, own, cross)
    kernel_calls.run(
        module.mmd_pull,
        x.device,
        x=points[0].data_ptr(),
        y=points[1].data_ptr(),
        n=len(x),
        m=len(y),
        n_features=x.shape[1],
        rates=numbers,
        rates_at=at.data_ptr(),
        n_rates_at=len(at),
        own=factors[0].data_ptr(),
        cross=factors[1].data_ptr(),
        workspace=workspace.data_ptr(),
        out=out.data_ptr(),
    )
    return out


def _kernel_arguments(
    x: Tensor, y: Tensor, rates: Tensor
) -> tuple[list[Tensor], list[float], Tensor]:
    """Two sets without gaps; rates as numbers, or where that is empty in the memory of a device."""
    if (y.shape[1:], y.dtype, y.device) != (x.shape[1:], x.dtype, x.device):
        raise ValueError("y has other features, another dtype or device than x")
    points = [dense(x), dense(y)]
    if rates.is_cpu and len(rates) <= _MOST_RATES:
        return points, rates.tolist(), rates.new_empty(0)
    return points, [], rates.detach().to(x.device, torch.float64).contiguous()


def _block_means_on_cpu(x: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    means = _core.mmd_means(
        x=host_array(x),
        y=host_array(y),
        rates=host_array(rates),
        n_threads=kernel_calls.n_threads(),
    )
    return torch.tensor(means, dtype=torch.float64)


def _pull_on_cpu(x: Tensor, y: Tensor, rates: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype)
    _core.mmd_pull(
        x=host_array(x),
        y=host_array(y),
        rates=host_array(rates),
        own=float(own),
        cross=float(cross),
        out=out.numpy(),
        n_threads=kernel_calls.n_threads(),
    )
    return out


def _block_means_shape(x: Tensor, y: Tensor, rates: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty(3, dtype=torch.float64)


def _pull_shape(x: Tensor, y: Tensor, rates: Tensor, own: Tensor, cross: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape)


def _keep_block_means(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _block_means_backward(ctx: Any, grad: Tensor) -> tuple[Any, Any, None]:
    x, y, rates = ctx.saved_tensors
    for_x, for_y, _ = ctx.needs_input_grad
    # The operation has no derivative of its own; what torch computes has one of any order.
    pull = _pull_in_torch if torch.is_grad_enabled() else torch.ops.ddkern.mmd_pull
    n, m = len(x), len(y)
    cross = -2 / (n * m) * grad[1]
    of_x = pull(x, y, rates, -4 / n**2 * grad[0], cross) if for_x else None
    of_y = pull(y, x, rates, -4 / m**2 * grad[2], cross) if for_y else None
    return of_x, of_y, None


for _name, _op, _shape in (
    ("segment_means", _means, _means_shape),
    ("mmd_means", _block_means, _block_means_shape),
    ("mmd_pull", _pull, _pull_shape),
):
    _LIBRARY.impl(_name, _op, "CPU")
    _LIBRARY.impl(_name, _op, "CUDA")
    torch.library.register_fake(f"ddkern::{_name}", _shape)
torch.library.register_autograd("ddkern::segment_means", _means_backward, setup_context=_keep_means)
torch.library.register_autograd(
    "ddkern::mmd_means", _block_means_backward, setup_context=_keep_block_means
)
