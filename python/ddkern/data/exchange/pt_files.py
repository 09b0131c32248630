# SPDX-License-Identifier: Apache-2.0
"""The ``.pt`` files in which methods publish their sets: tensors of normalised images and labels.

MTT and its successors write ``images_best.pt`` and ``labels_best.pt`` (float32 and int64, all
images of class 0 first), some of them ``lr_best.pt``; with learned labels, as in DATM, the second
holds logits (n, classes). DD-Ranking takes the same tensors, as ``images.pt``, ``labels.pt`` and
``lr.pt`` in its published baselines. DC, DSA and DM write one file: a dictionary whose entry
``data`` has a pair (images, labels) for each experiment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count, check_choice
from ddkern.data.distilled_set import DistilledSet, SoftLabelKind
from ddkern.data.normalization import Normalization
from ddkern.data.provenance import Provenance
from ddkern.files import folder_when_complete
from ddkern.optional import import_optional

__all__ = ["load_pt_files", "read_pt_file", "save_pt_files"]

# Names of images, labels and student learning rate.
_LAYOUTS = {
    "mtt": ("images_best.pt", "labels_best.pt", "lr_best.pt"),
    "dd_ranking": ("images.pt", "labels.pt", "lr.pt"),
}
_HARD_LABELS = ("class-major", "argmax")


def load_pt_files(
    path: str | os.PathLike[str],
    *,
    normalization: Normalization,
    class_names: Sequence[str] = (),
    soft_label_kind: SoftLabelKind = "logits",
    hard_labels: str = "class-major",
    experiment: int = 0,
    provenance: Provenance | None = None,
) -> DistilledSet:
    """Read a published set. Nothing in the files is executed: only tensors and numbers are read.

    Parameters
    ----------
    path : path-like
        A folder with ``images_best.pt`` and ``labels_best.pt``, or ``images.pt`` and
        ``labels.pt``, with ``lr_best.pt`` or ``lr.pt`` if there is one; or a file of DC, DSA or DM.
    normalization : Normalization
        What the images were normalised with; the files do not say. For CIFAR-10 it is
        ``Normalization.published("cifar10")``, or ``Normalization.fit(train, zca=True)`` where the
        method says that it used ZCA.
    class_names : sequence of str, optional
    soft_label_kind : {"logits", "probabilities", "targets"}
        What labels with one number a class are.
    hard_labels : {"class-major", "argmax"}
        The hard labels of images that have soft ones only: by their place, as all these methods
        order images by class, or by the largest soft label.
    experiment : int
        Which set of a file of DC, DSA or DM.
    provenance : Provenance, optional

    Returns
    -------
    DistilledSet
        With float32 images as they are in the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file holds anything but tensors and plain values, or not such a set.
    UnsupportedError
        If torch is not installed.
    """
    check_choice("hard_labels", hard_labels, _HARD_LABELS)
    place = Path(path)
    rate: Any = None
    if place.is_dir():
        files = _files_in(place)
        images, labels = read_pt_file(files[0]), read_pt_file(files[1])
        rate = read_pt_file(files[2]) if files[2].exists() else None
    else:
        images, labels = _pair_of(read_pt_file(place), place, experiment)
    values = {"images": _as_array(images, place), "labels": _as_array(labels, place)}
    soft: NDArray[Any] | None = None
    ids = values["labels"]
    if ids.ndim == 2:
        soft = ids
        ids = _hard_labels(soft, hard_labels, place)
    return DistilledSet(
        values["images"],
        ids,
        normalization=normalization,
        class_names=tuple(class_names) or (() if soft is None else _numbers(soft.shape[1])),
        soft_labels=soft,
        soft_label_kind=soft_label_kind if soft is not None else "probabilities",
        student_lr=None if rate is None else float(rate),
        provenance=Provenance() if provenance is None else provenance,
    )


def save_pt_files(
    distilled: DistilledSet,
    folder: str | os.PathLike[str],
    *,
    layout: str = "mtt",
    drop_weights: bool = False,
) -> None:
    """Write images, labels and, if there is one, the student learning rate as tensors.

    Images are normalised float32, all of class 0 first; labels the soft ones where there are any,
    and the hard ones otherwise. :func:`load_pt_files` reads the folder, as do the programs of the
    methods; DD-Ranking takes the tensors as ``image_tensor``, ``soft_labels`` (or ``hard_labels``)
    and ``syn_lr``.

    Parameters
    ----------
    distilled : DistilledSet
        With the same number of images in every class, which these formats imply.
    folder : path-like
        New or empty. It appears complete or not at all.
    layout : {"mtt", "dd_ranking"}
        ``images_best.pt`` and so on, or ``images.pt`` and so on.
    drop_weights : bool
        These formats have no weights: a set in which they differ is refused unless this is true.

    Raises
    ------
    FileExistsError
        If ``folder`` exists and is not empty.
    ValueError
        If classes differ in size, or weights differ and are not to be dropped.
    UnsupportedError
        If torch is not installed.
    """
    check_choice("layout", layout, tuple(_LAYOUTS))
    torch = import_optional("torch", "writing .pt files", "torch")
    counts = distilled.class_counts
    if not (counts == counts[0]).all():
        raise ValueError(
            f"the classes have {counts.min()} to {counts.max()} images; .pt files imply the same "
            "number in each"
        )
    weight = distilled.sample_weight
    if not drop_weights and not (weight == weight[0]).all():
        raise ValueError(
            f"sample_weight ranges from {weight.min()} to {weight.max()}, and .pt files have no "
            "weights; pass drop_weights=True to write the set without them"
        )
    ordered = distilled.class_major()
    labels = ordered.labels if ordered.soft_labels is None else ordered.soft_labels
    tensors = [torch.tensor(ordered.inputs()), torch.tensor(labels)]
    if ordered.soft_labels is not None:
        tensors[1] = tensors[1].float()
    if ordered.student_lr is not None:
        # In float32, which is what the methods themselves write.
        tensors.append(torch.tensor(ordered.student_lr, dtype=torch.float32))
    with folder_when_complete(Path(folder)) as draft:
        for name, tensor in zip(_LAYOUTS[layout], tensors, strict=False):
            torch.save(tensor, draft / name)


def _files_in(folder: Path) -> list[Path]:
    for names in _LAYOUTS.values():
        files = [folder / name for name in names]
        if files[0].exists() and files[1].exists():
            return files
    wanted = " or ".join(f"{images} and {labels}" for images, labels, _ in _LAYOUTS.values())
    raise FileNotFoundError(f"{folder} does not hold {wanted}")


def read_pt_file(file: Path) -> Any:
    """Tensors and plain values of a file of ``torch.save``; nothing in it is executed.

    Raises
    ------
    ValueError
        If it holds anything else, or is no such file.
    UnsupportedError
        If torch is not installed.
    """
    torch = import_optional("torch", "reading .pt files", "torch")
    try:
        with _numpy_scalars_allowed(torch):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors and plain values, and is not read: "
            f"{str(error).splitlines()[0]}"
        ) from error
    # Bytes that are no pickle end torch's reader in whatever their first opcodes run into.
    except (RuntimeError, EOFError, LookupError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{file} is not a .pt file: {error}") from error
    except OSError as error:
        # What torch's reader makes of a file whose end is missing.
        if error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{file} is not a .pt file: it is cut off") from error


def _numpy_scalars_allowed(torch: Any) -> Any:
    """Files of DC and DM hold accuracies as numpy scalars beside the tensors.

    Making a scalar of a type and bytes calls nothing that a file could choose. Before 2.6, torch
    cannot allow names, and refuses such files.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return contextlib.nullcontext()
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    return torch.serialization.safe_globals(
        [
            np.dtype,
            *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
        ]
    )


