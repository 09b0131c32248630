# SPDX-License-Identifier: Apache-2.0
"""``ddkern protocols``."""

from __future__ import annotations

from ddkern.cli.arguments import AsJson
from ddkern.cli.output import print_json, print_table

__all__ = ["protocols"]


def protocols(as_json: AsJson = False) -> None:
    """List the evaluation protocols."""
    from ddkern.evaluate import get_protocol, protocol_names

    known = [get_protocol(name) for name in protocol_names()]
    if as_json:
        print_json([{"key": p.key, "digest": p.digest(), **p.describe()} for p in known])
        return
    print_table(
        ("id", "version", "title", "source"),
        [(p.id, str(p.version), p.title, p.source) for p in known],
        left=4,
    )
