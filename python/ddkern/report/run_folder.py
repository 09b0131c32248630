# SPDX-License-Identifier: Apache-2.0
"""A folder that a distillation left behind, as records.

``set.safetensors`` is the one file that every such folder has. What else is there is read, and what
is not there is None or empty in the record:

``run.json``
    How the set was made: settings, stages and their times, versions.
``nearest_real.npy``
    uint8 of the shape of the set's pixels: for every image the real one that is nearest to it.
``measures.json``
    How well the set stands for each class, a record of
    :class:`ddkern.evaluate.measures.QuantizationMeasures`.
``accuracies/*.json``
    Evaluations, each ``{"label": ..., "evaluation": ...}``.
``prior/curves.png``, ``prior/samples.png``, ``prior/reconstructions.png``
    Pictures of the generative prior and its training.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddkern.checks import as_fraction, as_number, as_seed
from ddkern.data import DistilledSet
from ddkern.evaluate.measures import QuantizationMeasures
from ddkern.evaluate.result import Evaluation, network_from
from ddkern.optional import import_optional

__all__ = ["LabelledEvaluation", "Picture", "Run", "Stage", "read_run"]

_SET = "set.safetensors"
_RUN = "run.json"
_NEAREST_REAL = "nearest_real.npy"
_MEASURES = "measures.json"
_ACCURACIES = "accuracies"
_PICTURES = ("curves", "samples", "reconstructions")


_RUN_FORMAT = "ddkern-run"
_RUN_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the run.

    Attributes
    ----------
    name : str
    seconds : float
    detail : mapping
        What the step had to say, as plain values.
    """

    name: str
    seconds: float
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledEvaluation:
    """An evaluation under the name that a table has for it.

    Attributes
    ----------
    label : str
    evaluation : Evaluation
    of_this_set : bool
        Whether the set of the folder is what was evaluated.
    """

    label: str
    evaluation: Evaluation
    of_this_set: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG file and its size in pixels."""

    content: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A distilled set and what is known about how it was made and what it is worth.

    Attributes
    ----------
    name : str
        Of the folder.
    distilled : DistilledSet
    command : str
        What made the set, for a shell; ``""`` where it is unknown, as are the next two.
    method, dataset : str
    dataset_hash : str
    random_state : int or None
    settings : mapping
        Plain values, nested.
    stages : tuple of Stage
    versions : mapping from str to str
    nearest_real : ndarray of uint8, shape (n, channels, height, width), or None
    measures : QuantizationMeasures or None
        Its groups are the labels.
    evaluations : tuple of LabelledEvaluation
        By the names of their files.
    pictures : mapping from str to Picture
        Of the prior: ``curves``, ``samples``, ``reconstructions``.
    """

    name: str
    distilled: DistilledSet
    command: str
    method: str
    dataset: str
    dataset_hash: str
    random_state: int | None
    settings: Mapping[str, Any]
    stages: tuple[Stage, ...]
    versions: Mapping[str, str]
    nearest_real: NDArray[np.uint8] | None
    measures: QuantizationMeasures | None
    evaluations: tuple[LabelledEvaluation, ...]
    pictures: Mapping[str, Picture]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read the folder of a run, or any folder with a ``set.safetensors``.

    Parameters
    ----------
    folder : path-like

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no ``set.safetensors`` in it.
    ValueError
        If a file holds something else than it should, or belongs to another set. The message names
        the file and the rule.
    UnsupportedError
        If a package is missing: safetensors, or torch where there are accuracies.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; it must be a folder with {_SET}")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; it must be a folder with {_SET}")
    if not (folder / _SET).is_file():
        raise FileNotFoundError(f"{folder / _SET} does not exist; the folder of a run must have it")
    distilled = DistilledSet.load(folder / _SET)
    made = _read_record(folder / _RUN, distilled)
    return Run(
        name=folder.resolve().name,
        distilled=distilled,
        **made,
        nearest_real=_read_nearest_real(folder / _NEAREST_REAL, distilled),
        measures=_read_measures(folder / _MEASURES, distilled),
        evaluations=_read_evaluations(folder / _ACCURACIES, distilled),
        pictures={
            name: _read_picture(path)
            for name in _PICTURES
            if (path := folder / "prior" / f"{name}.png").exists()
        },
    )


