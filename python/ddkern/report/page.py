# SPDX-License-Identifier: Apache-2.0
"""One HTML page about a run: everything in one file, which needs no network and no script.

``page.html.jinja`` has the text and ``page.css`` the looks; here are the numbers. The same run
gives the same bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddkern import __version__
from ddkern.checks import as_count
from ddkern.evaluate.measures import QuantizationMeasures
from ddkern.files import replaced_when_complete
from ddkern.optional import import_optional
from ddkern.report.charts import Axis, Histogram, histogram_of
from ddkern.report.run_folder import Picture, Run
from ddkern.report.standings import Standing, rank_evaluations
from ddkern.report.tiles import class_rows, relative_masses, tile_size

__all__ = ["render_page", "write_page"]

_MINUS = "\N{MINUS SIGN}"
_MOST_ENTRIES = 8  # of a list among the settings


def write_page(run: Run, path: str | os.PathLike[str], *, max_classes: int = 20) -> None:
    """Write the page of a run; the file appears complete or not at all.

    Parameters
    ----------
    run : Run
        What :func:`ddkern.report.read_run` returns.
    path : path-like
    max_classes : int
        How many classes to show, from the first one on.

    Raises
    ------
    TypeError, ValueError
        If ``max_classes`` is not an integer of at least 1.
    UnsupportedError
        If the package jinja2 is not installed.
    """
    text = render_page(run, max_classes=max_classes)
    with replaced_when_complete(Path(path)) as file:
        file.write(text.encode())


def render_page(run: Run, *, max_classes: int = 20) -> str:
    """The text of the page; :func:`write_page` describes arguments and errors."""
    max_classes = as_count("max_classes", max_classes)
    jinja2 = import_optional("jinja2", "the page of a run", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "between": _between,
        "flatten": _flatten,
        "percent": _percent,
        "percent_between": _percent_between,
        "png": _data_uri,
        "seconds": _seconds,
        "short": _short,
        "signed_percent": _signed_percent,
    }
    standings = rank_evaluations(run.evaluations)
    rendered: str = environment.get_template("page.html.jinja").render(
        version=__version__,
        run=run,
        ipc=_images_per_class(run),
        key_figures=tuple(_key_figures(run, standings)),
        standings=standings,
        accuracies=None if not standings else _accuracy_axis(standings),
        classes=class_rows(run, max_classes),
        tile_size=tile_size,
        masses=_mass_histogram(run),
        measures=_measures(run, max_classes),
        distances=None if run.measures is None else _distance_axis(run.measures),
    )
    return rendered


@dataclass(frozen=True, slots=True)
class _KeyFigure:
    """A number that stands at the top of the page."""

    name: str
    value: str
    note: str = ""


def _key_figures(run: Run, standings: tuple[tuple[Standing, ...], ...]) -> Iterator[_KeyFigure]:
    distilled = run.distilled
    shape = " \N{MULTIPLICATION SIGN} ".join(map(str, distilled.image_shape))
    yield _KeyFigure("images per class", _images_per_class(run))
    yield _KeyFigure("images", str(len(distilled)), f"{distilled.n_classes} classes, {shape}")
    own = [standing for group in standings for standing in group if standing.line.of_this_set]
    if own:
        evaluation = own[0].line.evaluation
        spread = f" \N{PLUS-MINUS SIGN} {_percent(evaluation.std)}"
        yield _KeyFigure(
            "accuracy",
            f"{_percent(evaluation.mean)}{spread if len(evaluation.networks) > 1 else ''} %",
            f"{own[0].line.label}; {evaluation.conditions['protocol']}",
        )
    if run.measures is not None:
        found = run.measures.summary
        yield _KeyFigure(
            "W2, weighted",
            _between(found.w2_lower, found.w2_upper),
            f"uniform {_between(found.w2_uniform_lower, found.w2_uniform_upper)}, gain "
            f"{_percent_between(found.gain_lower, found.gain_upper)} %",
        )
    if run.stages:
        total = sum(stage.seconds for stage in run.stages)
        yield _KeyFigure("time", _duration(total), "of all stages")


def _accuracy_axis(standings: tuple[tuple[Standing, ...], ...]) -> Axis:
    """One axis for all lines: their networks, and two standard errors about the means."""
    values: list[float] = []
    for standing in (standing for group in standings for standing in group):
        evaluation = standing.line.evaluation
        two_errors = 2 * (standing.standard_error or 0.0)
        values += [*evaluation.last, evaluation.mean - two_errors, evaluation.mean + two_errors]
    return Axis.around(values, 2, 158)


def _distance_axis(measures: QuantizationMeasures) -> Axis:
    """From 0 to the largest distance, so that positions are in proportion."""
    highest = max(measures.w2_upper.max(), measures.w2_uniform_upper.max())
    return Axis(low=0.0, high=float(highest) or 1.0, start=4, end=156)


def _measures(run: Run, max_classes: int) -> list[list[tuple[str, Mapping[str, Any]]]]:
    """Rows of all classes together and of the first classes, each with its name."""
    if run.measures is None:
        return []
    content = run.measures.as_dict()
    classes = zip(run.distilled.class_names[:max_classes], content["groups"], strict=False)
    return [[("all", content["summary"])], list(classes)]


def _mass_histogram(run: Run) -> Histogram | None:
    """Of the masses relative to the mean of their class; None where all images weigh the same."""
    mass = relative_masses(run.distilled)
    if (mass == 1).all():
        return None
    return histogram_of(mass, left=34, right=392, top=30, bottom=165)


def _images_per_class(run: Run) -> str:
    least, most = run.distilled.class_counts.min(), run.distilled.class_counts.max()
    return str(least) if least == most else f"{least} to {most}"


def _flatten(values: Mapping[str, Any], digits: int | None = None) -> list[tuple[str, str]]:
    """Nested plain values as pairs of a dotted name and a text, numbers in full or rounded."""
    pairs = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += [(f"{name}.{inner}", text) for inner, text in _flatten(value, digits)]
        else:
            pairs.append((str(name), _text_of(value, digits)))
    return pairs


def _text_of(value: Any, digits: int | None) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, list):
        shown = ", ".join(_text_of(entry, digits) for entry in value[:_MOST_ENTRIES])
        rest = len(value) - _MOST_ENTRIES
        return shown if rest <= 0 else f"{shown} and {rest} more"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    return str(value)


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _signed_percent(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", _MINUS)


def _short(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def _between(lower: float, upper: float) -> str:
    """Two bounds, or one number where they are the same."""
    return _join_bounds(_short(lower), _short(upper))


def _percent_between(lower: float | None, upper: float | None) -> str:
    """The same for shares; None is minus infinity."""
    return _join_bounds(
        *(
            f"{_MINUS}\N{INFINITY}" if share is None else f"{100 * share:.1f}".replace("-", _MINUS)
            for share in (lower, upper)
        )
    )


def _join_bounds(lower: str, upper: str) -> str:
    return lower if lower == upper else f"{lower} to {upper}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"


def _duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
