# SPDX-License-Identifier: Apache-2.0
"""A diffusion prior of one's own, from images to a folder that diffusers reads."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddkern.checks import as_seed
from ddkern.data import ImageDataset
from ddkern.files import folder_when_complete, replaced_when_complete
from ddkern.latents import DitCodec
from ddkern.latents.decoding import DECODING_FILE
from ddkern.optional import import_optional
from ddkern.priors.autoencoder import (
    build_autoencoder,
    encode_means,
    set_scale,
    train_autoencoder,
)
from ddkern.priors.diffusion import build_scheduler, build_transformer, train_transformer
from ddkern.priors.pictures import draw_curves, draw_reconstructions, draw_samples
from ddkern.priors.recipe import PriorRecipe
from ddkern.priors.steps import Trained
from ddkern.priors.validation import measure_reconstruction, measure_samples
from ddkern.progress import ProgressArgument
from ddkern.training import Precision, choose_device, choose_precision

__all__ = ["FittedPrior", "fit_prior", "load_prior_report", "rehearse_prior"]

_REPORT = "prior.json"
_WORK = "work"
_SAMPLES_PER_CLASS = 10
_SAMPLES_VALIDATED = 20
_REHEARSED_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPrior:
    """What is known of a prior that was fitted.

    Attributes
    ----------
    folder : Path
        Has ``vae``, ``transformer``, ``scheduler`` and ``model_index.json``, as diffusers'
        ``DiTPipeline`` saves them, ``curves.png``, ``reconstructions.png`` and ``samples.png``.
    conditions : mapping
        All that it depends on.
    figures : mapping
        ``reconstruction_rmse`` (of pixels in [0, 1], on images that were not fitted where there
        are some), ``real_accuracy`` and ``sample_accuracy``: of a classifier that was trained on
        the real images, on those images that were not fitted and on samples of the prior.
    seconds : mapping
        Of the two trainings and of what came after.
    """

    folder: Path
    conditions: Mapping[str, Any]
    figures: Mapping[str, float]
    seconds: Mapping[str, float]


def fit_prior(
    dataset: ImageDataset,
    folder: str | os.PathLike[str],
    recipe: PriorRecipe | None = None,
    *,
    test: ImageDataset | None = None,
    random_state: int = 0,
    precision: str = "auto",
    device: str | torch.device = "auto",
    progress: ProgressArgument = None,
) -> FittedPrior:
    """Fit an autoencoder and a class-conditional diffusion transformer to a data set.

    Parameters
    ----------
    dataset : ImageDataset
        Held in memory, one byte a value. Square images.
    folder : path-like
        New or empty, or of an earlier call with the same arguments, which goes on where that one
        ended and changes nothing if it was finished.
    recipe : PriorRecipe, optional
        :meth:`PriorRecipe.for_images` by default.
    test : ImageDataset, optional
        For the figures; the training images are taken where there are none.
    random_state : int
        Decides initial weights, batches and noise.
    precision : {"auto", "float32", "bfloat16"}
        Of convolutions and linear layers while they are trained; ``"auto"`` is float32 on a CPU.
    device : str or torch.device
    progress : bool or callable, optional
        See :mod:`ddkern.progress`; counts steps.

    Returns
    -------
    FittedPrior

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, the images do not fit the recipe, the folder belongs to
        another fit, or a training diverges.
    UnsupportedError
        If diffusers or matplotlib is not installed.

    Notes
    -----
    A call that is interrupted, or a process that is killed, loses at most the last twenty seconds,
    and what comes out has the same bits (same machine, same number of threads).
    """
    import_optional("diffusers", "fitting a prior", "diffusion")
    import_optional("matplotlib", "pictures of a prior", "diffusion")
    recipe = PriorRecipe.for_images(dataset.image_shape) if recipe is None else recipe
    recipe.check_images(dataset.image_shape)
    where = choose_device(device)
    chosen = _choose_precision(precision, where)
    seed = as_seed("random_state", random_state)
    conditions = {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "dataset": dataset.name,
        "dataset_hash": dataset.fingerprint(),
        "test_hash": None if test is None else test.fingerprint(),
        "random_state": seed,
        "precision": chosen,
    }
    target = Path(folder)
    if (target / _REPORT).exists():
        found = load_prior_report(target)
        _compare(found.conditions, conditions, target)
        return found
    work = target / _WORK
    _begin(target, work, conditions)
    fit = _Fit(dataset, recipe, seed, chosen, where, work, progress)
    _write_models(target, fit)
    began = time.perf_counter()
    figures = _look_at(target, dataset, test, fit, where)
    seconds = {
        "autoencoder": fit.autoencoder.seconds,
        "diffusion": fit.diffusion.seconds,
        "figures": time.perf_counter() - began,
    }
    report = {"conditions": conditions, "figures": figures, "seconds": seconds}
    with replaced_when_complete(target / _REPORT) as file:
        file.write((json.dumps(report, indent=1) + "\n").encode())
    shutil.rmtree(work)
    return FittedPrior(folder=target, conditions=conditions, figures=figures, seconds=seconds)


def load_prior_report(folder: str | os.PathLike[str]) -> FittedPrior:
    """What :func:`fit_prior` found out about the prior in a folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none, or its file is damaged.
    """
    path = Path(folder) / _REPORT
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a fitted prior has this file")
    try:
        content = json.loads(path.read_text("utf-8"))
        parts = {name: content[name] for name in ("conditions", "figures", "seconds")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    return FittedPrior(folder=Path(folder), **parts)


def rehearse_prior(
    dataset: ImageDataset,
    folder: str | os.PathLike[str],
    recipe: PriorRecipe,
    *,
    device: str | torch.device = "auto",
) -> dict[str, float]:
    """Take a few steps of a fit, to know what all of them would cost.

    Parameters
    ----------
    dataset : ImageDataset
        Of which a batch is looked at.
    folder : path-like
        Gets a prior that is good for nothing but to time its use.
    recipe : PriorRecipe
    device : str or torch.device

    Returns
    -------
    dict from str to float
        Seconds that the whole of ``"autoencoder"`` and of ``"diffusion"`` would take.
    """
    target = Path(folder)
    where = choose_device(device)
    rows = max(recipe.autoencoder.batch_size, recipe.diffusion.batch_size)
    part = dataset.subset(np.arange(min(len(dataset), rows)))
    precision = _choose_precision("auto", where)
    fit = None
    # The first time, memory is allocated and kernels are chosen.
    for steps in (1, _REHEARSED_STEPS):
        work = target / f"{_WORK}-{steps}"
        work.mkdir(parents=True)
        fit = _Fit(part, recipe.with_steps(steps), 0, precision, where, work, None)
    assert fit is not None  # noqa: S101  # the loop ran
    _write_models(target, fit)
    return {
        "autoencoder": fit.autoencoder.seconds / _REHEARSED_STEPS * recipe.autoencoder.steps,
        "diffusion": fit.diffusion.seconds / _REHEARSED_STEPS * recipe.diffusion.steps,
    }


class _Fit:
    """Both trainings, each done or read from where it was kept."""

    def __init__(
        self,
        dataset: ImageDataset,
        recipe: PriorRecipe,
        seed: int,
        precision: Precision,
        device: torch.device,
        work: Path,
        progress: ProgressArgument,
    ) -> None:
        self.recipe = recipe
        self.seed = seed
        self.n_classes = dataset.n_classes
        images = torch.from_numpy(dataset.images()).to(device)
        labels = torch.from_numpy(dataset.labels).to(device)
        vae = build_autoencoder(recipe.autoencoder, dataset.image_shape, seed).to(device)
        self.autoencoder: Trained = train_autoencoder(
            vae,
            images,
            recipe.autoencoder,
            seed=seed,
            precision=precision,
            checkpoint=work / "autoencoder.pt",
            progress=progress,
        )
        self.vae: Any = self.autoencoder.averaged
        latents = encode_means(self.vae, images)
        set_scale(self.vae, latents)
        config: Any = self.vae.config
        latents = (latents - config.shift_factor) * config.scaling_factor
        shape = tuple(latents.shape[1:])
        self.diffusion: Trained = train_transformer(
            build_transformer(recipe.diffusion, shape, self.n_classes, seed).to(device),
            latents,
            labels,
            recipe.diffusion,
            n_classes=self.n_classes,
            seed=seed,
            precision=precision,
            checkpoint=work / "diffusion.pt",
            progress=progress,
        )


def _choose_precision(precision: str, device: torch.device) -> Precision:
    """As in training, but for ``"auto"`` on a CPU: norms and copies outweigh the products."""
    if precision == "auto" and device.type == "cpu":
        return "float32"
    return choose_precision(precision, device)


def _begin(target: Path, work: Path, conditions: Mapping[str, Any]) -> None:
    path = work / "conditions.json"
    if path.exists():
        _compare(json.loads(path.read_text("utf-8")), conditions, target)
        return
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"folder={str(target)!r} exists and is no prior; it must be new or empty"
        )
    target.mkdir(parents=True, exist_ok=True)
    with folder_when_complete(work) as draft:
        (draft / path.name).write_text(json.dumps(dict(conditions), indent=1) + "\n", "utf-8")


def _compare(found: Mapping[str, Any], wanted: Mapping[str, Any], target: Path) -> None:
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"folder={str(target)!r} holds a prior with {name}={found.get(name)!r}; this one "
                f"has {wanted.get(name)!r}. Choose another folder, or delete this one"
            )


def _write_models(target: Path, fit: _Fit) -> None:
    from diffusers import DiTPipeline

    transformer: Any = fit.diffusion.averaged
    pipeline = DiTPipeline(transformer, fit.vae, build_scheduler(fit.recipe.diffusion))
    pipeline.save_pretrained(target)
    decoding = {
        "strength": fit.recipe.strength,
        "steps": fit.recipe.sampler_steps,
        "guidance": fit.recipe.guidance,
    }
    with replaced_when_complete(target / DECODING_FILE) as file:
        file.write((json.dumps(decoding, indent=1) + "\n").encode())


def _look_at(
    target: Path,
    dataset: ImageDataset,
    test: ImageDataset | None,
    fit: _Fit,
    device: torch.device,
) -> dict[str, float]:
    held_out = dataset if test is None else test
    codec = DitCodec.from_pretrained(target, image_shape=dataset.image_shape, device=device)
    draw_curves(
        {"autoencoder": fit.autoencoder.losses, "diffusion model": fit.diffusion.losses},
        target / "curves.png",
    )
    draw_reconstructions(codec, held_out, target / "reconstructions.png")
    draw_samples(codec, dataset.class_names, _SAMPLES_PER_CLASS, fit.seed, target / "samples.png")
    accuracies = measure_samples(
        codec, dataset, held_out, n_samples=_SAMPLES_VALIDATED, seed=fit.seed, device=device
    )
    return {"reconstruction_rmse": measure_reconstruction(codec, held_out), **accuracies}
