# SPDX-License-Identifier: Apache-2.0
"""Evaluation of distilled sets."""
