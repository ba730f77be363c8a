#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast patches come out of a slide, against MONAI, OpenSlide, cuCIM and the decoder alone."""

from benchmarks.reading import main

if __name__ == "__main__":
    main()
