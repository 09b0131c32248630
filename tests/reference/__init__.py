# SPDX-License-Identifier: Apache-2.0
"""Slow, plain twins of the kernels: what the answers are, written to be read."""