def _read_record(path: Path, distilled: DistilledSet) -> dict[str, Any]:
    """What ``run.json`` holds, or what the set itself knows where there is none."""
    origin = distilled.provenance
    if not path.exists():
        commit = {} if origin.commit is None else {"commit": origin.commit}
        return {
            "command": "",
            "method": origin.method,
            "dataset": origin.source,
            "dataset_hash": origin.source_hash,
            "random_state": origin.random_state,
            "settings": origin.options,
            "stages": (),
            "versions": {**origin.versions, **commit},
        }
    content = _read_object(path)
    if content.get("format") != _RUN_FORMAT:
        raise ValueError(f"{path} has format={content.get('format')!r}; it must be {_RUN_FORMAT!r}")
    if content.get("format_version") != _RUN_VERSION:
        raise ValueError(
            f"{path} has format_version={content.get('format_version')!r}; it must be "
            f"{_RUN_VERSION}"
        )
    dataset_hash = _entry(path, content, "dataset_hash", str)
    if origin.source_hash and dataset_hash != origin.source_hash:
        raise ValueError(
            f"{path} has dataset_hash={dataset_hash!r}, but the set was made from data of hash "
            f"{origin.source_hash!r}; they must be the same"
        )
    try:
        random_state = as_seed("random_state", content.get("random_state"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return {
        "command": _expect(str, content.get("command", ""), f"{path}: command"),
        "method": _entry(path, content, "method", str),
        "dataset": _entry(path, content, "dataset", str),
        "dataset_hash": dataset_hash,
        "random_state": random_state,
        "settings": _entry(path, content, "settings", dict),
        "stages": tuple(
            _parse_stage(path, f"stages[{index}]", stage)
            for index, stage in enumerate(_entry(path, content, "stages", list))
        ),
        "versions": _entry(path, content, "versions", dict),
    }


def _parse_stage(path: Path, where: str, content: Any) -> Stage:
    _expect(dict, content, f"{path}: {where}")
    try:
        seconds = as_number(f"{where}.seconds", content.get("seconds"), at_least=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Stage(
        name=_entry(path, content, "name", str, f"{where}."),
        seconds=seconds,
        detail=_entry(path, content, "detail", dict, f"{where}."),
    )


def _read_nearest_real(path: Path, distilled: DistilledSet) -> NDArray[np.uint8] | None:
    if not path.exists():
        return None
    try:
        images = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers: {error}") from error
    shape = (len(distilled), *distilled.image_shape)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != shape:
        found = (
            f"{images.dtype} of shape {images.shape}"
            if isinstance(images, np.ndarray)
            else "several arrays"
        )
        raise ValueError(f"{path} holds {found}; it must be uint8 of shape {shape}, as the set is")
    return images


def _read_measures(path: Path, distilled: DistilledSet) -> QuantizationMeasures | None:
    if not path.exists():
        return None
    content = _read_object(path)
    try:
        measures = QuantizationMeasures.from_dict(content)
    except ValueError as error:
        raise ValueError(f"{path} must hold what QuantizationMeasures.as_dict() returns") from error
    if measures.groups.tolist() != list(range(distilled.n_classes)):
        raise ValueError(
            f"{path} has other groups than the labels of the set; they must be 0 to "
            f"{distilled.n_classes - 1}"
        )
    return measures


def _read_evaluations(folder: Path, distilled: DistilledSet) -> tuple[LabelledEvaluation, ...]:
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return ()
    import_optional("torch", f"reading {folder}", "torch")
    from ddkern.evaluate.plan import fingerprint

    of_this_set = fingerprint(distilled)
    found = []
    for path in paths:
        content = _read_object(path)
        evaluation = _parse_evaluation(path, _entry(path, content, "evaluation", dict))
        found.append(
            LabelledEvaluation(
                label=_entry(path, content, "label", str),
                evaluation=evaluation,
                of_this_set=evaluation.conditions.get("set_hash") == of_this_set,
            )
        )
    return tuple(found)


def _parse_evaluation(path: Path, content: Mapping[str, Any]) -> Evaluation:
    try:
        evaluation = Evaluation(
            conditions=content["conditions"],
            environment=content["environment"],
            networks=tuple(map(network_from, content["networks"])),
        )
        for network in evaluation.networks:
            as_fraction("the last accuracy", network.last)
        valid = (
            len(evaluation.networks) > 0
            and all(isinstance(evaluation.conditions[name], str) for name in ("protocol", "model"))
            and _same_format(content, evaluation.as_dict())
        )
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        valid = False
    if not valid:
        raise ValueError(f"{path}: 'evaluation' must be what Evaluation.as_dict() returns")
    return evaluation


def _same_format(content: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """Whether a file has the format that this version writes."""
    return all(content[name] == written[name] for name in ("format", "format_version"))


def _read_picture(path: Path) -> Picture:
    content = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a complete PNG image: {error}") from error
    return Picture(content=content, width=image.width, height=image.height)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    found: dict[str, Any] = _expect(dict, content, f"{path}: what it holds")
    return found


def _entry(path: Path, content: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """An entry of a JSON object that must be there and of this type."""
    if name not in content:
        raise ValueError(f"{path} has no {where}{name}; it must be a {kind.__name__}")
    return _expect(kind, content[name], f"{path}: {where}{name}")


def _expect(kind: type, value: Any, what: str) -> Any:
    if isinstance(value, kind):
        return value
    raise ValueError(f"{what} is a {type(value).__name__}; it must be a {kind.__name__}")
