# SPDX-License-Identifier: Apache-2.0
"""Steps of SGD on a synthetic set, and the exact gradient of where they lead.

Ten systems of the field train a network for some steps on the synthetic set, from a checkpoint of
an expert, and move the set so that the network ends nearer to a later checkpoint (trajectory
matching, [1]_). Through a stored graph of all steps this takes the memory of all steps. Here the
steps are taken without a graph, their parameters are kept, and the gradient comes back through one
step at a time: the memory of one step, and the same gradient up to rounding.

With ``v_{i+1} = mu v_i + g_i`` and ``theta_{i+1} = theta_i - lr v_{i+1}``, where ``g_i`` is the
gradient of the loss of batch i at ``theta_i``, let ``p`` and ``q`` be the derivatives of the
distance with respect to ``theta_{i+1}`` and ``v_{i+1}``. A step back is ::

    lr_grad -= <p, v_{i+1}>
    q       -= lr p
    phi      = <q, g_i(theta_i, x, y)>
    x_grad  += d phi / d x        y_grad += d phi / d y
    p       += d phi / d theta_i  q      *= mu

TESLA [2]_ leaves out ``d phi / d theta_i``, so its gradient is biased.

Several students learn from one set, each from a start of its own. Their steps do not meet: the sum
of their losses has the gradient of each with respect to its own parameters, and ``<q, g>`` summed
over students the derivatives by what they share.

References
----------
.. [1] G. Cazenavette et al., "Dataset distillation by matching training trajectories", CVPR 2022.
.. [2] J. Cui et al., "Scaling up dataset distillation to ImageNet-1K with constant memory", ICML
   2023.
.. [3] D. Liu et al., "Dataset distillation by automatic training trajectories", ECCV 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ddkern.checks import as_count, as_number, check_choice
from ddkern.distill.compiled_steps import CompiledSteps
from ddkern.losses import absolute_distance, squared_distance
from ddkern.models import FlatNetwork
from ddkern.training.precision import PRECISIONS, Precision, autocast

__all__ = ["Augment", "Unroll"]

Augment: TypeAlias = Callable[[Tensor, int], Tensor]
"""From inputs and the number of the step to inputs: the same for the same step, differentiable."""

StepLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From logits and targets to the mean loss of a batch."""

_Students: TypeAlias = slice | list[int]
"""Which rows of parameters."""


