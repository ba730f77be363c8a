# SPDX-License-Identifier: Apache-2.0
"""A picture of a slide: where tissue was found, and where patches are drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from persam_monai.data import SlideIndex, generator_for
from persam_monai.files import replacing
from persam_monai.slides import Slide

SIDE = 1800  # px: longest side of the slide in the picture
MARGIN = 6  # px around the footer's lines
TEXT = 20  # px: height of letters
OUTLINE = (0, 90, 255)  # blue: no stain has it, and it can be told from pink with colour-blind eyes
PATCH = (255, 225, 0)  # yellow, with a black line on both sides it shows on glass and on nuclei
HALO = (0, 0, 0)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # PIL's own has neither µ nor umlauts


def draw_picture(index: SlideIndex, name: str, patches: int, seed: int, place: Path) -> None:
    """Write a PNG of the slide with the outline of the tissue and one epoch's patches of some cells.

    Args:
        index: what is known of the slide.
        name: written below the picture; part of the random draw.
        patches: most patches to draw, one in each of so many cells chosen at random.
        seed: of the choice of cells and places.
        place: the file.

    Raises:
        UserError: if the slide cannot be decoded or the file cannot be written.
    """
    with Slide(index.header.path, header=index.header) as slide:
        (width, height), mpp = slide.dimensions, slide.mpp
        scale = min(1.0, SIDE / max(width, height))
        thumbnail = slide.thumbnail(min(mpp) / scale)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scene = cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA)
    _outline(scene, index.cells.tissue.unpack().mask)
    picture = Image.fromarray(scene)
    chosen = choose_patches(index, name, patches, seed)
    _rectangles(picture, chosen * scale, (index.cells.extent[0] * scale, index.cells.extent[1] * scale))
    legend = [
        (OUTLINE, "tissue"),
        (PATCH, f"{len(chosen)} of {len(index.cells)} patches"),
        (None, f"{width} × {height} px, {mpp[0]:.4g} µm/px"),
        (None, " ".join(name.split())),
    ]
    picture = _with_footer(picture, legend)
    with replacing(place) as partial:
        picture.save(partial, format="PNG")


def choose_patches(index: SlideIndex, name: str, patches: int, seed: int) -> np.ndarray:
    """One patch in each of at most ``patches`` random cells: level-0 corners ``int64 [n, 2]``."""
    generator = generator_for(seed, "picture", name)
    chosen = generator.permutation(len(index.cells))[:patches]
    return index.cells.locate(chosen, generator) if len(chosen) else np.empty((0, 2), np.int64)


def _outline(scene: np.ndarray, mask: np.ndarray) -> None:
    """Paint the inner border of the mask, 3 px wide, into ``uint8 [h, w, 3]``."""
    large = cv2.resize(mask.astype(np.uint8), (scene.shape[1], scene.shape[0]), interpolation=cv2.INTER_NEAREST)
    inner = cv2.erode(large, np.ones((3, 3), np.uint8), iterations=3)
    scene[large > inner] = OUTLINE


def _rectangles(picture: Image.Image, corners: np.ndarray, extent: tuple[float, float]) -> None:
    """Outline patches, given in pixels of the picture."""
    brush = ImageDraw.Draw(picture)
    width = 1 if min(extent) < 12 else 2  # px: a patch of a large slide is no larger than a letter
    boxes = np.concatenate([corners, corners + extent], axis=1).round().astype(int) - (0, 0, 1, 1)
    for left, top, right, bottom in boxes.tolist():
        right, bottom = max(left, right), max(top, bottom)
        brush.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=HALO)
        brush.rectangle((left, top, right, bottom), outline=PATCH, width=width)
        if right - left > 4 * width:
            brush.rectangle((left + width, top + width, right - width, bottom - width), outline=HALO)


def _with_footer(picture: Image.Image, legend: list[tuple[tuple[int, int, int] | None, str]]) -> Image.Image:
    """The picture on white, with lines of text below, which may begin with a sample of a colour."""
    font, line = ImageFont.truetype(FONT, TEXT), TEXT + MARGIN
    page = Image.new("RGB", (picture.width, picture.height + len(legend) * line + 2 * MARGIN), "white")
    page.paste(picture)
    brush = ImageDraw.Draw(page)
    for number, (colour, text) in enumerate(legend):
        top = picture.height + MARGIN + number * line
        if colour:
            brush.rectangle((MARGIN, top + 2, MARGIN + TEXT, top + TEXT), outline=HALO, fill=colour)
        brush.text((MARGIN + (1.5 * TEXT if colour else 0), top), text, fill="black", font=font)
    return page
