# SPDX-License-Identifier: Apache-2.0
"""What methods that quantize latents share: encode, decode, relabel, and keep all of it.

Every stage leaves its result in the work folder, under a name that says what it depends on, and
finds it there when it is asked again; encoding and decoding are kept part by part. Several
processes (:class:`ddkern.distill.workers.Workers`) divide the parts between them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization, Provenance
from ddkern.distill.options import Configured
from ddkern.distill.selection import check_class_counts
from ddkern.distill.stages import StageLog, digest_of
from ddkern.distill.workers import Workers
from ddkern.files import replaced_when_complete
from ddkern.kmeans import assign
from ddkern.latents import Codec, check_codec
from ddkern.latents.part_file import PartFile
from ddkern.progress import ProgressArgument, report_progress

__all__ = [
    "Codebook",
    "LatentMethod",
    "LatentRun",
    "check_dataset",
    "distill_latents",
    "normalize_options",
    "shared_options",
]

# Fixed, whatever fits into memory at once: what is interrupted goes on with the same parts.
_ENCODED_ROWS = 512
_DECODED_ROWS = 32

# Ids of noise: all cells of a class before those of the next one, whatever their numbers.
_CELLS_PER_CLASS = 1 << 32


class LatentMethod(Configured, Protocol):
    """The fields that methods on latents have in common; see :class:`ddkern.distill.DDOQ`."""

    @property
    def ipc(self) -> int:
        """Images per class."""

    @property
    def codec(self) -> Codec:
        """Where latents come from and go to."""

    @property
    def strength(self) -> float | None:
        """None is the codec's own value, here and below."""

    @property
    def steps(self) -> int | None:
        """Of the sampler."""

    @property
    def guidance(self) -> float | None:
        """Of the sampler."""

    @property
    def teacher(self) -> Any:
        """A network that labels the images, or None."""

    @property
    def folder(self) -> Path | None:
        """Where the stages are kept."""

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if this data set cannot be distilled so."""


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """The codewords of all classes: class after class, in a class by falling mass.

    Attributes
    ----------
    centroids : ndarray of float32, shape (n_classes * ipc, *latent_shape)
    masses : ndarray of float64, shape (n_classes * ipc,)
        Sum to 1 in every class.
    labels : ndarray of int64, shape (n_classes * ipc,)
    """

    centroids: NDArray[np.float32]
    masses: NDArray[np.float64]
    labels: NDArray[np.int64]

    @classmethod
    def sorted_by_mass(
        cls,
        centroids: NDArray[np.float32],
        masses: NDArray[np.float64],
        labels: NDArray[np.int64],
    ) -> Codebook:
        """From codewords in any order; those of equal mass keep theirs."""
        order = np.lexsort((-masses, labels))
        return cls(centroids[order], masses[order], labels[order])

    @property
    def ids(self) -> NDArray[np.int64]:
        """A number for each codeword that does not depend on other classes."""
        starts = np.searchsorted(self.labels, self.labels)
        return self.labels * _CELLS_PER_CLASS + np.arange(len(self.labels)) - starts


class LatentRun:
    """One distillation through a codec, in a folder that it may be continued from.

    Parameters
    ----------
    dataset : ImageDataset
    codec : Codec
    folder : Path
    random_state : int
    progress : bool or callable or None

    Raises
    ------
    ValueError
        If the codec is for other images or classes, or the folder belongs to other data.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        codec: Codec,
        folder: Path,
        random_state: int,
        progress: ProgressArgument,
    ) -> None:
        self.dataset = dataset
        self.codec = codec
        self.folder = folder
        self.seed = random_state
        self.workers = Workers.of_environment()
        self.log = StageLog(folder, self.workers.rank)
        # The first process shows what it does itself; the others do as much beside it.
        self._progress = progress if self.workers.rank == 0 else None
        described = codec.describe()
        # Latents of a codec that draws none are the same for every seed.
        self._encoding_seed = random_state if described.get("sample") else 0
        self.dataset_hash = self._find_fingerprint()
        self._source = {
            "dataset": dataset.name,
            "dataset_hash": self.dataset_hash,
            "codec": described,
            "encoding_seed": self._encoding_seed,
        }

    def _find_fingerprint(self) -> str:
        """Of the data set. Of several processes one looks at every image, the others at some."""
        if self.workers.count == 1:
            return self.dataset.fingerprint()
        seen = self.dataset.quick_fingerprint()
        found, seen_first = self.workers.same(lambda: (self.dataset.fingerprint(), seen))
        if seen != seen_first:
            raise ValueError(
                f"dataset {self.dataset.name!r} is another one for process {self.workers.rank} "
                "than for the first; all processes must read the same images"
            )
        return found

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        dataset: ImageDataset,
        codec: Codec,
        folder: Path | None,
        random_state: int,
        progress: ProgressArgument,
    ) -> Iterator[LatentRun]:
        """A run in ``folder``, or in one that is removed when the block ends."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            yield cls(dataset, codec, folder, random_state, progress)
            return
        if Workers.of_environment().count > 1:
            raise ValueError("folder=None; several processes need a folder that all of them see")
        with tempfile.TemporaryDirectory(prefix="ddkern-") as temporary:
            yield cls(dataset, codec, Path(temporary), random_state, progress)

    def encode(self) -> NDArray[np.float32]:
        """Latents of all images as a memory map, shape (n, *latent_shape)."""
        shape = (len(self.dataset), *self.codec.latent_shape)
        with self.log.stage("encode") as detail:
            file = self._open_parts(
                self.folder / "latents", "latents", shape, np.float32, _ENCODED_ROWS, self._source
            )
            seconds = self._fill(
                file,
                "encode",
                self.dataset.images,
                lambda images, rows: self.codec.encode(images, ids=rows, seed=self._encoding_seed),
            )
            detail["seconds_in_codec"] = detail.get("seconds_in_codec", 0.0) + seconds
            detail["images"], detail["latent_shape"] = shape[0], list(shape[1:])
            return file.read()

    def quantize(self, conditions: Mapping[str, Any], make: Callable[[], Codebook]) -> Codebook:
        """The codebook that ``make`` gives, or that it gave under these conditions before."""
        wanted = {**self._source, **conditions, "random_state": self.seed}
        path = self.folder / f"codebook-{digest_of(wanted)}.npz"

        def make_and_save() -> None:
            if not path.exists():
                self._save_codebook(path, make())

        with self.log.stage("quantize"):
            # All processes wait for the first one, which alone looks whether there is a codebook:
            # what they saw themselves would depend on the moment.
            self.workers.first(make_and_save)
            with np.load(path, allow_pickle=False) as kept:
                return Codebook(kept["centroids"], kept["masses"], kept["labels"])

    def decode(self, codebook: Codebook, decoding: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Images of all codewords: uint8, shape (n, channels, height, width).

        Processes after the first one, which do not write the set, get them as a memory map.
        """
        conditions = {
            **self._source,
            "codebook": _digest(codebook),
            "decoding": dict(decoding),
            "random_state": self.seed,
        }
        shape = (len(codebook.labels), *self.codec.image_shape)
        ids = codebook.ids
        with self.log.stage("decode") as detail:
            file = self._open_parts(
                self.folder / f"decoded-{digest_of(conditions)}",
                "images",
                shape,
                np.uint8,
                _DECODED_ROWS,
                conditions,
            )
            seconds = self._fill(
                file,
                "decode",
                lambda rows: rows,
                lambda _, rows: self.codec.decode(
                    codebook.centroids[rows],
                    codebook.labels[rows],
                    **decoding,
                    ids=ids[rows],
                    seed=self.seed,
                ),
            )
            detail["seconds_in_codec"] = detail.get("seconds_in_codec", 0.0) + seconds
            detail["images"] = shape[0]
            made = file.read()
            return np.array(made) if self.workers.rank == 0 else made

    def relabel(
        self, images: NDArray[np.uint8], teacher: Any, normalization: Normalization
    ) -> NDArray[np.float32] | None:
        """Logits of the teacher for each image, shape (n, n_classes), if there is a teacher."""
        if teacher is None:
            return None
        from ddkern.distill.relabel import teacher_logits

        with self.log.stage("relabel") as detail:
            detail["images"] = len(images)
            return teacher_logits(teacher, images, normalization)

    def measure(self, latents: NDArray[np.float32], codebook: Codebook, weighted: bool) -> None:
        """Write what the codebook is worth, and the real images nearest to its codewords."""
        self.workers.first(lambda: self._measure(latents, codebook, weighted))

    def _measure(self, latents: NDArray[np.float32], codebook: Codebook, weighted: bool) -> None:
        from ddkern.evaluate.measures import measure_quantization

        with self.log.stage("measure"):
            k = np.bincount(codebook.labels)[codebook.labels]
            measures = measure_quantization(
                latents,
                codebook.centroids,
                codebook.masses if weighted else 1 / k,
                groups=self.dataset.labels,
                centroid_groups=codebook.labels,
                progress=self._progress,
            )
            with replaced_when_complete(self.folder / "measures.json") as file:
                file.write((json.dumps(measures.as_dict(), indent=1) + "\n").encode())
            nearest = self.dataset.images(self._nearest_rows(codebook, latents))
            with replaced_when_complete(self.folder / "nearest_real.npy") as file:
                np.save(file, nearest)

    def _nearest_rows(self, codebook: Codebook, latents: NDArray[np.float32]) -> NDArray[np.int64]:
        """For each codeword the row of its class whose latent is nearest."""
        rows = np.empty(len(codebook.labels), np.int64)
        for label in range(self.dataset.n_classes):
            members = self.dataset.rows_of_class(label)
            cells = np.flatnonzero(codebook.labels == label)
            nearest = assign(codebook.centroids[cells], np.asarray(latents[members]))
            rows[cells] = members[nearest]
        return rows

    def _save_codebook(self, path: Path, codebook: Codebook) -> None:
        with replaced_when_complete(path) as file:
            np.savez(
                file,
                centroids=codebook.centroids,
                masses=codebook.masses,
                labels=codebook.labels,
            )

    def _open_parts(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        part_rows: int,
        conditions: Mapping[str, Any],
    ) -> PartFile:
        def begin() -> PartFile:
            return PartFile(folder, name, shape, dtype, part_rows=part_rows, conditions=conditions)

        return self.workers.first(begin) or begin()

    def _fill(
        self,
        file: PartFile,
        title: str,
        read: Callable[[NDArray[np.int64]], Any],
        work: Callable[[Any, NDArray[np.int64]], NDArray[Any]],
    ) -> float:
        """Make the missing parts; the next one is read while this one is worked on.

        Returns the seconds spent in ``work``.
        """
        missing = list(self.workers.share(file.missing()))
        start, working = time.perf_counter(), 0.0
        with (
            report_progress(self._progress, title, "parts") as record,
            ThreadPoolExecutor(1) as reader,
        ):
            coming = [reader.submit(read, file.rows_of(part)) for part in missing[:1]]
            for done, part in enumerate(missing):
                rows, values = file.rows_of(part), coming.pop().result()
                if done + 1 < len(missing):
                    coming.append(reader.submit(read, file.rows_of(missing[done + 1])))
                began = time.perf_counter()
                made = work(values, rows)
                working += time.perf_counter() - began
                file.write(part, made)
                if record is not None:
                    record(done + 1, len(missing), time.perf_counter() - start)
        self.workers.wait()
        return working