# What the nearest step is nearest by.
_NEAREST: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    "nearest": squared_distance,
    "nearest_l1": absolute_distance,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unroll:
    """SGD on a synthetic set as a differentiable function of the set.

    Attributes
    ----------
    model : nn.Module or FlatNetwork
        The structure of the network; its parameters are not used. It returns logits.
    batches : sequence of Tensor of int64
        For each step the rows of the set that it takes.
    augment : callable, optional
        Applied to the inputs of each batch. It gets the number of the step, counted from 0, and
        must do the same whenever it is called with the same one, as :class:`ddkern.augment.DSA`
        does with a key made from it.
    momentum : float
        Of the steps, as in ``torch.optim.SGD``.
    match : {"last", "nearest", "nearest_l1"} or sequence of int
        After which step the distance is taken: the last one; the one after which the student is
        nearest to the target, by squares or as in ATT [3]_ by absolute differences, of several the
        last (the way back then has so many steps only); or the mean after these numbers of steps.
    gradient : str
        ``"exact"``; ``"tesla"``, which holds the parameters constant in the gradients of the steps;
        or ``"truncated:K"``, which goes back through the last K steps only.
    micro_batch : int, optional
        Inputs that go through the network at once; a whole batch by default. The loss of a batch
        must be the mean over its inputs, and no norm may mix them.
    store_every : int
        Parameters are kept after every so many steps, and those between are computed again.
    at_once : int
        Of several starts, those whose students go through the network as one batched computation
        (``vmap``): worth it where one student does not fill the device, and for networks that vmap
        knows. Equal to one by one up to rounding; the memory of a step is that of so many.
    precision : {"float32", "bfloat16"}
        Of convolutions and linear layers, by autocast. Parameters and derivatives with respect to
        them have the dtype of ``start``.
    compiled : bool
        Whether steps go through ``torch.compile``: faster by half and more, after minutes of
        compilation for each size of batch, which last as long as a :class:`FlatNetwork` that is
        given as ``model``. Equal to plain steps up to rounding; not with ``at_once``.
    loss : callable
        From logits and targets (probabilities) to the mean loss of a batch; cross entropy by
        default.

    Raises
    ------
    TypeError, ValueError
        If a field breaks its rule.

    Examples
    --------
    >>> import torch
    >>> from ddkern.distill.unroll import Unroll
    >>> rows = torch.arange(4)
    >>> unroll = Unroll(model=torch.nn.Linear(3, 2), batches=[rows] * 5)
    >>> images = torch.randn(4, 3, requires_grad=True)
    >>> start, target = torch.zeros(8), torch.ones(8)
    >>> unroll.distance(start, target, images, torch.tensor([0, 1, 0, 1]), 0.1).backward()
    >>> images.grad.shape
    torch.Size([4, 3])
    """

    model: nn.Module | FlatNetwork
    batches: Sequence[Tensor]
    augment: Augment | None = None
    momentum: float = 0.0
    match: Literal["last", "nearest", "nearest_l1"] | Sequence[int] = "last"
    gradient: str = "exact"
    micro_batch: int | None = None
    store_every: int = 1
    at_once: int = 1
    precision: Precision = "float32"
    compiled: bool = False
    loss: StepLoss = nn.functional.cross_entropy
    _network: FlatNetwork = field(init=False, repr=False)
    _compiled: CompiledSteps | None = field(init=False, repr=False)
    _steps_back: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        network = self.model if isinstance(self.model, FlatNetwork) else FlatNetwork(self.model)
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "batches", _check_batches(self.batches))
        momentum = as_number("momentum", self.momentum, at_least=0, at_most=1)
        object.__setattr__(self, "momentum", momentum)
        object.__setattr__(self, "match", _parse_match(self.match, len(self.batches)))
        object.__setattr__(self, "_steps_back", _parse_gradient(self.gradient))
        if self.micro_batch is not None:
            as_count("micro_batch", self.micro_batch)
        as_count("store_every", self.store_every)
        as_count("at_once", self.at_once)
        check_choice("precision", self.precision, PRECISIONS)
        object.__setattr__(self, "_compiled", self._compile() if self.compiled else None)

    def _compile(self) -> CompiledSteps:
        if self.at_once > 1:
            raise ValueError(
                f"at_once={self.at_once} with compiled=True; it must be 1, compiled steps being "
                "those of one student"
            )
        key = (CompiledSteps, self.loss, self.precision)
        if key not in self._network.kept:
            self._network.kept[key] = CompiledSteps(self._network, self.loss, self.precision)
        return cast(CompiledSteps, self._network.kept[key])

    def distance(
        self,
        start: Tensor,
        target: Tensor,
        images: Tensor,
        labels: Tensor,
        lr: Tensor | float,
    ) -> Tensor:
        """How far from ``target`` the steps end, relative to where they start.

        Parameters
        ----------
        start, target : Tensor, shape (n_parameters,) or (n_starts, n_parameters)
            Of one shape, one floating dtype, on one device. From each of several starts a student
            takes the steps, with the same rows and the same augmentation.
        images : Tensor, shape (n, ...)
            The synthetic set as the network takes it, before augmentation.
        labels : Tensor
            int64, shape (n,): classes; or floating, shape (n, n_classes): probabilities, which may
            be learned.
        lr : Tensor or float
            A single number; or, with several starts, shape (n_starts,): one for each.

        Returns
        -------
        Tensor, a single number or shape (n_starts,)
            ``|theta_m - target|^2 / |start - target|^2``, differentiable once with respect to
            ``images``, ``labels``, ``lr`` and ``start`` where they require it. Of ``nearest``, each
            student has its own m. A student whose distance has no weight in what is differentiated
            is left out on the way back, also if it diverged.

        Raises
        ------
        TypeError, ValueError
            If an argument breaks its rule, a start equals its target, a truncated gradient is
            asked for ``start``, or for a student no step is nearest since all of them diverge.
        """
        self._check_parameters("start", start)
        self._check_parameters("target", target)
        if (start.dtype, start.device) != (target.dtype, target.device):
            raise ValueError(
                f"start is {start.dtype} on {start.device}, target {target.dtype} on "
                f"{target.device}; they must be alike"
            )
        if start.shape != target.shape:
            raise ValueError(
                f"target has shape {tuple(target.shape)}; it must be {tuple(start.shape)}, as start"
            )
        if self._steps_back is not None and start.requires_grad:
            raise ValueError(
                f"gradient={self.gradient!r} does not come back to start, which requires one"
            )
        self._check_set(images, labels)
        rate = _as_rate(lr, start)
        starts, targets = _as_rows(start), _as_rows(target.detach())
        names = [f"[{number}]" for number in range(len(start))] if start.dim() == 2 else [""]
        scales = _scales(starts.detach(), targets, names)
        found = []
        for part in self._parts(len(starts)):
            arguments = (starts[part], targets[part], scales[part], names[part])
            of_part = _of_students(rate, part)
            found.append(
                _Distance.apply(self, *arguments, images, labels, of_part)  # type: ignore[no-untyped-call]
            )
        distances = torch.cat(found)
        return distances if start.dim() == 2 else distances[0]

    def parameters_after(
        self, start: Tensor, images: Tensor, labels: Tensor, lr: Tensor | float
    ) -> Tensor:
        """Where the steps end: a tensor like ``start``, without a gradient.

        Arguments and errors are those of :meth:`distance`.
        """
        self._check_parameters("start", start)
        self._check_set(images, labels)
        rate = _as_rate(lr, start).detach()
        starts = _as_rows(start.detach())
        ends = []
        for part in self._parts(len(starts)):
            walk = _Walk(self, images.detach(), labels.detach(), _of_students(rate, part))
            state = _State(starts[part], None)
            for index in range(len(self.batches)):
                state = walk.step(index, state)
            ends.append(state.theta)
        return torch.cat(ends).view(start.shape)

    def _parts(self, n_starts: int) -> list[slice]:
        """Students that go through the network at once."""
        return [slice(first, first + self.at_once) for first in range(0, n_starts, self.at_once)]

    def _check_parameters(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floating point")
        size = self._network.n_parameters
        if value.dim() not in (1, 2) or value.shape[-1] != size or not len(value):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; it must be ({size},), one value a "
                f"parameter of model, or (n_starts, {size})"
            )

    def _check_set(self, images: Any, labels: Any) -> None:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise TypeError("images must be a tensor of floating point")
        n = len(images)
        is_hard = isinstance(labels, Tensor) and labels.dtype == torch.int64
        if not isinstance(labels, Tensor) or not (is_hard or labels.is_floating_point()):
            raise TypeError("labels must be a tensor of int64 or of floating point")
        if labels.dim() != (1 if is_hard else 2) or len(labels) != n:
            raise ValueError(
                f"labels has shape {tuple(labels.shape)} and dtype {labels.dtype}; it must be "
                f"({n},) for classes and ({n}, n_classes) for probabilities, one row an image"
            )
        for index, rows in enumerate(self.batches):
            if int(rows.min()) < 0 or int(rows.max()) >= n:
                raise ValueError(
                    f"batches[{index}] has rows from {int(rows.min())} to {int(rows.max())}; they "
                    f"must be in [0, {n}), the rows of images"
                )


