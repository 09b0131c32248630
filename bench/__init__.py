# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of ddkern against what a user would pick instead."""