def distill_latents(
    method: LatentMethod,
    dataset: ImageDataset,
    make: Callable[[NDArray[np.float32]], Codebook],
    *,
    weighted: bool,
    normalization: Normalization,
    random_state: int,
    progress: ProgressArgument,
) -> DistilledSet:
    """Encode, quantize, decode, label: all that a method does but choosing the codewords.

    Parameters
    ----------
    method : LatentMethod
    dataset : ImageDataset
    make : callable
        From the latents of all images, shape (n, *latent_shape), to a codebook.
    weighted : bool
        Whether images have the masses of their cells as weights.
    normalization : Normalization
    random_state : int
    progress : bool or callable or None
    """
    method.check(dataset)
    folder = None if method.folder is None else Path(method.folder)
    with LatentRun.opened(dataset, method.codec, folder, random_state, progress) as run:
        latents = run.encode()
        settings = {"method": method.name, **method.options()}
        codebook = run.quantize(settings, lambda: make(latents))
        images = run.decode(codebook, _decoding(method))
        soft_labels = run.relabel(images, method.teacher, normalization)
        if folder is not None:
            run.measure(latents, codebook, weighted)
    weight = np.ones(len(codebook.labels))
    if weighted:
        weight = codebook.masses * np.bincount(codebook.labels)[codebook.labels]
    return DistilledSet(
        images,
        codebook.labels,
        normalization=normalization,
        class_names=dataset.class_names,
        sample_weight=weight,
        soft_labels=soft_labels,
        soft_label_kind="probabilities" if soft_labels is None else "logits",
        provenance=Provenance(
            options={"decoding": _decoding(method)}, source_hash=run.dataset_hash
        ),
    )


