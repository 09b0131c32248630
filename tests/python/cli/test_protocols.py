# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")

from ddkern.evaluate import get_protocol, protocol_names


def test_table(run) -> None:
    shown = run("protocols").stdout
    for name in protocol_names():
        protocol = get_protocol(name)
        row = next(line for line in shown.splitlines() if line.split()[:1] == [name])
        assert row.split()[1] == str(protocol.version)
        # The beginnings of both, in this order: longer texts go on in the lines below.
        title, source = protocol.title[:10], protocol.source[:15]
        assert row.index(title) < row.index(source)


def test_json(run) -> None:
    shown = json.loads(run("protocols", "--json").stdout)
    assert [entry["id"] for entry in shown] == list(protocol_names())
    for entry in shown:
        protocol = get_protocol(entry["key"])
        described = json.loads(json.dumps(protocol.describe()))
        assert entry == {"key": protocol.key, "digest": protocol.digest(), **described}
