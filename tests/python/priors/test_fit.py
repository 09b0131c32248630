# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")

from ddkern import Progress
from ddkern.latents import load_codec
from ddkern.priors import (
    AutoencoderRecipe,
    DiffusionRecipe,
    FittedPrior,
    PriorRecipe,
    fit,
    fit_prior,
    load_prior_report,
    rehearse_prior,
    steps,
)
from helpers.coresets import make_dataset

RECIPE = PriorRecipe(
    autoencoder=AutoencoderRecipe(channels=(8, 8), norm_groups=4, steps=6, batch_size=8),
    diffusion=DiffusionRecipe(layers=1, heads=1, head_size=8, steps=6, batch_size=8),
    sampler_steps=2,
)
DATA = make_dataset((9, 8, 7), (3, 8, 8))


# Of the module, so that it is there before the fixtures of the module that fit something.
@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """Let the classifier of the figures be a rough one."""
    from ddkern.priors import validation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_CLASSIFIER_STEPS", 2)
        patch.setattr(fit, "_SAMPLES_VALIDATED", 2)
        yield


def make(folder: Path, **changes: Any) -> FittedPrior:
    fixed = {"recipe": RECIPE, "random_state": 1, "precision": "float32"}
    return fit_prior(DATA, folder, **fixed | changes)


