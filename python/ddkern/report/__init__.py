# SPDX-License-Identifier: Apache-2.0
"""Pictures of results, and a page about a run.

Importing this package needs Pillow: ``pip install ddkern[report]``.

Public names
------------
draw_contact_sheet, draw_distilled_set
    Contact sheets.
read_run, Run
    The folder that a distillation left behind.
render_page, write_page
    One HTML page about it.
"""

from __future__ import annotations

from ddkern.report.contact_sheet import draw_contact_sheet, draw_distilled_set
from ddkern.report.page import render_page, write_page
from ddkern.report.run_folder import Run, read_run

__all__ = [
    "Run",
    "draw_contact_sheet",
    "draw_distilled_set",
    "read_run",
    "render_page",
    "write_page",
]
