# SPDX-License-Identifier: Apache-2.0
"""How far parameters are from those of an expert, relative to where they started.

The distance of trajectory matching: G. Cazenavette et al., "Dataset distillation by matching
training trajectories", CVPR 2022, equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ddkern.losses import trajectory_ops
from ddkern.losses.lists import Parameters, as_groups, as_lists, dtype_of_result

__all__ = [
    "absolute_distance",
    "absolute_distance_reference",
    "squared_distance",
    "squared_distance_reference",
    "trajectory_distance",
    "trajectory_distance_reference",
]


def trajectory_distance(
    student: Parameters,
    target: Parameters,
    start: Parameters,
    *,
    groups: Sequence[int] | None = None,
    batch_dims: int = 0,
) -> Tensor:
    """``|student - target|^2 / |start - target|^2``, over all parameters together or by groups.

    Parameters
    ----------
    student, target, start : Tensor or sequence of Tensor
        Parameters of one network: where a student is, where it should be, where it began. Of any
        shapes, the same in all three, and of one floating dtype and device. Lists are not
        flattened.
    groups : sequence of int, optional
        For each tensor the id of its group, each of which has a distance of its own:
        ``range(len(student))`` for one a tensor, the same id for the tensors of one layer. All
        parameters are one group by default.
    batch_dims : int
        The first so many axes of every tensor count networks, and every network has a distance.
        They are broadcast: the students of many steps, of shape ``(steps, ...)``, have distances
        from one target of shape ``(1, ...)``, without copies of it.

    Returns
    -------
    Tensor
        float32 (float64 for float64 parameters), of no axes; with ``batch_dims`` of those axes,
        and with ``groups`` one more in the end, groups by ascending id. Differentiable any number
        of times with respect to all parameters.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, shapes, dtypes or devices differ, ``groups`` has another
        length, or ``start`` equals ``target``; on other devices than the CPU, which are not waited
        for, and under ``torch.compile`` the distance is infinite or NaN then.

    Notes
    -----
    Float32 and bfloat16 parameters take one pass over the three, and the derivative one more over
    two of them: on the CPU, and on CUDA devices of compute capability 8.0 and up where ddkern was
    built with CUDA. Sums are float64 and have the same bits for any number of threads, every
    instruction set and every device, alone and in a batch. On CUDA nothing waits for the device,
    and a call can be captured in a graph. Other devices and dtypes go through
    :func:`trajectory_distance_reference`.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import trajectory_distance
    >>> start, target = torch.zeros(4), torch.full((4,), 2.0)
    >>> trajectory_distance(torch.ones(4), target, start)
    tensor(0.2500)
    >>> steps = torch.stack([start, torch.ones(4), target])
    >>> trajectory_distance(steps, target[None], start[None], batch_dims=1)
    tensor([1.0000, 0.2500, 0.0000])
    """
    given = {"student": student, "target": target, "start": start}
    lists, ids = as_lists(given, batch_dims), as_groups(groups, given)
    return trajectory_ops.distance(lists, ids, batch_dims)


def squared_distance(
    a: Parameters, b: Parameters, *, groups: Sequence[int] | None = None, batch_dims: int = 0
) -> Tensor:
    """``|a - b|^2`` over all parameters together or by groups; see :func:`trajectory_distance`."""
    given = {"a": a, "b": b}
    lists, ids = as_lists(given, batch_dims), as_groups(groups, given)
    sums = trajectory_ops.sums(lists[0], lists[1], [], ids, batch_dims)
    return sums[0].to(dtype_of_result(lists[0]))


def absolute_distance(
    a: Parameters, b: Parameters, *, groups: Sequence[int] | None = None, batch_dims: int = 0
) -> Tensor:
    """``|a - b|`` summed over all parameters or by groups; see :func:`trajectory_distance`.

    What matching with automatic lengths compares the steps of a student by: D. Liu et al.,
    "Dataset distillation by automatic training trajectories", ECCV 2024. Where ``a`` equals ``b``
    the derivative is 0.
    """
    given = {"a": a, "b": b}
    lists, ids = as_lists(given, batch_dims), as_groups(groups, given)
    return trajectory_ops.absolute(lists[0], lists[1], ids, batch_dims).to(
        dtype_of_result(lists[0])
    )


def trajectory_distance_reference(
    student: Parameters,
    target: Parameters,
    start: Parameters,
    *,
    groups: Sequence[int] | None = None,
    batch_dims: int = 0,
) -> Tensor:
    """What :func:`trajectory_distance` computes, in operations of torch."""
    given = {"student": student, "target": target, "start": start}
    (students, targets, starts), ids = as_lists(given, batch_dims), as_groups(groups, given)
    sums = trajectory_ops.sums_in_torch(students, targets, starts, ids, batch_dims)
    return (sums[0] / sums[1]).to(dtype_of_result(students))


def squared_distance_reference(
    a: Parameters, b: Parameters, *, groups: Sequence[int] | None = None, batch_dims: int = 0
) -> Tensor:
    """What :func:`squared_distance` computes, in operations of torch."""
    given = {"a": a, "b": b}
    lists, ids = as_lists(given, batch_dims), as_groups(groups, given)
    sums = trajectory_ops.sums_in_torch(lists[0], lists[1], [], ids, batch_dims)
    return sums[0].to(dtype_of_result(lists[0]))


def absolute_distance_reference(
    a: Parameters, b: Parameters, *, groups: Sequence[int] | None = None, batch_dims: int = 0
) -> Tensor:
    """What :func:`absolute_distance` computes, in operations of torch."""
    given = {"a": a, "b": b}
    lists, ids = as_lists(given, batch_dims), as_groups(groups, given)
    sums = trajectory_ops.absolute_in_torch(lists[0], lists[1], ids, batch_dims)
    return sums.to(dtype_of_result(lists[0]))
