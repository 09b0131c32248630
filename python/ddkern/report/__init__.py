# SPDX-License-Identifier: Apache-2.0
"""Pictures of results.

Importing this package needs Pillow: ``pip install ddkern[data]``.
"""

from __future__ import annotations

from ddkern.report.contact_sheet import draw_contact_sheet, draw_distilled_set

__all__ = ["draw_contact_sheet", "draw_distilled_set"]