@dataclass(frozen=True, slots=True)
class _State:
    """Parameters before a step and the momentum that they came with, None where there is none.

    Of students, shape (n_students, n_parameters) each.
    """

    theta: Tensor
    momentum: Tensor | None

    def of(self, students: _Students) -> _State:
        """Those of some of the students."""
        momentum = None if self.momentum is None else self.momentum[students]
        return _State(self.theta[students], momentum)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which derivatives a walk back is for."""

    start: bool
    images: bool
    labels: bool
    lr: bool


class _Walk:
    """The steps of students at once: forward without a graph, and back one step at a time."""

    def __init__(self, unroll: Unroll, images: Tensor, labels: Tensor, lr: Tensor) -> None:
        self._unroll = unroll
        self._images, self._labels = images, labels
        self._lr = lr if lr.dim() == 0 else lr[:, None]  # beside rows of parameters
        self._kept: dict[int, _State] = {}
        self._segment: dict[int, _State] = {}

    def forward(self, start: Tensor, target: Tensor, scale: Tensor, names: list[str]) -> Tensor:
        """Take the steps and choose those that are matched; returns a distance a student.

        ``names`` are what an error calls the students, and ``scale`` the squared distances between
        starts and targets.
        """
        unroll, steps = self._unroll, len(self._unroll.batches)
        self._target, self._scale = target, scale
        candidates: Sequence[int] = range(1, steps + 1)
        if unroll.match not in _NEAREST:
            candidates = (steps,) if unroll.match == "last" else cast(Any, unroll.match)
        # Of every student, its parameters after the steps that are matched.
        ends: list[dict[int, Tensor]] = [{} for _ in names]
        least = [math.inf for _ in names]
        state = _State(start, None)
        for index in range(max(candidates)):
            if index % unroll.store_every == 0:
                self._kept[index] = state
            state = self.step(index, state)
            if index + 1 in candidates:
                for student, theta in enumerate(state.theta):
                    if unroll.match in _NEAREST:
                        measure = float(_NEAREST[unroll.match](theta, target[student]))
                        if not measure <= least[student] or not math.isfinite(measure):
                            continue
                        least[student] = measure
                        ends[student].clear()
                    ends[student][index + 1] = theta
        for student, matched in enumerate(ends):
            if not matched:
                rate = float(_of_students(self._lr, student))
                raise ValueError(
                    f"lr={rate:g}; the steps{' from start' * bool(names[student])}{names[student]} "
                    "diverge, since the distance is NaN or infinite after each of them"
                )
        self._ends = ends
        last = max(max(matched) for matched in ends)
        self._kept = {step: kept for step, kept in self._kept.items() if step < last}
        self._distance = torch.stack(
            [
                torch.stack(
                    [squared_distance(theta, target[student]) / scale[student] for theta in matched]
                ).mean()
                for student, matched in enumerate(found.values() for found in ends)
            ]
        )
        return self._distance.to(start.dtype)

    def step(self, index: int, state: _State) -> _State:
        """The state after a step."""
        momentum = self._with_momentum(self._gradient(index, state.theta), state)
        theta = state.theta - self._lr * momentum
        return _State(theta, momentum if self._unroll.momentum > 0 else None)

    def backward(self, wanted: _Wanted, weights: Tensor) -> _Gradients:
        """Derivatives of the weighted sum of the distances.

        Back through the steps, for each student from the last one that it is matched after. One
        without weight is left out, and what it would multiply 0 with may be NaN.
        """
        unroll = self._unroll
        walked = [
            self._steps_of(student) if weight != 0 else range(0)
            for student, weight in enumerate(weights.tolist())
        ]
        images = torch.zeros_like(self._images) if wanted.images else None
        labels = torch.zeros_like(self._labels) if wanted.labels else None
        lr = torch.zeros(len(walked), dtype=torch.float64, device=self._lr.device)
        p = torch.zeros_like(self._target)
        q = torch.zeros_like(self._target)
        for index in reversed(range(max(steps.stop for steps in walked))):
            chosen = [student for student, steps in enumerate(walked) if index in steps]
            if not chosen:
                continue
            for student in chosen:
                if index + 1 in self._ends[student]:
                    p[student] += self._at_end(student, index + 1, weights[student])
            students: _Students = slice(None) if len(chosen) == len(walked) else chosen
            state, rate = self._state_before(index).of(students), _of_students(self._lr, students)
            q[students] = unroll.momentum * q[students] - rate * p[students]
            # Where it is the first step of some only, theirs is computed too and not looked at.
            goes_on = wanted.start or any(index > walked[student].start for student in chosen)
            through_theta = unroll.gradient != "tesla" and goes_on
            back = self._step_back(index, state.theta, q[students], wanted, through_theta)
            if wanted.lr:
                momentum = self._with_momentum(back.step, state)
                lr[students] -= (p[students] * momentum).sum(-1, dtype=torch.float64)
            rows = unroll.batches[index]
            if images is not None and back.images is not None:
                images.index_add_(0, rows, back.images)
            if labels is not None and back.labels is not None:
                labels.index_add_(0, rows, back.labels)
            if back.theta is not None:
                p[students] += back.theta
        if wanted.start:
            p -= self._of_scales(weights)
        return _Gradients(p, images, labels, lr if self._lr.dim() else lr.sum())

    def _at_end(self, student: int, step: int, weight: Tensor) -> Tensor:
        """Of a distance with respect to the parameters after a step that is matched."""
        share = 2 / (self._scale[student] * len(self._ends[student])) * weight
        away = self._ends[student][step] - self._target[student]
        return share.to(away.dtype) * away

    def _of_scales(self, weights: Tensor) -> Tensor:
        """What the distances lose by their denominators, with respect to the starts."""
        lost = torch.zeros_like(self._target)
        away = self._state_before(0).theta - self._target
        for student in weights.nonzero().flatten().tolist():
            share = 2 * self._distance[student] / self._scale[student] * weights[student]
            lost[student] = share.to(away.dtype) * away[student]
        return lost

    def _steps_of(self, student: int) -> range:
        """The steps that the derivative of a student goes back through."""
        last, back = max(self._ends[student]), self._unroll._steps_back
        return range(0 if back is None else max(0, last - back), last)

    def _state_before(self, index: int) -> _State:
        if index in self._kept:
            return self._kept[index]
        if index not in self._segment:
            first = index - index % self._unroll.store_every
            self._segment = {first: self._kept[first]}
            for step in range(first, index):
                self._segment[step + 1] = self.step(step, self._segment[step])
        return self._segment[index]

    def _with_momentum(self, gradient: Tensor, state: _State) -> Tensor:
        if state.momentum is None:
            return gradient
        return gradient + self._unroll.momentum * state.momentum

    def _gradient(self, index: int, theta: Tensor) -> Tensor:
        """Of the loss of a batch with respect to the parameters of every student."""
        rows = self._unroll.batches[index]
        inputs = self._augmented(index, self._images[rows])
        total = torch.zeros_like(theta)
        for part, share in self._parts(len(rows)):
            gradient = self._gradient_of_part(theta, inputs[part], self._labels[rows][part])
            total = gradient if share == 1 else total + share * gradient
        return total

    def _gradient_of_part(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self._unroll._compiled is not None:
            return self._unroll._compiled.gradient(theta[0], _laid_out(x), y)[None]
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = self._loss(theta, x, y)
        return torch.autograd.grad(loss, theta)[0]

    def _step_back(
        self, index: int, theta: Tensor, q: Tensor, wanted: _Wanted, through_theta: bool
    ) -> _StepGradients:
        """Derivatives of ``<q, gradient of the step>``, summed over students, and that gradient."""
        rows = self._unroll.batches[index]
        images = self._images[rows].requires_grad_(wanted.images)
        with torch.enable_grad():
            augmented = self._augmented(index, images)
        # The network is gone through by parts; what is before it, once for all of them.
        inputs = augmented.detach()
        labels = self._labels[rows]
        wanted_of = (through_theta, wanted.images, wanted.labels)
        step, of_theta = torch.zeros_like(theta), torch.zeros_like(theta)
        of_inputs = torch.zeros_like(inputs) if wanted.images else None
        of_labels = torch.zeros_like(labels) if wanted.labels else None
        for part, share in self._parts(len(rows)):
            gradient, found = self._derivatives(
                (theta, inputs[part], labels[part]), q, share, wanted_of
            )
            step = step + gradient
            if found[0] is not None:
                of_theta = of_theta + found[0]
            if of_inputs is not None and found[1] is not None:
                of_inputs[part] = found[1]
            if of_labels is not None and found[2] is not None:
                of_labels[part] = found[2]
        of_images = of_inputs
        if of_inputs is not None and augmented.requires_grad and self._unroll.augment is not None:
            (of_images,) = torch.autograd.grad(augmented, images, of_inputs)
        return _StepGradients(step, of_theta if through_theta else None, of_images, of_labels)

    def _derivatives(
        self,
        arguments: tuple[Tensor, Tensor, Tensor],
        q: Tensor,
        share: float,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor, list[Tensor | None]]:
        """A share of the gradient at parameters, inputs and labels; of its product with q by them.

        Derivatives that are not wanted, or of what has no influence, are None.
        """
        sources = tuple(place for place, want in enumerate(wanted) if want)
        found: list[Tensor | None] = [None, None, None]
        if self._unroll._compiled is not None:
            theta, x, y = arguments
            gradient, derivatives = self._unroll._compiled.back(
                theta[0], _laid_out(x), y, q[0], sources
            )
            for place, derivative in zip(sources, derivatives, strict=True):
                found[place] = share * (derivative[None] if place == 0 else derivative)
            return share * gradient[None], found
        theta = arguments[0].detach().requires_grad_()
        x, y = (a.requires_grad_(w) for a, w in zip(arguments[1:], wanted[1:], strict=True))
        with torch.enable_grad():
            loss = share * self._loss(theta, x, y)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            phi = (q * gradient).sum()
        if sources:
            inputs = [(theta, x, y)[place] for place in sources]
            derivatives = torch.autograd.grad(phi, inputs, allow_unused=True)
            for place, derivative in zip(sources, derivatives, strict=True):
                found[place] = derivative
        return gradient.detach(), found

    def _augmented(self, index: int, images: Tensor) -> Tensor:
        augment = self._unroll.augment
        return images if augment is None else augment(images, index)

    def _loss(self, theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of a batch, summed over students: each has the gradient of its own."""
        # Group norms under vmap refuse the layout.
        inputs = _laid_out(inputs) if len(theta) == 1 else inputs
        with autocast(self._unroll.precision, inputs.device):
            logits = self._unroll._network(theta, inputs)
        # In turn: a loss of the caller's need not know vmap, and logits are few.
        losses = [self._unroll.loss(of_one, labels) for of_one in logits.to(theta.dtype)]
        return torch.stack(losses).sum()

    def _parts(self, count: int) -> list[tuple[slice, float]]:
        """Slices of a batch that go through the network at once, with their shares of it."""
        size = self._unroll.micro_batch or count
        return [
            (slice(first, min(first + size, count)), (min(first + size, count) - first) / count)
            for first in range(0, count, size)
        ]


