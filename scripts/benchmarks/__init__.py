# SPDX-License-Identifier: Apache-2.0
"""What the ``benchmark_*.py`` scripts measure; not part of the installed package."""