def normalize_options(method: LatentMethod) -> None:
    """Check and convert the fields that all such methods have, in their ``__post_init__``."""
    object.__setattr__(method, "ipc", as_count("ipc", method.ipc))
    check_codec(method.codec)
    _decoding(method)
    if method.teacher is not None:
        from ddkern.distill.relabel import check_teacher

        check_teacher(method.teacher)
    if method.folder is not None:
        object.__setattr__(method, "folder", Path(method.folder))


def shared_options(method: LatentMethod) -> dict[str, Any]:
    """The fields that all such methods have, as plain values, but for the folder."""
    teacher = None
    if method.teacher is not None:
        from ddkern.models import digest_of_weights

        teacher = {
            "model": type(method.teacher).__qualname__,
            "weights": digest_of_weights(method.teacher),
        }
    return {
        "ipc": method.ipc,
        "codec": method.codec.describe(),
        "decoding": _decoding(method),
        "teacher": teacher,
    }


def check_dataset(method: LatentMethod, dataset: ImageDataset) -> None:
    """Raise ValueError if a class has fewer than ``ipc`` images, or the codec is for others."""
    check_class_counts(dataset, method.ipc)
    if method.codec.image_shape != dataset.image_shape:
        raise ValueError(
            f"codec takes images of shape {method.codec.image_shape}, but those of "
            f"{dataset.name!r} have {dataset.image_shape}; the codec must be made for them"
        )
    method.codec.check_classes(dataset.class_names)


def _decoding(method: LatentMethod) -> dict[str, Any]:
    return method.codec.decoding(method.strength, method.steps, method.guidance)


def _digest(codebook: Codebook) -> str:
    digest = hashlib.sha256()
    for array in (codebook.centroids, codebook.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
