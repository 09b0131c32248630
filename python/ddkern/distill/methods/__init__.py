# SPDX-License-Identifier: Apache-2.0
"""One method a file. They do not know each other."""
