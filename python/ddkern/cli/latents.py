# SPDX-License-Identifier: Apache-2.0
"""From options to a method on latents: the prior, the teacher, the codec, and the run's record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddkern.checks import as_count, as_fraction, as_number, check_choice
from ddkern.cli.arguments import naming
from ddkern.cli.prior import make_recipe

if TYPE_CHECKING:
    from ddkern.data import ImageDataset, Normalization
    from ddkern.distill import Method
    from ddkern.distill.stages import StageLog
    from ddkern.latents import Codec

__all__ = ["LATENT_METHODS", "LatentOptions", "Place", "load_or_identity"]

LATENT_METHODS = ("ddoq", "d4m")

# A teacher of so many steps knows digits, and knows CIFAR-10 fairly well.
_TEACHER_STEPS = 2000
_TEACHER_BATCH = 128


@dataclass(frozen=True, slots=True)
class Place:
    """What a run works on and where: data, normalization, folder, seed, device, progress or not."""

    train: ImageDataset
    test: ImageDataset | None
    normalization: Normalization
    run: Path
    seed: int
    device: str
    progress: bool


@dataclass(frozen=True, slots=True)
class LatentOptions:
    """The options that say how latents are made and decoded; None where they were not given."""

    prior: str | None
    prior_classes: str | None
    effort: float | None
    strength: float | None
    steps: int | None
    guidance: float | None
    teacher: str | None
    clustering: str | None
    sample: bool | None

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def trains(self) -> bool:
        """Whether something is trained on the images first."""
        return self.prior in (None, "fit") or self.teacher not in (None, "none")

    def refuse(self, method: str) -> None:
        """Raise ValueError if an option is given that this method has no use for."""
        for name, value in self.given().items():
            if method not in LATENT_METHODS:
                known = " and ".join(LATENT_METHODS)
                option = name.replace("_", "-")
                raise ValueError(f"--{option}={value!r} is for --method {known}")
            if name == "clustering" and method != "d4m":
                raise ValueError(f"--{name}={value!r} is for --method d4m")

    def check(self, method: str, train: ImageDataset) -> None:
        """Refuse wrong values before anything is trained or read."""
        from ddkern.models import model_names
        from ddkern.optional import import_optional

        self.refuse(method)
        import_optional("torch", f"--method={method}", "torch")
        if self.strength is not None:
            as_fraction("--strength", self.strength)
        if self.steps is not None:
            as_count("--steps", self.steps)
        if self.guidance is not None:
            as_number("--guidance", self.guidance, at_least=1)
        if self.clustering is not None:
            check_choice("--clustering", self.clustering, ("minibatch", "lloyd"))
        if self.teacher not in (None, "none"):
            check_choice("--teacher", self.teacher, ("none", *model_names()))
        self._check_prior(train)

    def _check_prior(self, train: ImageDataset) -> None:
        from ddkern.optional import import_optional

        if self.prior == "none":
            for name, value in self.given().items():
                if name in ("prior_classes", "strength", "steps", "guidance", "sample"):
                    option = name.replace("_", "-")
                    raise ValueError(f"--{option}={value}, but --prior none has no model")
        if self.prior_classes is not None:
            if self.prior in (None, "fit"):
                raise ValueError(
                    f"--prior-classes={self.prior_classes!r}, but a prior that is fitted has the "
                    "classes of the data set"
                )
            _as_rows(self.prior_classes)
        if self.prior not in (None, "fit"):
            if self.effort is not None:
                raise ValueError(f"--effort={self.effort} is for --prior fit")
        else:
            import_optional("diffusers", "fitting a prior", "diffusion")
            make_recipe(train.image_shape, 1.0 if self.effort is None else self.effort)

    def build(
        self,
        method: str,
        ipc: int,
        place: Place,
    ) -> Method:
        """Fit or load prior and teacher, and make the method."""
        from ddkern.distill import make_method
        from ddkern.distill.stages import StageLog
        from ddkern.distill.workers import Workers

        log = StageLog(place.run, Workers.of_environment().rank)
        codec = self._codec(place, log)
        teacher = self._teacher(place, log)
        options: dict[str, Any] = {
            "ipc": ipc,
            "codec": codec,
            "strength": self.strength,
            "steps": self.steps,
            "guidance": self.guidance,
            "teacher": teacher,
            "folder": place.run,
        }
        if self.clustering is not None:
            options["clustering"] = self.clustering
        return make_method(method, **options)

    def _codec(self, place: Place, log: StageLog) -> Codec:
        if self.prior not in (None, "fit"):
            return load_or_identity(self.prior, place.train, self, place.device)
        from ddkern.distill.workers import Workers
        from ddkern.priors import fit_prior

        folder = place.run / "prior"
        recipe = make_recipe(place.train.image_shape, 1.0 if self.effort is None else self.effort)
        with log.stage("prior") as detail:

            def fit() -> None:
                fitted = fit_prior(
                    place.train,
                    folder,
                    recipe,
                    test=place.test,
                    random_state=place.seed,
                    device=place.device,
                    progress=place.progress,
                )
                detail.update(fitted.figures)

            Workers.of_environment().first(fit)
        return load_or_identity(folder, place.train, self, place.device)

    def _teacher(self, place: Place, log: StageLog) -> Any:
        if self.teacher in (None, "none"):
            return None
        from ddkern.distill.workers import Workers
        from ddkern.experts import train_teacher
        from ddkern.training import Decay, Optimizer, Recipe

        epochs = max(1, round(_TEACHER_STEPS * _TEACHER_BATCH / len(place.train)))
        recipe = Recipe(
            epochs=epochs,
            batch_size=_TEACHER_BATCH,
            optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
            decay=Decay(kind="cosine"),
        )

        def train_or_load() -> Any:
            return train_teacher(
                place.train,
                normalization=place.normalization,
                model=str(self.teacher),
                recipe=recipe,
                test=place.test,
                random_state=place.seed,
                device=place.device,
                folder=place.run / "teacher",
                progress=place.progress,
            )

        with log.stage("teacher") as detail:
            workers = Workers.of_environment()
            found = workers.first(train_or_load) or train_or_load()
            detail["accuracy"], detail["epochs"] = found.accuracy, epochs
        return found.model


def load_or_identity(
    prior: str | Path | None, train: ImageDataset, options: LatentOptions, device: str
) -> Codec:
    """The codec of a prior that is there; ``"none"`` is the identity on pixels."""
    from ddkern.latents import IdentityCodec, load_codec

    if prior == "none":
        return IdentityCodec(train.image_shape)
    arguments: dict[str, Any] = {}
    if not Path(str(prior)).is_file():
        arguments = {"image_shape": train.image_shape, "device": device}
    if options.sample is not None:
        arguments["sample"] = options.sample
    if options.prior_classes is not None:
        arguments["classes"] = _as_rows(options.prior_classes)
    with naming("--prior"):
        return load_codec(str(prior), class_names=train.class_names, **arguments)


def _as_rows(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--prior-classes={text!r}; it must be whole numbers between commas, one a class"
        ) from None