def _pair_of(content: Any, file: Path, experiment: int) -> tuple[Any, Any]:
    sets = content.get("data") if isinstance(content, dict) else None
    if sets is None:
        raise ValueError(
            f"{file} holds no dictionary with an entry 'data'; for a tensor of images pass the "
            "folder, which has the labels too"
        )
    index = as_count("experiment", experiment, at_least=0)
    if index >= len(sets):
        raise ValueError(f"experiment={index}; {file} has {len(sets)}")
    images, labels = sets[index]
    return images, labels


def _as_array(tensor: Any, place: Path) -> NDArray[Any]:
    torch = import_optional("torch", "reading .pt files", "torch")
    if isinstance(tensor, torch.Tensor):
        array: NDArray[Any] = tensor.detach().numpy()
        return array
    raise ValueError(f"{place}: a {type(tensor).__name__} lies where a tensor should be")


def _hard_labels(soft: NDArray[Any], rule: str, place: Path) -> NDArray[np.int64]:
    n, n_classes = soft.shape
    if rule == "argmax":
        largest: NDArray[np.int64] = soft.argmax(axis=1).astype(np.int64)
        return largest
    if n % n_classes:
        raise ValueError(
            f"{place}: {n} images are not the same number for each of {n_classes} classes; pass "
            "hard_labels='argmax'"
        )
    return np.repeat(np.arange(n_classes), n // n_classes)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
