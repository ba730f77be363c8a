# SPDX-License-Identifier: Apache-2.0
"""Haematoxylin and eosin in optical density: how two amounts of stain become one colour.

Amounts are kept as uint8 while a slide is painted (:data:`FULL` is the most stain there is), so that colour is one
look-up in a 256 × 256 table, made per slide from the Beer–Lambert law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FULL = 255  # the uint8 amount that stands for a concentration of MOST
MOST = 2.2  # natural-log optical density along the stain's unit vector; denser nuclei are black in any scanner
HAEMATOXYLIN = (0.563, 0.720, 0.406)  # red, green, blue: unit vectors of Macenko et al., ISBI 2009
EOSIN = (0.216, 0.801, 0.558)


@dataclass(frozen=True)
class Stain:
    """One laboratory's staining on one day.

    Attributes:
        haematoxylin: unit vector of optical density (red, green, blue).
        eosin: the same.
        strength: factors on the amounts of the two stains.
        glass: intensity of empty glass, 0 to 255, per channel.
    """

    haematoxylin: tuple[float, ...] = HAEMATOXYLIN
    eosin: tuple[float, ...] = EOSIN
    strength: tuple[float, float] = (1.0, 1.0)
    glass: tuple[float, ...] = (244.0, 242.0, 245.0)

    def table(self) -> np.ndarray:
        """Colours of all pairs of amounts.

        Returns:
            uint8 ``[256, 256, 3]``, indexed by haematoxylin, then eosin.
        """
        amount = np.arange(256, dtype=np.float64) * (MOST / FULL)
        haematoxylin = np.multiply.outer(amount * self.strength[0], np.array(self.haematoxylin))  # (256, 3)
        eosin = np.multiply.outer(amount * self.strength[1], np.array(self.eosin))  # (256, 3)
        density = haematoxylin[:, None, :] + eosin[None, :, :]  # (256, 256, 3)
        return np.rint(np.array(self.glass) * np.exp(-density)).astype(np.uint8)


def draw_stain(rng: np.random.Generator) -> Stain:
    """A staining that differs from the standard one as two runs of one laboratory's stainer do (a few per cent)."""
    return Stain(
        haematoxylin=_tilted(rng, HAEMATOXYLIN),
        eosin=_tilted(rng, EOSIN),
        strength=(float(rng.uniform(0.93, 1.07)), float(rng.uniform(0.9, 1.1))),
        glass=tuple(float(channel + rng.uniform(-2, 2)) for channel in (244.0, 242.0, 245.0)),
    )


def _tilted(rng: np.random.Generator, vector: tuple[float, ...]) -> tuple[float, ...]:
    """The unit vector turned by about one degree in a random direction."""
    tilted = np.array(vector) + rng.normal(0, 0.012, 3)
    return tuple(float(component) for component in tilted / np.linalg.norm(tilted))