def weights(folder: Path) -> list[bytes]:
    return [
        (folder / name / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in ("vae", "transformer")
    ]


def test_a_fitted_prior_is_a_pipeline_of_diffusers_and_a_codec(tmp_path: Path) -> None:
    from diffusers import DiTPipeline

    fitted = make(tmp_path / "prior", test=make_dataset((3, 3, 3), (3, 8, 8), seed=5))
    pipeline = DiTPipeline.from_pretrained(tmp_path / "prior", local_files_only=True)
    assert pipeline.transformer.config.num_embeds_ada_norm == 3
    codec = load_codec(tmp_path / "prior", class_names=DATA.class_names)
    assert codec.image_shape == (3, 8, 8)
    assert codec.latent_shape == (4, 4, 4)
    assert codec.decoding() == {"strength": 0.2, "steps": 2, "guidance": 1.5}
    latents = codec.encode(DATA.images())
    assert abs(latents.mean()) < 0.05
    assert latents.std() == pytest.approx(1, abs=0.05)
    assert set(fitted.figures) == {"reconstruction_rmse", "real_accuracy", "sample_accuracy"}
    assert all(0 <= value <= 1 for value in fitted.figures.values())
    assert {path.name for path in (tmp_path / "prior").iterdir()} == {
        *("vae", "transformer", "scheduler", "model_index.json", "ddkern_decoding.json"),
        *("prior.json", "curves.png", "reconstructions.png", "samples.png"),
    }
    image = pytest.importorskip("PIL.Image")
    for name in ("curves", "reconstructions", "samples"):
        with image.open(tmp_path / "prior" / f"{name}.png") as picture:
            picture.load()
            assert np.asarray(picture).std() > 1
    assert load_prior_report(tmp_path / "prior") == fitted


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    once = make(tmp_path / "p")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").rglob("*")}
    assert make(tmp_path / "p") == once
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p").rglob("*")} == before


STAGES = ("autoencoder:4", "diffusion:4", "_look_at:0")


def stop_at(stage: str, stop: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Let fits call `stop` before the n-th pass through a network, or instead of a function."""
    name, _, at = stage.partition(":")
    patch.setattr(steps, "_SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    training = {"autoencoder": "train_autoencoder", "diffusion": "train_transformer"}.get(name)
    if training is None:
        patch.setattr(fit, name, lambda *_, **__: stop())
        return
    inner = getattr(fit, training)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == int(at):
            stop()

    def outer(model: Any, *arguments: Any, **options: Any) -> Any:
        model.register_forward_pre_hook(count)
        encode = getattr(model, "encode", None)
        if encode is not None:

            def counted(*a: Any, **k: Any) -> Any:
                count()
                return encode(*a, **k)

            model.encode = counted
        return inner(model, *arguments, **options)

    patch.setattr(fit, training, outer)


# A process for each stage, which kills itself there; what is imported, is for all of them.
RUN = """
import os, signal, sys
from pathlib import Path
import matplotlib.pyplot
import pytest
from diffusers import (
    AutoencoderKL, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
)
from python.priors.test_fit import make, stop_at

for stage in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        stop_at(stage, lambda: os.kill(os.getpid(), signal.SIGKILL), pytest.MonkeyPatch())
        make(Path(sys.argv[1]) / stage.partition(":")[0])
        os._exit(0)
    print(stage, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The weights of a fit that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "p"
    make(folder)
    return weights(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of folders, one for each stage that a fit was killed in."""
    folder = tmp_path_factory.mktemp("killed")
    tests = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), *STAGES],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [f"{stage} {-signal.SIGKILL}" for stage in STAGES]
    assert done.stdout.splitlines() == told, (done.stdout, done.stderr)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_and_go_on(
    stage: str, tmp_path: Path, whole: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        stop_at(stage, interrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "p")
    reports: list[Progress] = []
    make(tmp_path / "p", progress=reports.append)
    taken = sum(report.unit == "steps" for report in reports)
    assert taken < RECIPE.autoencoder.steps + RECIPE.diffusion.steps, "it began from the start"
    assert weights(tmp_path / "p") == whole


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_and_go_on(stage: str, killed: Path, whole: list[bytes]) -> None:
    folder = killed / stage.partition(":")[0]
    make(folder)
    assert weights(folder) == whole


@pytest.mark.parametrize("finished", [True, False])
def test_another_fit_in_the_same_folder_is_refused(
    finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if finished:
        make(tmp_path / "p")
    else:
        with monkeypatch.context() as patch:
            patch.setattr(fit, "_write_models", interrupt)
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path / "p")
    with pytest.raises(ValueError, match=r"holds a prior with random_state=1; this one has 2"):
        make(tmp_path / "p", random_state=2)
    with pytest.raises(ValueError, match=r"holds a prior with recipe="):
        make(tmp_path / "p", recipe=replace(RECIPE, guidance=3.0))
    other = make_dataset((9, 8, 7), (3, 8, 8), seed=9)
    with pytest.raises(ValueError, match=r"holds a prior with dataset_hash="):
        fit_prior(other, tmp_path / "p", RECIPE, random_state=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FileExistsError, match=r"exists and is no prior; it must be new or empty"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_wrong_arguments_make_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both sides must be divisible by 2"):
        fit_prior(make_dataset((3, 3), (1, 9, 9)), tmp_path / "p", RECIPE)
    with pytest.raises(ValueError, match="precision='int8'"):
        make(tmp_path / "p", precision="int8")
    assert not list(tmp_path.iterdir())


def test_reports_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"prior.json does not exist"):
        load_prior_report(tmp_path)
    (tmp_path / "prior.json").write_text(json.dumps({"figures": {}}))
    with pytest.raises(ValueError, match=r"prior.json is damaged: KeyError"):
        load_prior_report(tmp_path)


def test_a_rehearsal_scales_with_the_steps_and_leaves_a_prior(tmp_path: Path) -> None:
    long = RECIPE.with_steps(1000)
    seconds = rehearse_prior(DATA, tmp_path / "r", long)
    assert set(seconds) == {"autoencoder", "diffusion"}
    assert all(0 < value < 1000 for value in seconds.values())
    assert load_codec(tmp_path / "r").latent_shape == (4, 4, 4)


@pytest.mark.slow
def test_the_plain_loss_and_bfloat16_train_as_well(tmp_path: Path, whole: list[bytes]) -> None:
    plain = replace(RECIPE, diffusion=replace(RECIPE.diffusion, loss="plain"))
    make(tmp_path / "p", recipe=plain, precision="bfloat16")
    assert weights(tmp_path / "p")[0] != whole[0]
    make(tmp_path / "q", recipe=plain, precision="float32")
    assert weights(tmp_path / "q")[0] == whole[0]
    assert weights(tmp_path / "q")[1] != whole[1]
