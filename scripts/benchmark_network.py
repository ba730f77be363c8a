#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the network's speed, memory and size on this machine's CPU, and torchmil's where it is installed."""

from benchmarks.network import main

if __name__ == "__main__":
    main()
