# SPDX-License-Identifier: Apache-2.0
"""What things cost and yield: speed of the network and of reading slides."""
