# SPDX-License-Identifier: Apache-2.0
"""Features of whole slides, computed once and kept in files."""

from persam_monai.engines.extraction.extract import extract
from persam_monai.engines.extraction.slides import patches_at_once, slides_to_extract

__all__ = ["extract", "patches_at_once", "slides_to_extract"]
