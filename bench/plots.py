# SPDX-License-Identifier: Apache-2.0
"""The plots of the pages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.analysis import Line, Setting, axis_lines, collect, judge
from bench.baselines import ENTRIES, PEERS, SUBJECT
from bench.shapes import SCALING_SIZES, Shape

if TYPE_CHECKING:
    from pathlib import Path

AXIS_TITLES = {
    "n": "rows a group, n",
    "d": "features, D",
    "k": "centroids a group, k",
    "groups": "groups",
}


RATIOS_IMAGE = "bench_ratios.png"
_INK, _GREY, _OWN, _SOFT = "#1f2933", "#9aa5b1", "#0b7285", "#e4e7eb"


def scaling_image(axis: str) -> str:
    """Return the file name of one scaling plot."""
    return f"bench_scaling_{axis}.png"


def image_names(documents: list[dict[str, Any]]) -> list[str]:
    """Return the file names of the plots that the pages show."""
    tables = collect(documents)
    if not tables:
        return []
    suites = next(iter(tables.values()))
    axes = [axis for axis in SCALING_SIZES if axis_lines(suites.get("scaling", []), axis)]
    return [RATIOS_IMAGE, *(scaling_image(axis) for axis in axes)]


def draw(documents: list[dict[str, Any]], folder: Path) -> None:
    """Write the plots of the strongest instruction set into ``folder``."""
    tables = collect(documents)
    if not tables:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    setting, suites = next(iter(tables.items()))
    with mpl.rc_context(_style()):
        _draw_ratios(suites, setting, folder / RATIOS_IMAGE)
        for axis in SCALING_SIZES:
            if lines := axis_lines(suites.get("scaling", []), axis):
                _draw_scaling(lines, axis, folder / scaling_image(axis))


def _style() -> dict[Any, Any]:
    return {
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "text.color": _INK,
        "axes.edgecolor": _GREY,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _draw_ratios(suites: dict[str, list[Line]], setting: Setting, path: Path) -> None:
    from matplotlib import pyplot as plt

    panels = [
        (title, [(line, judge(line)) for line in suites[suite]])
        for suite, title in (("lloyd", "Lloyd iterations alone"), ("end_to_end", "end to end"))
        if suite in suites
    ]
    panels = [(t, [(ln, v) for ln, v in pairs if v.ratio and v.best]) for t, pairs in panels]
    panels = [(title, pairs) for title, pairs in panels if pairs]
    labels = list(dict.fromkeys(line.shape.label for _, pairs in panels for line, _ in pairs))
    figure, axes = plt.subplots(
        1,
        max(1, len(panels)),
        figsize=(10, 1.3 + 0.42 * max(1, len(labels))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, pairs) in zip(axes[0], panels, strict=False):
        top = max(verdict.ratio or 0.0 for _, verdict in pairs)
        for line, verdict in pairs:
            if verdict.ratio is None or verdict.best is None:
                continue
            row = labels.index(line.shape.label)
            axis.barh(row, verdict.ratio, height=0.62, color=_OWN)
            number = axis.annotate(
                f"{verdict.ratio:.1f}x",
                (verdict.ratio, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                weight="bold",
            )
            axis.annotate(
                ENTRIES[verdict.best].title,
                (1.0, 0.5),
                xycoords=number,
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color="#616e7c",
                fontsize=9,
            )
        axis.axvline(1.0, color=_INK, linewidth=1)
        axis.set_xlim(0, 1.6 * top)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set_yticks(range(len(labels)), labels)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color=_SOFT)
        axis.set_axisbelow(True)
        axis.set_title(title, fontsize=11, weight="bold", loc="left")
        axis.set_xlabel("speed over the fastest peer, named in grey", fontsize=9)
    figure.suptitle(
        f"ddkern against scikit-learn, scikit-learn-intelex, faiss and torch ({setting.title})",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    _save(figure, path)


def _draw_scaling(lines: list[Line], axis_name: str, path: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")

    def points(key: str) -> tuple[list[int], list[float]]:
        found = [(getattr(ln.shape, axis_name), ln.seconds(key)) for ln in lines]
        kept = [(size, 1e3 * seconds) for size, seconds in found if seconds is not None]
        return [size for size, _ in kept], [ms for _, ms in kept]

    for number, entry in enumerate(e for e in PEERS if points(e.key)[0]):
        dashes = ("-", "--", ":", "-.")[number % 4]
        sizes, ms = points(entry.key)
        axis.plot(sizes, ms, dashes, color="#7b8794", linewidth=1.4, label=entry.title, marker=".")
    best = [
        (getattr(ln.shape, axis_name), 1e3 * min(ln.seconds(k) or math.inf for k in ln.peers()))
        for ln in lines
        if ln.peers()
    ]
    if best:
        sizes, ms = [s for s, _ in best], [m for _, m in best]
        axis.plot(sizes, ms, color="#e8590c", linewidth=5, alpha=0.28, label="fastest peer")
    sizes, ms = points(SUBJECT.key)
    if sizes:
        axis.plot(sizes, ms, color=_OWN, linewidth=2.4, marker="o", markersize=5, label="ddkern")
        axis.plot(
            sizes,
            [0.6 * ms[0] * size / sizes[0] for size in sizes],
            color=_INK,
            linewidth=0.8,
            linestyle=(0, (1, 3)),
            label="proportional",
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [getattr(line.shape, axis_name) for line in lines]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(which="major", color=_SOFT)
    axis.set_axisbelow(True)
    axis.set_xlabel(AXIS_TITLES[axis_name])
    axis.set_ylabel(f"ms for {lines[0].shape.iterations} Lloyd iterations, all groups")
    axis.set_title(_fixed_sizes(lines[0].shape, axis_name), fontsize=10, loc="left")
    handles, names = axis.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: (names[i] != "ddkern", i))
    # Beside the curves: no corner is free in every plot.
    axis.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        frameon=False,
        fontsize=9,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )
    _save(figure, path)


def draw_curves(
    curves: dict[str, list[tuple[int, float]]],
    path: Path,
    *,
    x_label: str,
    y_label: str,
    title: str,
) -> None:
    """Draw times against a size, both logarithmic, as SVG; the first curve is ddkern's."""
    import matplotlib as mpl

    mpl.use("Agg")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A salt in place of random names: same results, same bytes.
    with mpl.rc_context(_style() | {"svg.hashsalt": "ddkern", "svg.fonttype": "path"}):
        from matplotlib import pyplot as plt
        from matplotlib.ticker import FuncFormatter

        figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        for number, (name, points) in enumerate(curves.items()):
            sizes, values = [size for size, _ in points], [value for _, value in points]
            if number == 0:
                axis.plot(sizes, values, color=_OWN, linewidth=2.4, marker="o", label=name)
            else:
                dashes = ("--", ":", "-.", "-")[(number - 1) % 4]
                axis.plot(sizes, values, dashes, color="#7b8794", marker=".", label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks = sorted({size for points in curves.values() for size, _ in points})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.grid(which="major", color=_SOFT)
        axis.set_axisbelow(True)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.set_title(title, fontsize=10, loc="left")
        axis.legend(frameon=False, fontsize=9)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _fixed_sizes(shape: Shape, varied: str) -> str:
    names = {"groups": "groups", "n": "n", "d": "D", "k": "k"}
    fixed = [f"{names[a]}={getattr(shape, a)}" for a in names if a != varied]
    return "Lloyd iterations, " + ", ".join(fixed)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    # No version of the plotting library in the file: same results, same bytes.
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
