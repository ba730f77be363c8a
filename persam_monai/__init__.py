# SPDX-License-Identifier: Apache-2.0
"""Personalised attention in digital pathology: whole-slide images and the clinical record, in one MONAI bundle."""

__version__ = "0.1.0"