@dataclass(frozen=True, slots=True)
class _StepGradients:
    """Of one step: its gradient, and the derivatives of the product of that with q."""

    step: Tensor
    theta: Tensor | None
    images: Tensor | None
    labels: Tensor | None


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Of the distances; those that are not wanted are None or without meaning."""

    start: Tensor
    images: Tensor | None
    labels: Tensor | None
    lr: Tensor


class _Distance(torch.autograd.Function):
    """:meth:`Unroll.distance` of students at once, as an operation of autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        unroll: Unroll,
        start: Tensor,
        target: Tensor,
        scale: Tensor,
        names: list[str],
        images: Tensor,
        labels: Tensor,
        lr: Tensor,
    ) -> Tensor:
        walk = _Walk(unroll, images.detach(), labels.detach(), lr.detach())
        distances = walk.forward(start.detach(), target, scale, names)
        # Saved so that a change in place between the two passes is an error, as it is in torch.
        ctx.save_for_backward(start, target, images, labels, lr)
        ctx.walk = walk
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *_, lr = ctx.saved_tensors
        _, start, *_, images, labels, rate = ctx.needs_input_grad
        found = ctx.walk.backward(_Wanted(start, images, labels, rate), grad_out)
        return (
            None,
            found.start if start else None,
            None,
            None,
            None,
            found.images,
            found.labels,
            found.lr.to(lr.dtype) if rate else None,
        )


