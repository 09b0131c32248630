# SPDX-License-Identifier: Apache-2.0
"""The one evaluation that every method and every number goes through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddkern.data import DistilledSet, ImageDataset
from ddkern.evaluate.plan import EvaluationPlan, Labels, plan_evaluation
from ddkern.evaluate.protocols import Protocol
from ddkern.evaluate.result import Evaluation, NetworkResult
from ddkern.evaluate.state import EvaluationState
from ddkern.evaluate.teachers import OnlineTeacher, relabel
from ddkern.evaluate.weighting import Weighting
from ddkern.models import ModelFactory, accelerate
from ddkern.progress import ProgressArgument, report_progress
from ddkern.training import EpochReport, PixelImages, TrainingSet, measure_accuracy, train
from ddkern.training.loop import Labeller

__all__ = ["evaluate", "evaluate_across", "run_plan"]

_Show = Callable[[int, int, str], None]


def evaluate(
    distilled: DistilledSet,
    test: ImageDataset,
    protocol: str | Protocol = "E1-dsa",
    *,
    weights: Weighting = "uniform",
    labels: Labels = "auto",
    model: str | nn.Module | ModelFactory | None = None,
    model_options: Mapping[str, Any] | None = None,
    n_networks: int | None = None,
    looks: int | None = None,
    teacher: nn.Module | None = None,
    n_train: int | None = None,
    random_state: int = 0,
    precision: str = "auto",
    device: str | torch.device = "auto",
    state: str | os.PathLike[str] | None = None,
    progress: ProgressArgument = None,
) -> Evaluation:
    """Train students on a distilled set as a protocol says, and test them.

    Parameters
    ----------
    distilled : DistilledSet
    test : ImageDataset
        Test images, which the normalization of the set is applied to. Of the shape and the classes
        of the set.
    protocol : str or Protocol
        Such as ``"E1-dsa"`` or ``"E1-dsa@1"``; see :func:`ddkern.evaluate.protocol_names`.
    weights : {"uniform", "density", "sqrt"}
        What an image counts in the loss; see :func:`ddkern.evaluate.loss_weight`.
    labels : {"auto", "hard", "soft"}
        Which labels of the set are learned, where the protocol asks no teacher: soft ones where
        there are any, by default.
    model : str or callable, optional
        A network as in :func:`ddkern.models.make_model`, instead of the protocol's.
    model_options : mapping, optional
    n_networks : int, optional
        Instead of the protocol's number.
    looks : int, optional
        How often the test set is looked at, evenly spread over the epochs, instead of what the
        protocol says. Training is the same.
    teacher : nn.Module, optional
        For protocols with a teacher: a trained network for images of this normalization.
    n_train : int, optional
        Number of real training images, where the protocol depends on it.
    random_state : int
        Decides the seeds of all networks.
    precision : {"auto", "float32", "bfloat16"}
        Of convolutions and linear layers; see :func:`ddkern.training.choose_precision`.
    device : str or torch.device
        ``"auto"`` takes a GPU where there is one.
    state : path-like, optional
        A folder that keeps finished networks (and labels, for E2). A second call with the same
        arguments goes on from there.
    progress : bool or callable, optional
        See :mod:`ddkern.progress`; counts epochs.

    Returns
    -------
    Evaluation
        Accuracies after the last epoch and best on test, by network.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, the set and the test images are not of one kind, the
        protocol is not defined for them, the state belongs to another evaluation, or a training
        diverges.

    Notes
    -----
    Results repeat on the same machine, with the same version of torch and the same number of
    threads, and on CUDA devices with deterministic algorithms switched on. Other threads or devices
    round differently, which a thousand epochs turn into another network of the same distribution.
    """
    plan = plan_evaluation(
        distilled,
        test,
        protocol,
        weights=weights,
        labels=labels,
        model=model,
        model_options=model_options,
        n_networks=n_networks,
        looks=looks,
        teacher=teacher,
        n_train=n_train,
        random_state=random_state,
        precision=precision,
        device=device,
    )
    return run_plan(plan, state=state, progress=progress)


def evaluate_across(
    distilled: DistilledSet,
    test: ImageDataset,
    models: Sequence[str],
    protocol: str | Protocol = "E1-dsa",
    *,
    state: str | os.PathLike[str] | None = None,
    **arguments: Any,
) -> dict[str, Evaluation]:
    """Evaluate a set on several architectures.

    Parameters
    ----------
    distilled, test, protocol, **arguments
        As in :func:`evaluate`.
    models : sequence of str
        Names of networks.
    state : path-like, optional
        A folder with one of :func:`evaluate` for every network in it.

    Returns
    -------
    dict from str to Evaluation
        By name, in the order given.

    Raises
    ------
    TypeError, ValueError
        As in :func:`evaluate`, before anything is trained.
    """
    plans = {
        name: plan_evaluation(distilled, test, protocol, model=name, **_without(arguments))
        for name in models
    }
    for plan in plans.values():
        plan.check_network()
    progress = arguments.get("progress")
    return {
        name: run_plan(plan, state=None if state is None else Path(state) / name, progress=progress)
        for name, plan in plans.items()
    }


def run_plan(
    plan: EvaluationPlan,
    *,
    state: str | os.PathLike[str] | None = None,
    progress: ProgressArgument = None,
) -> Evaluation:
    """Do what a plan says; ``state`` and ``progress`` as in :func:`evaluate`."""
    conditions = plan.conditions()
    kept = None if state is None else EvaluationState(Path(state), conditions)
    found = [None if kept is None else kept.load(index) for index in range(len(plan.seeds))]
    if None in found:
        plan.check_network()
        title = f"evaluate {plan.protocol.key}"
        with report_progress(progress, title, "epochs") as record:
            show = _recorder(record)
            _train_missing(plan, found, kept, show)
    return Evaluation(
        conditions=conditions,
        environment=plan.environment(),
        networks=tuple(network for network in found if network is not None),
    )


def _train_missing(
    plan: EvaluationPlan,
    found: list[NetworkResult | None],
    kept: EvaluationState | None,
    show: _Show,
) -> None:
    data = plan.training_set()
    images, labels = plan.test_images()
    teacher = _labeller(plan, data, kept, show)
    missing = [index for index, network in enumerate(found) if network is None]
    for turn, index in enumerate(missing):

        def show_epoch(done: int, note: str, turn: int = turn, index: int = index) -> None:
            epochs = plan.recipe.epochs
            place = f"network {index + 1} of {len(found)}"
            show(turn * epochs + done, len(missing) * epochs, f"{place}, {note}")

        network = _train_network(plan, index, data, images, labels, teacher, show_epoch)
        found[index] = network
        if kept is not None:
            kept.save(network)


def _train_network(
    plan: EvaluationPlan,
    index: int,
    data: TrainingSet,
    images: PixelImages,
    labels: Tensor,
    teacher: Labeller | None,
    show_epoch: Callable[[int, str], None],
) -> NetworkResult:
    start = time.perf_counter()
    seed = plan.seeds[index]
    network = plan.make_network(seed)
    looks = frozenset(plan.test_epochs)
    accuracies: list[float] = []
    losses: list[float] = []

    def after(report: EpochReport) -> None:
        losses.append(report.loss)
        if report.epoch in looks:
            accuracies.append(measure_accuracy(network, images, labels, plan.precision))
        seen = f", accuracy {100 * accuracies[-1]:.2f} %" if accuracies else ""
        show_epoch(report.epoch + 1, f"loss {report.loss:.4f}{seen}")

    data_seed = plan.protocol.data_seed
    train(
        network,
        data,
        plan.recipe,
        seed=seed if data_seed is None else data_seed,
        lr=plan.lr,
        precision=plan.precision,
        teacher=teacher,
        on_epoch=after,
    )
    return NetworkResult(
        index=index,
        seed=seed,
        epochs=plan.test_epochs,
        accuracies=tuple(accuracies),
        loss=losses[-1],
        seconds=time.perf_counter() - start,
    )


def _labeller(
    plan: EvaluationPlan, data: TrainingSet, kept: EvaluationState | None, show: _Show
) -> Labeller | None:
    if plan.teacher is None:
        return None
    online = OnlineTeacher(accelerate(plan.teacher.to(plan.device)), plan.precision)
    if plan.protocol.labels == "online" or plan.protocol.data_seed is None:
        return online
    folder = None if kept is None else kept.folder / "labels"
    epochs = plan.recipe.epochs
    return relabel(
        data,
        plan.recipe,
        plan.protocol.data_seed,
        online,
        folder,
        lambda done: show(done, epochs, "labels of the teacher"),
    )


def _recorder(record: Any) -> _Show:
    start = time.monotonic()

    def show(done: int, total: int, note: str) -> None:
        if record is not None:
            record(done, total, time.monotonic() - start, note)

    return show


def _without(arguments: dict[str, Any]) -> dict[str, Any]:
    if "model" in arguments:
        raise TypeError("model is chosen by models here")
    return {name: value for name, value in arguments.items() if name != "progress"}
