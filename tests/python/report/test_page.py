# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import html
import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for _package in ("jinja2", "PIL", "safetensors", "sklearn", "torch"):
    pytest.importorskip(_package)

from PIL import Image  # noqa: E402

from ddkern.data import DistilledSet  # noqa: E402
from ddkern.errors import UnsupportedError  # noqa: E402
from ddkern.report import Run, read_run, render_page, write_page  # noqa: E402
from ddkern.report.run_folder import Stage  # noqa: E402
from helpers.distilled import make_set  # noqa: E402
from helpers.html_tree import Element, parse_html  # noqa: E402
from helpers.runs import (  # noqa: E402
    STAGES,
    make_digits_set,
    make_evaluation,
    make_measures,
    make_record,
    write_evaluation,
    write_json,
    write_run,
)

SECTIONS = ("accuracy", "images", "masses", "distortion", "prior", "stages", "reproduce")
FOLDED = ("settings", "versions")

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def digits() -> DistilledSet:
    return make_digits_set()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: DistilledSet) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("page") / "run", digits))


@pytest.fixture(scope="module")
def page(run: Run) -> Element:
    return parse_html(render_page(run))


def section(page: Element, name: str) -> Element:
    return page.one("section", id=name)


def rows_of(element: Element) -> list[list[str]]:
    """The texts of a table, row by row."""
    return [
        [cell.text for cell in row if cell.tag in ("th", "td")]
        for body in element.all("tbody")
        for row in body.all("tr")
    ]


def decoded(image: Element) -> np.ndarray:
    head, _, data = image.attributes["src"].partition(",")
    assert head == "data:image/png;base64"
    opened = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert opened.format == "PNG"
    return np.asarray(opened)


def test_title_and_key_figures(page: Element) -> None:
    assert page.one("h1").text == "ddoq on digits, 4 images per class"
    assert page.one("head").one("title").text == page.one("h1").text
    figures = page.one("dl", class_="key-figures")
    shown = [
        [part.text for part in entry if part.tag in ("dt", "dd")] for entry in figures.all("div")
    ]
    assert shown == [
        ["images per class", "4"],
        ["images", "40", f"10 classes, 1 {TIMES} 8 {TIMES} 8"],
        ["accuracy", "91.50 ± 0.24 %", "DDOQ, density; E1-dsa@1"],
        ["W2, weighted", "2.595", "uniform 3.243 to 3.245, gain 20.0 %"],
        ["time", "2 min", "of all stages"],
    ]
    assert "Folder run, seed 7" in page.one("p", class_="origin").text


def test_one_network_has_no_deviation(run: Run) -> None:
    line = replace(run.evaluations[0], evaluation=make_evaluation((0.9,)))
    page = parse_html(render_page(replace(run, evaluations=(line,))))
    assert "90.00 %" in [value.text for value in page.all("dd", class_="value")]
    assert rows_of(section(page, "accuracy"))[0][3:6] == ["90.00", "1", "unknown"]


def test_accuracy_of_other_sets_is_no_key_figure(run: Run) -> None:
    page = parse_html(render_page(replace(run, evaluations=run.evaluations[2:])))
    names = [name.text for name in page.one("dl").all("dt")]
    assert names == ["images per class", "images", "W2, weighted", "time"]


def test_sections_are_there_and_linked(page: Element) -> None:
    names = [part.attributes["id"] for part in page.one("main").all("section")]
    assert names == [*SECTIONS, *FOLDED]
    links = [link.attributes["href"] for link in page.one("nav").all("a")]
    assert links == [f"#{name}" for name in names]


