# SPDX-License-Identifier: Apache-2.0
"""Accuracies of coresets under the protocols, and the speed of an evaluation."""
