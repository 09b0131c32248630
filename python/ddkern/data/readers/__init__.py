# SPDX-License-Identifier: Apache-2.0
"""One module a file format; :func:`ddkern.data.open_dataset` picks one."""