def test_accuracies(page: Element) -> None:
    rows = rows_of(section(page, "accuracy"))
    # 0.2309: the root of the sum of the squares of 0.1732 and 0.0882 is 0.1944, of which twice.
    assert [[cell for cell in row if cell] for row in rows] == [
        ["DDOQ, density this set", "E1-dsa@1", "convnet", "91.50 ± 0.24", "3", "0.17",
         "+0.23 ± 0.39", "no"],
        ["DDOQ, uniform this set", "E1-dsa@1", "convnet", "91.27 ± 0.12", "3", "0.09",
         f"{MINUS}0.23 ± 0.39", "no"],
        ["one network", "E1-dsa@1", "convnet", "88.00", "1", "unknown", f"{MINUS}3.50", "unknown"],
        ["random", "E1-dsa@1", "convnet", "85.50 ± 1.22", "3", "0.87",
         f"{MINUS}6.00 ± 1.77", "yes"],
        ["DDOQ, ResNet", "E1-dsa@1", "resnet-18", "90.50 ± 0.50", "2", "0.50", "no other line"],
    ]  # fmt: skip


def test_accuracy_charts_share_an_axis(page: Element) -> None:
    charts = section(page, "accuracy").all("svg")
    shown = {}
    for chart, row in zip(charts, rows_of(section(page, "accuracy")), strict=True):
        (centre,) = chart.all("circle", class_="centre")
        shown[float(row[3].split()[0])] = float(centre.attributes["cx"])
        assert len(chart.all("circle", class_="network")) == int(row[4])
        assert len(chart.all("line", class_="error")) == (row[4] != "1")
        assert chart.attributes["aria-label"].startswith(f"{row[3].split()[0]} %")
        for circle in chart.all("circle"):
            assert 0 < float(circle.attributes["cx"]) < 160
    ordered = sorted(shown)
    scale = np.diff([shown[value] for value in ordered]) / np.diff(ordered)
    assert scale == pytest.approx([scale.mean()] * len(scale), rel=0.02)


def test_every_class_image_and_mass(page: Element, run: Run) -> None:
    classes = section(page, "images").all("div", class_="class")
    assert [entry.one("h3").text for entry in classes] == list(run.distilled.class_names)
    pixels, weight = run.distilled.pixels(), run.distilled.sample_weight
    assert run.nearest_real is not None
    for label, entry in enumerate(classes):
        rows = np.flatnonzero(run.distilled.labels == label)
        rows = rows[np.argsort(-weight[rows], kind="stable")]
        captions = [caption.text for caption in entry.all("figcaption")]
        # The mean of a class is 1 in this set.
        assert captions == [f"{weight[row]:.2f}" for row in rows]
        for row, figure in zip(rows, entry.all("figure"), strict=True):
            image, real = figure.all("img")
            np.testing.assert_array_equal(decoded(image), pixels[row, 0])
            np.testing.assert_array_equal(decoded(real), run.nearest_real[row, 0])
        worth = weight[rows].sum() ** 2 / np.square(weight[rows]).sum()
        assert f"4 images, worth {worth:.1f} of equal mass" in entry.one("p").text


def test_all_images_are_described_and_enlarged_in_whole_steps(page: Element) -> None:
    images = page.all("img")
    assert len(images) == 2 * 40 + 3
    alts = [image.attributes["alt"] for image in images]
    assert all(alts)
    assert len(set(alts)) == len(alts)
    for image in section(page, "images").all("img"):
        assert image.attributes["class"] == "pixels"
        assert (image.attributes["width"], image.attributes["height"]) == ("64", "64")
    for image in images:
        decoded(image)


def test_masses(page: Element, run: Run) -> None:
    histogram = section(page, "masses").one("svg")
    bars = histogram.all("rect")
    counts = [int(bar.one("title").text.split()[0]) for bar in bars]
    assert sum(counts) == 40
    heights = [float(bar.attributes["height"]) for bar in bars]
    assert heights == pytest.approx(np.array(counts) * heights[0] / counts[0], abs=0.02)
    mean = float(histogram.one("line", class_="mean").attributes["x1"])
    below = sum(n for n, bar in zip(counts, bars, strict=True) if float(bar.attributes["x"]) < mean)
    assert below == (run.distilled.sample_weight < 1).sum()
    assert histogram.one("text", class_="mean-name").text == "mean 1"


