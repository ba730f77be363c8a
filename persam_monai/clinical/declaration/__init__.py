# SPDX-License-Identifier: Apache-2.0
"""From the text of ``clinical.yaml`` to variables, with the line of everything that is wrong."""