def _as_rows(parameters: Tensor) -> Tensor:
    """Parameters of students, one of them too, as rows."""
    return parameters if parameters.dim() == 2 else parameters[None]


def _of_students(lr: Tensor, students: Any) -> Tensor:
    """The learning rates of some, where it is not one for all."""
    return lr if lr.dim() == 0 else lr[students]


def _scales(starts: Tensor, targets: Tensor, names: list[str]) -> Tensor:
    """The squared distances from starts to targets, which must be above 0."""
    scales = torch.stack([squared_distance(*pair) for pair in zip(starts, targets, strict=True)])
    for scale, name in zip(scales.tolist(), names, strict=True):
        if not math.isfinite(scale):
            raise ValueError(f"start{name} or target{name} holds NaN or infinity")
        if not scale > 0:
            raise ValueError(
                f"start{name} equals target{name}; the distance between them must not be 0"
            )
    return scales


def _laid_out(inputs: Tensor) -> Tensor:
    """As torch is fastest on, the channels of images last."""
    if inputs.dim() != 4:
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


def _as_rate(lr: Tensor | float, like: Tensor) -> Tensor:
    rate = torch.as_tensor(lr).to(dtype=like.dtype, device=like.device)
    if rate.dim() != 0 and rate.shape != like.shape[:-1]:
        each = f", or ({len(like)},), one for each start" if like.dim() == 2 else ""
        raise ValueError(f"lr has shape {tuple(rate.shape)}; it must be a single number{each}")
    return rate


