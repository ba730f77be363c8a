# SPDX-License-Identifier: Apache-2.0
"""A small DICOM slide, as a scanner leaves it: a file for each level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

ROOT = "1.2.826.0.1.3680043.8.498"
TILE = 256


def write_dicom(path: Path, pixels: np.ndarray, mpp: float, series: int = 1) -> Path:
    """Write one level of a slide.

    Args:
        path: of the file.
        pixels: ``uint8 [H, W, 3]``, sides multiples of 256.
        mpp: µm per pixel.
        series: number of the slide.
    """
    rows, columns = pixels.shape[:2]
    frames = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[y : y + TILE, x : x + TILE]), 95, colorsubsampling="444")
        for y in range(0, rows, TILE)
        for x in range(0, columns, TILE)
    ]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.2.{series}.{columns}"
    level = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    level.SOPClassUID, level.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    level.StudyInstanceUID, level.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.3.{series}"
    level.FrameOfReferenceUID = f"{ROOT}.4"
    level.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    level.Rows = level.Columns = TILE
    level.SamplesPerPixel, level.PhotometricInterpretation, level.PlanarConfiguration = 3, "YBR_FULL_422", 0
    level.BitsAllocated, level.BitsStored, level.HighBit, level.PixelRepresentation = 8, 8, 7, 0
    level.NumberOfFrames, level.TotalPixelMatrixColumns, level.TotalPixelMatrixRows = len(frames), columns, rows
    level.TotalPixelMatrixFocalPlanes, level.DimensionOrganizationType = 1, "TILED_FULL"
    measures, shared, optical = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000] * 2
    shared.PixelMeasuresSequence = Sequence([measures])
    level.SharedFunctionalGroupsSequence = Sequence([shared])
    optical.OpticalPathIdentifier = "0"
    level.OpticalPathSequence = Sequence([optical])
    level.PixelData = encapsulate(frames)
    level["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    level.save_as(path, enforce_file_format=True)
    return path
