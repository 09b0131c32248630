# SPDX-License-Identifier: Apache-2.0
"""Where ``ddkern distill`` writes a set, and in which formats."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddkern.cli.arguments import refuse_existing

if TYPE_CHECKING:
    from ddkern.data import DistilledSet

__all__ = ["RUN_RECORD", "SetFiles", "forget_run", "write_run"]

RUN_RECORD = "run.json"
"""Is written after everything else in the folder of a run."""

# Formats of --export, and what their files are called: the name of the set with this ending.
_EXPORTS = {"folder": ".images", "parquet": ".parquet", "pt": ".pt"}


@dataclass(frozen=True, slots=True)
class SetFiles:
    """What is written where."""

    set: Path
    contact_sheet: Path | None
    exports: dict[str, Path]

    @classmethod
    def beside(cls, out: Path, formats: list[str]) -> SetFiles:
        """The files of a set at ``out``, a folder or a ``.safetensors`` file, and its exports."""
        from ddkern.checks import check_choice

        alone = out.suffix == ".safetensors"
        if not alone and out.exists() and not out.is_dir():
            raise ValueError(
                f"--out={str(out)!r} is a file; it must be a folder, or a file that ends in "
                ".safetensors"
            )
        base = out.with_suffix("") if alone else out / "set"
        for name in formats:
            check_choice("--export", name, tuple(_EXPORTS))
        return cls(
            base.with_name(f"{base.name}.safetensors"),
            None if alone else out / "contact_sheet.png",
            {name: base.with_name(f"{base.name}{_EXPORTS[name]}") for name in formats},
        )

    def all(self) -> list[Path]:
        """Every file or folder that is written."""
        sheet = [] if self.contact_sheet is None else [self.contact_sheet]
        return [self.set, *sheet, *self.exports.values()]

    def refuse_existing(self, out: Path, force: bool) -> None:
        """Raise FileExistsError where something lies that would be replaced.

        What a run in ``out`` left that was ended while it wrote is replaced: it has stages, and
        not the record that is written last.
        """
        unfinished = (out / "stages").is_dir() and not (out / RUN_RECORD).exists()
        if not unfinished:
            refuse_existing(self.all(), force)

    def check_packages(self) -> None:
        """Hours may pass before anything is written; a missing package is told before them."""
        from ddkern.optional import import_optional

        import_optional("safetensors", "writing sets", "data")
        if self.contact_sheet is not None or {"folder", "parquet"} & set(self.exports):
            import_optional("PIL.Image", "writing images", "data")
        if "parquet" in self.exports:
            import_optional("pyarrow", "writing parquet files", "data")
        if "pt" in self.exports:
            import_optional("torch", "writing .pt files", "torch")

    def write(self, made: DistilledSet, drop_weights: bool) -> None:
        """Write the set, its contact sheet and its exports.

        Accuracies of another set in the folder of a run go with that set.
        """
        from ddkern.data import save_image_folder, save_parquet, save_pt_files
        from ddkern.files import replaced_when_complete

        self.set.parent.mkdir(parents=True, exist_ok=True)
        before = _content_of(self.set)
        made.save(self.set)
        if self.contact_sheet is not None and _content_of(self.set) != before:
            for accuracy in self.set.parent.glob("accuracies/*.json"):
                accuracy.unlink()
        if self.contact_sheet is not None:
            from ddkern.report import draw_distilled_set

            with replaced_when_complete(self.contact_sheet) as file:
                draw_distilled_set(made).save(file, "PNG")
        for name, path in self.exports.items():
            if name == "folder":
                if path.is_dir():
                    shutil.rmtree(path)  # of a run that was ended while it wrote
                save_image_folder(made, path)
            elif name == "parquet":
                save_parquet(made, path)
            else:
                weight = made.sample_weight
                if not drop_weights and not (weight == weight[0]).all():
                    raise ValueError(
                        f"--export=pt: weights range from {weight.min():.4g} to "
                        f"{weight.max():.4g}, and .pt files have none; --drop-weights leaves them "
                        f"out (the set with its weights is in {self.set})"
                    )
                save_pt_files(made, path, drop_weights=drop_weights)

    def describe(self) -> dict[str, Any]:
        """Paths by name, as plain values."""
        sheet = None if self.contact_sheet is None else str(self.contact_sheet)
        exports = {name: str(path) for name, path in self.exports.items()}
        return {"set": str(self.set), "contact_sheet": sheet, "exports": exports}


def _content_of(path: Path) -> str:
    """A digest of a file; empty where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def forget_run(run: Path, has_stages: bool) -> None:
    """Remove what an earlier run in the folder said, as far as the next one does not say it anew.

    A method with stages keeps what it has found out; a coreset finds out nothing.
    """
    (run / RUN_RECORD).unlink(missing_ok=True)
    if not has_stages:
        for name in ("measures.json", "nearest_real.npy"):
            (run / name).unlink(missing_ok=True)


def write_run(made: DistilledSet, run: Path, command: str, has_stages: bool) -> None:
    """Write the record of a run: what was done, with what, and how long each stage took."""
    from ddkern.distill.stages import StageLog
    from ddkern.files import replaced_when_complete

    provenance = made.provenance
    content = {
        "format": "ddkern-run",
        "format_version": 1,
        "command": command,
        "method": provenance.method,
        "dataset": provenance.source,
        "dataset_hash": provenance.source_hash,
        "random_state": provenance.random_state,
        "settings": dict(provenance.options),
        # Those of another run may lie in the folder of a coreset, which has none.
        "stages": StageLog(run).read() if has_stages else [],
        "versions": dict(provenance.versions),
    }
    with replaced_when_complete(run / RUN_RECORD) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