def test_distortion(page: Element, digits: DistilledSet) -> None:
    rows = rows_of(section(page, "distortion"))
    found = make_measures(digits)
    assert len(rows) == 11
    assert rows[0] == [
        "all", "1445", "6.732", "2.595", "3.243 to 3.245", "20.0", "",
        f"{found.summary.stationarity:.3f}", "1.6 to 34.4",
    ]  # fmt: skip
    assert rows[1] == ["0", "140", "4.000", "2.000", "2.500", "20.0", "", "0.000", "1.6 to 34.4"]
    assert rows[2][3:6] == ["2.125", "2.656 to 2.678", "20.0 to 20.6"]
    assert [row[0] for row in rows[1:]] == list(digits.class_names)


def test_prior_stages_and_the_rest(page: Element, run: Run) -> None:
    pictures = section(page, "prior").all("img")
    assert [decoded(picture).shape[:2] for picture in pictures] == [(20, 30), (20, 31), (20, 32)]
    rows = rows_of(section(page, "stages"))
    assert rows[0] == ["prior", "90.50", "83.8 %", "", "rows 100, rmse 0.1235"]
    assert [row[0] for row in rows] == [*(name for name, _ in STAGES), "all"]
    assert rows[-1][1] == "108"
    widths = [float(bar.attributes["width"]) for bar in section(page, "stages").all("rect")]
    assert widths == pytest.approx([160 * seconds / 108 for _, seconds in STAGES], abs=0.01)
    assert rows_of(section(page, "settings")) == [
        ["ipc", "4"],
        ["prior.steps", "300"],
        ["prior.widths", "16, 32"],
        ["guidance", "1.1234567"],
        ["relabel", "yes"],
    ]
    assert rows_of(section(page, "versions")) == [["python", "3.12.1"], ["ddkern", "0.9"]]
    for name in FOLDED:
        assert "open" in section(page, name).one("details").attributes


