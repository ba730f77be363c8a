#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast features are extracted and learnt from, against what the network alone would take."""

from benchmarks.features import main

if __name__ == "__main__":
    main()
