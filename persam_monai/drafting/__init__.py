# SPDX-License-Identifier: Apache-2.0
"""A first schema from a table, and what a table says about the label that it should not."""

from __future__ import annotations

from persam_monai.drafting.draft import draft_schema
from persam_monai.drafting.leaks import Leak, enough_to_tell, find_leak

__all__ = ["Leak", "draft_schema", "enough_to_tell", "find_leak"]
