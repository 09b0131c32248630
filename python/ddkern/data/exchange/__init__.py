# SPDX-License-Identifier: Apache-2.0
"""Distilled sets in the formats of others, one module a format."""
