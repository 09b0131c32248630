# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from helpers.html_tree import parse_html

TEXT = (
    '<main id="a"><style>p { }</style><p class="x y">one <b>two</b><br>3 &lt;</p>'
    '<img src="s"><p>four</p><svg><rect x="1"/></svg></main>'
)


def test_elements_and_texts() -> None:
    root = parse_html(TEXT)
    assert root.text == "one two 3 <four"
    assert [p.text for p in root.all("p")] == ["one two 3 <", "four"]
    assert root.one("p", class_="y").one("b").text == "two"
    assert root.one("main", id="a").one("img").attributes == {"src": "s"}
    assert root.one("rect").attributes == {"x": "1"}
    assert root.all("p", class_="z") == []


def test_only_one_is_one() -> None:
    for tag in ("p", "q"):
        with pytest.raises(AssertionError):
            parse_html(TEXT).one(tag)


@pytest.mark.parametrize("text", ["<p>", "<p><b></p></b>", "</p>", '<p a="1" a="2"></p>'])
def test_broken_pages(text: str) -> None:
    with pytest.raises(AssertionError):
        parse_html(text)
