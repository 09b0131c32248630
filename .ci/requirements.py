# SPDX-License-Identifier: Apache-2.0
"""Print what ddkern and some of its extras need, a line each, as pip takes it.

So that packages can be fetched while the sources still compile: ``requirements.py dev,torch``.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))[
    "project"
]
extras = project["optional-dependencies"]
wanted = set(project["dependencies"])
for name in sys.argv[1].split(","):
    wanted.update(extras[name])
print("\n".join(sorted(wanted)))