def _check_batches(batches: Any) -> tuple[Tensor, ...]:
    checked = tuple(batches)
    if not checked:
        raise ValueError("batches is empty; it must hold the rows of one step at least")
    for index, rows in enumerate(checked):
        if not isinstance(rows, Tensor) or rows.dtype != torch.int64:
            raise TypeError(f"batches[{index}] must be a tensor of int64")
        if rows.dim() != 1 or not len(rows):
            raise ValueError(
                f"batches[{index}] has shape {tuple(rows.shape)}; it must be rows, one at least"
            )
    return checked


def _parse_match(match: Any, steps: int) -> str | tuple[int, ...]:
    if isinstance(match, str):
        return check_choice("match", match, ("last", *_NEAREST))
    chosen = tuple(as_count("match", step, at_most=steps) for step in match)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"match={match!r}; it must hold one number of steps at least, each once")
    return chosen


def _parse_gradient(gradient: Any) -> int | None:
    """How many steps to go back through; None is all of them."""
    if gradient in ("exact", "tesla"):
        return None
    name, colon, steps = gradient.partition(":") if isinstance(gradient, str) else ("", "", "")
    if name == "truncated" and colon and steps.isdecimal() and int(steps) > 0:
        return int(steps)
    raise ValueError(
        f"gradient={gradient!r}; it must be 'exact', 'tesla' or 'truncated:K' with K of at least 1"
    )
