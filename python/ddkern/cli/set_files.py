# SPDX-License-Identifier: Apache-2.0
"""Where ``ddkern distill`` writes a set, and in which formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddkern.data import DistilledSet

__all__ = ["SetFiles"]

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
        """Write the set, its contact sheet and its exports."""
        from ddkern.data import save_image_folder, save_parquet, save_pt_files
        from ddkern.files import replaced_when_complete

        self.set.parent.mkdir(parents=True, exist_ok=True)
        made.save(self.set)
        if self.contact_sheet is not None:
            from ddkern.report import draw_distilled_set

            with replaced_when_complete(self.contact_sheet) as file:
                draw_distilled_set(made).save(file, "PNG")
        for name, path in self.exports.items():
            if name == "folder":
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
