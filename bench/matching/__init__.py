# SPDX-License-Identifier: Apache-2.0
"""Losses between networks, and gradients through steps of SGD, against plain torch."""
