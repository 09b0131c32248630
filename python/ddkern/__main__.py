# SPDX-License-Identifier: Apache-2.0
"""``python -m ddkern``: print what a bug report needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ddkern.backend import config, show_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ddkern",
        description="Print ddkern's version, instruction sets, threads and CUDA state.",
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    options = parser.parse_args(arguments)
    if options.json:
        print(json.dumps(config(), indent=2))
    else:
        show_config()
    return 0


if __name__ == "__main__":
    sys.exit(main())
