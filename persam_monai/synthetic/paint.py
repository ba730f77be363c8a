# SPDX-License-Identifier: Apache-2.0
"""Paint a slide: background tones and textures first, then nuclei, then colour.

Amounts of haematoxylin and eosin are kept as uint8 while a slide is painted, so that colour is one look-up in a
256 × 256 table, made per slide from the Beer–Lambert law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter

from persam_monai.synthetic.cells import FULL, SPRITES, Wallpaper, enlarge, fibres, grain, sprites
from persam_monai.synthetic.tissue import CELL, Kind, Zone, draw_kinds, draw_zones, jittered_grid

BLOCK = 512  # px; the painter works in blocks that stay in the processor's cache
MOST = 2.2  # natural-log optical density along the stain's unit vector; denser nuclei are black in any scanner
HAEMATOXYLIN = (0.563, 0.720, 0.406)  # red, green, blue: unit vectors of Macenko et al., ISBI 2009
EOSIN = (0.216, 0.801, 0.558)


@dataclass(frozen=True)
class Recipe:
    """How a zone is painted.

    Attributes:
        haematoxylin: background amount, as a fraction of full.
        eosin: the same.
        spacing: distance between neighbouring nuclei in pixels (0: no nuclei).
        cells: what stands at a place, with its probability; the rest stays empty.
    """

    haematoxylin: float = 0.0
    eosin: float = 0.0
    spacing: float = 0.0
    cells: tuple[tuple[str, float], ...] = ()


RECIPES = {
    Zone.GLASS: Recipe(),
    Zone.STROMA: Recipe(0.02, 0.33, 72, (("fibroblast", 0.6), ("lymphocyte", 0.1))),
    Zone.SHEET: Recipe(0.08, 0.24, 57, (("blast", 0.86), ("lymphocyte", 0.07), ("mitosis", 0.03))),
    Zone.FL_FOLLICLE: Recipe(0.08, 0.22, 36, (("centrocyte", 0.91), ("centroblast", 0.05), ("lymphocyte", 0.02))),
    Zone.FL_BETWEEN: Recipe(0.03, 0.27, 38, (("lymphocyte", 0.42), ("fibroblast", 0.12), ("centrocyte", 0.16))),
    Zone.REACTIVE_CENTRE: Recipe(
        0.03, 0.17, 46, (("centroblast", 0.34), ("centrocyte", 0.28), ("macrophage", 0.13), ("lymphocyte", 0.1))
    ),
    Zone.REACTIVE_MANTLE: Recipe(0.08, 0.2, 29, (("lymphocyte", 0.97),)),
    Zone.REACTIVE_BETWEEN: Recipe(
        0.04, 0.26, 36, (("lymphocyte", 0.52), ("plasma", 0.2), ("centroblast", 0.05), ("fibroblast", 0.04))
    ),
}


@dataclass(frozen=True)
class Painting:
    """A painted slide and what was painted.

    Attributes:
        image: uint8 ``[size, size, 3]``, red, green and blue at 0.25 µm/px.
        kinds: uint8 ``[ceil(size / 16), ceil(size / 16)]`` of :class:`~persam_monai.synthetic.tissue.Kind`.
    """

    image: np.ndarray
    kinds: np.ndarray


def paint_slide(rng: np.random.Generator, size: int, kinds: Sequence[Kind]) -> Painting:
    """Paint one H&E slide at 0.25 µm/px.

    Returns:
        The image and the map of kinds.
    """
    table = draw_stain(rng).table()
    kind_map = draw_kinds(rng, size, kinds)
    zones = draw_zones(rng, kind_map)
    turn = int(rng.integers(4))  # quarter turns: the drawn fibres and cells have one direction, slides do not
    haematoxylin, eosin = _backgrounds(rng, zones, size, turn)
    _stamp_cells(rng, zones, haematoxylin, eosin, turn)
    image = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, 64):  # in strips: the indices of a whole slide would take eight times its memory
        strip = np.s_[top : top + 64]
        image[strip] = table[haematoxylin[strip], eosin[strip]]
    return Painting(image, kind_map)


def _backgrounds(rng: np.random.Generator, zones: np.ndarray, size: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Amounts of both stains without nuclei; uint8 ``[size, size]`` each."""
    layers = np.array([[recipe.haematoxylin, recipe.eosin] for recipe in RECIPES.values()], np.float32)
    tones = [gaussian_filter(layers[zones, stain], 0.7) for stain in (0, 1)]
    stroma = gaussian_filter((zones == Zone.STROMA).astype(np.float32), 0.7)
    tissue = gaussian_filter((zones != Zone.GLASS).astype(np.float32), 0.7)
    shift = rng.integers(0, 4096, 4).tolist()
    specks = Wallpaper(grain(), (shift[0], shift[1]), BLOCK)
    collagens = Wallpaper(np.rot90(fibres(), turn), (shift[2], shift[3]), BLOCK)
    amounts = np.empty((2, size, size), np.uint8)
    for top in range(0, size, BLOCK):
        for left in range(0, size, BLOCK):
            box = (top, left, min(BLOCK, size - top), min(BLOCK, size - left))
            speck, collagen = specks.part(*box), collagens.part(*box)
            strands = 1 + enlarge(stroma, CELL, *box) * (1.15 * collagen - 0.85)
            cover = strands * np.clip(8 * (enlarge(tissue, CELL, *box) - 0.5 + 0.05 * speck) + 0.5, 0, 1)
            for amount, tone, unevenness in zip(amounts, tones, (0.35, 0.2), strict=True):
                field = enlarge(tone, CELL, *box) * cover * (1 + unevenness * speck)
                field = FULL * field + speck + 2  # camera noise, on glass too
                amount[top : top + box[2], left : left + box[3]] = np.clip(field, 0, FULL)
    return amounts[0], amounts[1]