def test_page_needs_nothing_from_elsewhere(run: Run) -> None:
    text = render_page(run)
    page = parse_html(text)
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\(|@import", text)
    assert {element.tag for element in page}.isdisjoint({"script", "link", "iframe", "object"})
    for element in page:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action"):
                assert value.startswith(("data:image/png;base64,", "#"))
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_page_says_its_language_and_labels_its_parts(page: Element) -> None:
    assert page.one("html").attributes["lang"] == "en"
    ids = [element.attributes["id"] for element in page if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for part in page.all("section"):
        label = part.attributes.get("aria-labelledby")
        assert label in ids if label else part.one("summary")
    for table in page.all("table"):
        heads = table.one("thead").all("th")
        assert all(head.attributes["scope"] == "col" and head.text for head in heads)
        for row in (row for body in table.all("tbody") for row in body.all("tr")):
            assert [head.attributes["scope"] for head in row.all("th")] == ["row"]
            assert len([c for c in row if c.tag in ("th", "td")]) == len(heads)
    for chart in page.all("svg"):
        assert chart.attributes["role"] == "img"
        assert chart.attributes["aria-label"]
    for region in page.all("div", class_="scroll"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]


def test_texts_are_escaped(tmp_path: Path) -> None:
    names = ("<b>", "\"quoted\" & 'so'", "</style><script>alert(1)</script>")
    distilled = make_set("pixels", class_names=names)
    folder = write_run(tmp_path / "<i>&run", distilled)
    write_json(
        folder / "run.json",
        make_record(
            distilled,
            command="ddkern '<i>&run'",
            method="<u>m",
            dataset='d"<s>',
            settings={"<em>": "</table>"},
            stages=[{"name": "<q>", "seconds": 1, "detail": {"<p>": "<li>"}}],
            versions={"<h6>": "&amp;"},
        ),
    )
    hostile = make_evaluation((0.5, 0.6), distilled, model="<del>", protocol="<ins>")
    write_evaluation(folder, "1-density", "<sup>", hostile)
    page = parse_html(render_page(read_run(folder)))
    tags = {element.tag for element in page}
    assert tags.isdisjoint({"b", "i", "s", "u", "em", "q", "h6", "del", "ins", "sup", "script"})
    assert [title.text for title in page.all("h3")] == list(names)
    assert section(page, "images").all("img")[0].attributes["alt"].endswith("of class <b>")
    assert page.one("h1").text == '<u>m on d"<s>, 2 images per class'
    assert rows_of(section(page, "settings")) == [["<em>", "</table>"]]
    assert rows_of(section(page, "versions")) == [["<h6>", "&amp;"]]
    assert rows_of(section(page, "stages"))[0][0] == "<q>"
    assert rows_of(section(page, "stages"))[0][4] == "<p> <li>"
    assert ["<sup> this set", "<ins>", "<del>"] in [
        row[:3] for row in rows_of(section(page, "accuracy"))
    ]
    assert section(page, "reproduce").one("code").text == "ddkern '<i>&run'"


@pytest.mark.parametrize(
    ("part", "sections"),
    [
        ("measures.json", {"distortion"}),
        ("accuracies", {"accuracy"}),
        ("prior", {"prior"}),
        ("run.json", {"reproduce", "stages"}),
        ("nearest_real.npy", set()),
    ],
)
def test_missing_parts_leave_their_sections_out(
    tmp_path: Path, digits: DistilledSet, part: str, sections: set[str]
) -> None:
    path = write_run(tmp_path / "run", digits) / part
    path.unlink() if path.is_file() else shutil.rmtree(path)
    page = parse_html(render_page(read_run(tmp_path / "run")))
    names = {part.attributes["id"] for part in page.one("main").all("section")}
    assert {*SECTIONS, *FOLDED} - names == sections
    assert {link.attributes["href"][1:] for link in page.one("nav").all("a")} == names
    images = len(section(page, "images").all("img"))
    assert images == (40 if part == "nearest_real.npy" else 80)
    assert ("nearest" in section(page, "images").text) == (part != "nearest_real.npy")


def test_set_alone_is_a_page(tmp_path: Path, digits: DistilledSet) -> None:
    digits.save(tmp_path / "set.safetensors")
    page = parse_html(render_page(read_run(tmp_path)))
    names = [part.attributes["id"] for part in page.one("main").all("section")]
    assert names == ["images", "masses", *FOLDED]
    assert page.one("h1").text == "k-means on digits, 4 images per class"
    settings = dict(rows_of(section(page, "settings")))
    assert settings["ipc"] == "4"
    assert settings["rows"].endswith("and 32 more")


def test_set_of_unknown_origin_is_a_page(tmp_path: Path) -> None:
    plain = make_set("pixels")
    labels = np.array([0, 1, 1, 2, 2, 2])
    DistilledSet(plain.images, labels, normalization=plain.normalization).save(
        tmp_path / "set.safetensors"
    )
    page = parse_html(render_page(read_run(tmp_path)))
    names = [part.attributes["id"] for part in page.one("main").all("section")]
    assert names == ["images", "masses"]
    assert page.one("h1").text == "distilled set, 1 to 3 images per class"
    assert page.all("rect") == []
    assert "same mass" in section(page, "masses").text
    assert "worth" not in section(page, "images").text


def test_the_command_stands_as_it_was_given(run: Run) -> None:
    page = parse_html(render_page(run))
    assert section(page, "reproduce").one("code").text == run.command != ""
    page = parse_html(render_page(replace(run, command="")))
    assert page.all("section", id="reproduce") == []


def test_stages_that_took_no_time(run: Run) -> None:
    stages = (Stage(name="all", seconds=0.0, detail={}),)
    page = parse_html(render_page(replace(run, stages=stages)))
    assert rows_of(section(page, "stages")) == [
        ["all", "0.00", "0.0 %", "", ""],
        ["all", "0.00", "", "", ""],
    ]


def test_weights_without_any_gain(run: Run) -> None:
    assert run.measures is not None
    zero = np.zeros(10)
    measures = replace(run.measures, w2_uniform_lower=zero, w2_uniform_upper=zero)
    page = parse_html(render_page(replace(run, measures=measures)))
    assert {row[5] for row in rows_of(section(page, "distortion"))} == {f"{MINUS}\N{INFINITY}"}
    worse = replace(run.measures, w2_upper=run.measures.w2_upper * 2)
    page = parse_html(render_page(replace(run, measures=worse)))
    assert rows_of(section(page, "distortion"))[1][5] == f"{MINUS}60.0 to 20.0"


def test_quantizer_without_distortion(run: Run) -> None:
    assert run.measures is not None
    zero = np.zeros(10)
    names = ("distortion", "w2_lower", "w2_upper", "w2_uniform_lower", "w2_uniform_upper")
    measures = replace(run.measures, **dict.fromkeys(names, zero))
    page = parse_html(render_page(replace(run, measures=measures)))
    assert rows_of(section(page, "distortion"))[1][2:6] == ["0.000", "0.000", "0.000", "0.0"]


def test_many_classes_are_cut_with_a_note(run: Run) -> None:
    page = parse_html(render_page(run, max_classes=3))
    assert len(section(page, "images").all("div", class_="class")) == 3
    assert len(rows_of(section(page, "distortion"))) == 4
    for name in ("images", "distortion"):
        assert "Shown are the first 3 of 10 classes." in section(page, name).text
    assert "Shown are" not in parse_html(render_page(run, max_classes=10)).text


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (0, ValueError, "max_classes=0; it must be an integer of at least 1"),
        (True, TypeError, "max_classes=True is a bool"),
        (2.5, TypeError, "max_classes=2.5 is a float"),
    ],
)
def test_wrong_max_classes(run: Run, value: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        render_page(run, max_classes=value)  # type: ignore[arg-type]


def test_missing_jinja2_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UnsupportedError, match=r"needs the package jinja2 .*ddkern\[report\]"):
        render_page(run)


