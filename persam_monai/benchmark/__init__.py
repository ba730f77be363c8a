# SPDX-License-Identifier: Apache-2.0
"""How fast things are: the network, and the reading of slides."""