def _stamp_cells(
    rng: np.random.Generator, zones: np.ndarray, haematoxylin: np.ndarray, eosin: np.ndarray, turn: int
) -> None:
    """Lay nuclei and cell bodies on the backgrounds, in place."""
    zones = np.where(binary_erosion(zones != Zone.GLASS, iterations=2), zones, Zone.GLASS)  # none hangs over the edge
    for zone, recipe in RECIPES.items():
        if not recipe.spacing or not np.any(zones == zone):
            continue
        places = jittered_grid(rng, haematoxylin.shape, recipe.spacing, 0.26)
        asked = np.clip((places + rng.uniform(-8, 8, places.shape)) / CELL, 0, len(zones) - 1e-3).astype(np.intp)
        places = places[zones[asked[:, 0], asked[:, 1]] == zone]  # asked a little aside: borders do not look cut
        drawn = [[np.rot90(pair, turn, (1, 2)) for pair in sprites(name)] for name, _ in recipe.cells]
        limits = np.cumsum([share for _, share in recipe.cells])
        choices = np.searchsorted(limits, rng.uniform(size=len(places)), side="right")
        variants = rng.integers(0, SPRITES, len(places))
        for (y, x), choice, variant in zip(places.astype(int), choices, variants, strict=True):
            if choice < len(drawn):
                _stamp(haematoxylin, eosin, int(y), int(x), drawn[choice][variant])


def _stamp(haematoxylin: np.ndarray, eosin: np.ndarray, y: int, x: int, sprite: np.ndarray) -> None:
    """Lay one cell with its middle at (y, x): the darker haematoxylin wins, and the paler eosin."""
    reach = sprite.shape[1] // 2
    top, left = y - reach, x - reach
    sprite = sprite[:, max(-top, 0) : haematoxylin.shape[0] - top, max(-left, 0) : haematoxylin.shape[1] - left]
    top, left = max(top, 0), max(left, 0)
    box = np.s_[top : top + sprite.shape[1], left : left + sprite.shape[2]]
    np.maximum(haematoxylin[box], sprite[0], out=haematoxylin[box])
    np.minimum(eosin[box], sprite[1], out=eosin[box])


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
        """Colours of all pairs of amounts."""
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