def test_file_appears_complete_or_not_at_all(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(run, path)
    text = path.read_text(encoding="utf-8")
    assert text == render_page(run)
    assert text.startswith("<!DOCTYPE html>\n")
    broken = replace(run, versions={"a": object}, stages=(None,))
    with pytest.raises(AttributeError):
        write_page(broken, path)
    assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------ in a browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)})")
    return found


def browse(browser: str, page: Path, width: int, dark: bool, *options: str) -> str:
    """Open a page in a window 900 pixels high; return what the browser prints."""
    done = subprocess.run(
        [
            browser,
            *FLAGS,
            f"--user-data-dir={page.parent / 'profile'}",
            f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_in_a_browser(run: Run, browser: str, tmp_path: Path, width: int, dark: bool) -> None:
    write_page(run, tmp_path / "page.html")
    shot = tmp_path / "shot.png"
    browse(browser, tmp_path / "page.html", width, dark, f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("L"), np.float64)
    assert pixels.shape == (900, width)
    # Most of it is paper, and the ink on it is far from the colour of the paper.
    paper = pixels[2, 2]
    assert (paper < 64) == dark
    assert 0.5 < (np.abs(pixels - paper) < 8).mean() < 0.99
    assert (np.abs(pixels - paper) > 150).sum() > 1000


def test_page_is_never_wider_than_its_window(run: Run, browser: str, tmp_path: Path) -> None:
    widths = (360, 420, 768, 1280)
    content = html.escape(render_page(run))
    frames = "".join(
        f'<iframe width="{w}" height="900" srcdoc="{content}"></iframe>' for w in widths
    )
    # The width of the content as soon as everything has been loaded, into the title.
    measure = (
        "onload = () => { document.title = Array.from(frames, "
        "({innerWidth, document}) => [innerWidth, document.documentElement.scrollWidth]) }"
    )
    path = tmp_path / "frames.html"
    path.write_text(
        "<!DOCTYPE html><title></title><style>iframe { border: 0; display: block }</style>"
        f"{frames}<script>{measure}</script>",
        encoding="utf-8",
    )
    found = re.search(r"<title>([\d,]+)</title>", browse(browser, path, 1400, False, "--dump-dom"))
    assert found is not None
    numbers = list(map(int, found[1].split(",")))
    assert numbers[0::2] == list(widths)
    assert numbers[1::2] == list(widths)
