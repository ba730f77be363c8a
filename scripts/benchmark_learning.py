#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what heads learn on synthetic cohorts from features of random weights, trained as the demo trains."""

from benchmarks.learning import main

if __name__ == "__main__":
    main()
