# SPDX-License-Identifier: Apache-2.0
"""A look at all slides, and at the clinical table, before a training of days.

The modules are imported one by one: who looks at the table does not wait for what reads slides.
"""
