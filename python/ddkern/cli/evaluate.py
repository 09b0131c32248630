# SPDX-License-Identifier: Apache-2.0
"""``ddkern evaluate``."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import (
    AsJson,
    Channels,
    Config,
    Dataset,
    Device,
    Quiet,
    Seed,
    SetPath,
    Size,
    naming,
    parse_arch,
)
from ddkern.cli.output import format_percent, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from torch import nn

    from ddkern.cli.sets import DataOptions
    from ddkern.data import DistilledSet, ImageDataset
    from ddkern.evaluate import Evaluation, EvaluationPlan
    from ddkern.evaluate.state import EvaluationState

__all__ = ["evaluate"]


def evaluate(
    path: SetPath,
    dataset: Dataset,
    size: Size = None,
    channels: Channels = None,
    split: Annotated[str, typer.Option(help="Which part of the data set to test on.")] = "test",
    protocol: Annotated[
        str, typer.Option(help="How students are trained and tested; see 'ddkern protocols'.")
    ] = "E1-dsa",
    weights: Annotated[
        str,
        typer.Option(
            help="What an image counts in the loss: uniform, density (its weight) or sqrt."
        ),
    ] = "uniform",
    labels: Annotated[
        str, typer.Option(help="Which labels of the set are learned: auto, hard or soft.")
    ] = "auto",
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="A network instead of the protocol's, with options after a colon "
            "(resnet-18:norm=batch). Repeatable: a table across architectures."
        ),
    ] = None,
    networks: Annotated[
        int | None, typer.Option(help="How many, instead of the protocol's number.")
    ] = None,
    looks: Annotated[
        int | None, typer.Option(help="How often to test, instead of what the protocol says.")
    ] = None,
    seed: Seed = 0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.")] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Weights of the teacher, for protocols with one: a .safetensors file."),
    ] = None,
    teacher_arch: Annotated[
        str | None, typer.Option(help="The teacher's network, such as resnet-18:norm=batch.")
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="What images in .pt files were normalised with: fit, zca (both on the training "
            "images), identity, cifar10, mnist, fashion_mnist, svhn or imagenet."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Where finished networks are kept, for the same command to go on from. By default "
            "a folder beside the set, <set>.evaluations/<protocol>-<digest of all conditions>."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this .json file.")] = (
        None
    ),
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also add the result to this run folder, for the table of 'ddkern report'."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="What the line of --report is called.")] = None,
    config: Config = None,  # noqa: ARG001  # its callback has read it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what it costs, and end.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train networks on a set and test them. Repeat an interrupted command to go on."""
    from ddkern.cli.sets import DataOptions
    from ddkern.optional import import_optional

    import_optional("torch", "evaluating", "torch")
    if threads is not None:
        _set_threads(threads)
    request = _Request(protocol, weights, labels, networks, looks, seed, precision, device)
    request.check()
    distilled, test, n_train = _open(
        path, DataOptions(dataset, size, channels), split, normalization
    )
    taught = _load_teacher(teacher, teacher_arch, distilled)
    plans = _plan_all(request, distilled, test, arch or [], taught, n_train)
    if dry_run:
        _print_plans(plans, as_json)
        return
    lines = _ReportLines.of(report, label, list(plans))
    runs = _prepare(plans, path, state)
    if out is not None:
        _check_out(out, runs)
    results = {run.arch: run.finish(progress=not quiet) for run in runs}
    content = _content(results)
    if out is not None:
        _write_json(out, content)
    if lines is not None:
        lines.write(results)
    if as_json:
        print_json(content)
    else:
        _print_results(runs, results)


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments that go to the plan as they are."""

    protocol: str
    weights: Any
    labels: Any
    networks: int | None
    looks: int | None
    seed: int
    precision: str
    device: str

    def check(self) -> None:
        """Check them by the names that the command line has for them."""
        from ddkern.checks import as_count, as_seed, check_choice
        from ddkern.evaluate.weighting import WEIGHTINGS
        from ddkern.training.precision import PRECISIONS

        check_choice("--weights", self.weights, WEIGHTINGS)
        check_choice("--labels", self.labels, ("auto", "hard", "soft"))
        check_choice("--precision", self.precision, ("auto", *PRECISIONS))
        as_seed("--seed", self.seed)
        for option, value in (("--networks", self.networks), ("--looks", self.looks)):
            if value is not None:
                as_count(option, value)


@dataclass(frozen=True, slots=True)
class _ReportLines:
    """The lines of a report that the results become, by architecture."""

    paths: dict[str, Path]
    labels: dict[str, str]

    @classmethod
    def of(cls, folder: Path | None, label: str | None, archs: list[str]) -> _ReportLines | None:
        if folder is None:
            if label is not None:
                raise ValueError(f"--label={label!r} is for --report")
            return None
        if not folder.is_dir():
            raise FileNotFoundError(f"--report={str(folder)!r}; it must be the folder of a run")
        if not label:
            raise ValueError("--label is missing; --report needs it")
        labels = {arch: label if len(archs) == 1 else f"{label}, {arch}" for arch in archs}
        paths = {
            arch: folder / "accuracies" / f"{re.sub('[^a-z0-9]+', '-', text.lower())}.json"
            for arch, text in labels.items()
        }
        return cls(paths, labels)

    def write(self, results: dict[str, Evaluation]) -> None:
        """A line of the same label is replaced."""
        for arch, result in results.items():
            line = {"label": self.labels[arch], "evaluation": result.as_dict()}
            _write_json(self.paths[arch], line)


@dataclass(frozen=True, slots=True)
class _Run:
    """One architecture: its plan, and where its finished networks are."""

    arch: str
    plan: EvaluationPlan
    kept: EvaluationState
    alone: bool

    def finish(self, *, progress: bool) -> Evaluation:
        """Train what is missing."""
        from ddkern.evaluate import run_plan

        try:
            return run_plan(self.plan, state=self.kept.folder, progress=progress)
        except KeyboardInterrupt as interrupt:
            count = len(self.plan.seeds)
            done = [self.kept.load(index) is not None for index in range(count)]
            where = "" if self.alone else f" with {self.arch}"
            following = done.index(False) + 1 if False in done else count
            raise KeyboardInterrupt(
                f"interrupted; repeat the command to go on from network {following} of {count}"
                f"{where}"
            ) from interrupt


def _set_threads(threads: int) -> None:
    import torch

    from ddkern.checks import as_count

    torch.set_num_threads(as_count("--threads", threads))


def _open(
    path: Path, data: DataOptions, split: str, normalization: str | None
) -> tuple[DistilledSet, ImageDataset, int | None]:
    """The set, the test images, and how many training images there are if there are any."""
    from ddkern.cli.sets import choose_normalization, load_set
    from ddkern.data.decoding import EncodedImages

    test = data.open(split)
    try:
        train = data.training()
    except (ValueError, FileNotFoundError):
        # A test set alone will do: a protocol that needs the training images says so.
        train = None
    chosen = None
    if normalization is not None:
        chosen = choose_normalization(normalization, train, test.image_shape[0])
    made = load_set(path, chosen)
    channels, height, width = made.image_shape
    is_encoded = isinstance(test.source, EncodedImages)
    if made.image_shape != test.image_shape and is_encoded and height == width:
        raise ValueError(
            f"--dataset={data.path!r} has images of shape {test.image_shape}, those of SET have "
            f"{made.image_shape}; give --size {height} --channels {channels}"
        )
    return made, test, None if train is None else len(train)


def _load_teacher(
    weights: Path | None, arch: str | None, distilled: DistilledSet
) -> nn.Module | None:
    if weights is None and arch is None:
        return None
    if weights is None or arch is None:
        missing = "--teacher" if weights is None else "--teacher-arch"
        raise ValueError(f"{missing} is missing; a teacher needs --teacher and --teacher-arch")
    from ddkern.cli.networks import build_network

    return build_network(
        "--teacher-arch",
        arch,
        "--teacher",
        weights,
        n_classes=distilled.n_classes,
        image_shape=distilled.image_shape,
        seed=0,
    )


def _plan_all(
    request: _Request,
    distilled: DistilledSet,
    test: ImageDataset,
    archs: list[str],
    teacher: nn.Module | None,
    n_train: int | None,
) -> dict[str, EvaluationPlan]:
    """One plan an architecture, each known to have a network for these images."""
    from ddkern.evaluate import plan_evaluation

    plans: dict[str, EvaluationPlan] = {}
    wanted: list[str | None] = [*archs] or [None]
    for text in wanted:
        name, options = (None, None) if text is None else parse_arch("--arch", text)
        if text in plans:
            raise ValueError(f"--arch={text!r} is given twice; once is enough")
        plan = plan_evaluation(
            distilled,
            test,
            request.protocol,
            weights=request.weights,
            labels=request.labels,
            model=name,
            model_options=options,
            n_networks=request.networks,
            looks=request.looks,
            teacher=teacher,
            n_train=n_train,
            random_state=request.seed,
            precision=request.precision,
            device=request.device,
        )
        # A network that cannot take these images is told now, not after the one before it.
        with naming("the protocol's network" if text is None else f"--arch={text!r}"):
            plan.check_network()
        plans[str(plan.model) if text is None else text] = plan
    return plans


def _prepare(plans: dict[str, EvaluationPlan], path: Path, state: Path | None) -> list[_Run]:
    """Open the folders of all evaluations, so that a wrong one is told before any training."""
    from ddkern.evaluate.state import EvaluationState

    runs = []
    for arch, plan in plans.items():
        conditions = plan.conditions()
        if state is None:
            folder = _default_folder(path, conditions)
        else:
            folder = state if len(plans) == 1 else state / arch
        with naming("--state"):
            kept = EvaluationState(folder, conditions)
        runs.append(_Run(arch, plan, kept, alone=len(plans) == 1))
    return runs


def _default_folder(path: Path, conditions: dict[str, Any]) -> Path:
    # Another set, seed or number of networks is another folder, so none is in the way of the next.
    text = json.dumps(conditions, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    place = path.with_name(f"{path.name.removesuffix('.safetensors')}.evaluations")
    return place / f"{conditions['protocol']}-{digest}"


def _content(results: dict[str, Evaluation]) -> dict[str, Any]:
    """An evaluation as plain values, or those of several architectures by name."""
    if len(results) == 1:
        return next(iter(results.values())).as_dict()
    return {arch: result.as_dict() for arch, result in results.items()}


def _check_out(out: Path, runs: list[_Run]) -> None:
    """Refuse to replace anything but the result of the same command."""
    if not out.exists():
        return
    conditions = {run.arch: _plain(run.plan.conditions()) for run in runs}
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
        if len(runs) == 1:
            same = found["conditions"] == conditions[runs[0].arch]
        else:
            same = {arch: entry["conditions"] for arch, entry in found.items()} == conditions
    except (ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise FileExistsError(
            f"--out={str(out)!r} exists and is not the result of this evaluation; choose another "
            "file"
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _write_json(out: Path, content: dict[str, Any]) -> None:
    from ddkern.files import replaced_when_complete

    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(out) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _print_plans(plans: dict[str, EvaluationPlan], as_json: bool) -> None:
    described = {
        arch: {**plan.describe(), "estimated seconds": plan.estimate_seconds()}
        for arch, plan in plans.items()
    }
    if as_json:
        print_json(described if len(plans) > 1 else next(iter(described.values())))
        return
    for index, pairs in enumerate(described.values()):
        if index:
            typer.echo()
        print_pairs({**pairs, "estimated seconds": f"{pairs['estimated seconds']:.0f}"})


def _print_results(runs: list[_Run], results: dict[str, Evaluation]) -> None:
    plan = runs[0].plan
    typer.echo(f"{plan.protocol.key}: {plan.protocol.title}")
    typer.echo(
        f"{len(plan.distilled)} images, tested on {plan.test.name!r} ({plan.test.split}), "
        f"weights {plan.weights}, labels {plan.conditions()['labels']}, accuracies in %"
    )
    typer.echo()
    if len(runs) == 1:
        _print_networks(results[runs[0].arch], runs[0].arch)
    else:
        _print_architectures(results)


def _print_networks(result: Evaluation, arch: str) -> None:
    rows = [
        (
            str(network.index + 1),
            str(network.seed),
            format_percent(network.last),
            format_percent(network.best),
            f"{network.seconds:.1f}",
        )
        for network in result.networks
    ]
    mean = format_percent(result.mean, result.std)
    best = format_percent(result.mean_best, result.std_best)
    total = f"{sum(network.seconds for network in result.networks):.1f}"
    print_table(
        (arch, "seed", "last", "best on test", "seconds"),
        [*rows, ("mean +- std", "", mean, best, total)],
    )


def _print_architectures(results: dict[str, Evaluation]) -> None:
    print_table(
        ("architecture", "networks", "last", "best on test", "seconds"),
        [
            (
                arch,
                str(len(result.networks)),
                format_percent(result.mean, result.std),
                format_percent(result.mean_best, result.std_best),
                f"{sum(network.seconds for network in result.networks):.1f}",
            )
            for arch, result in results.items()
        ],
    )
