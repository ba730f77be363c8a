# SPDX-License-Identifier: Apache-2.0
"""Features of slides in files: what is in them, when they are made anew, and what is left when something goes wrong."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.data import BadSlides, BagDataset, BagLoader, InOrder, PatchSettings, SlidePatches
from persam_monai.data.dataset import BagKey
from persam_monai.data.feature_finding import fingerprint
from persam_monai.engines import Extraction
from persam_monai.errors import UserError
from persam_monai.networks import PatchExtractor
from tests.data.making import Picture, garble, write_slides

SIDES = {"a.tif": 1024, "b.tif": 1024, "more/c.tif": 512}  # 16, 16 and 4 patches of 256 pixels
GRID = PatchSettings(size=256, sampling="grid")


class Means(nn.Module):
    """A backbone that anybody can check: mean, largest and smallest value of each colour."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        pixels = patches.flatten(2)  # [n, 3, H·W]
        return torch.cat([pixels.mean(2), pixels.amax(2), pixels.amin(2)], dim=1) * self.gain


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    (folder / "more").mkdir()
    write_slides(folder, picture, SIDES)
    return folder


@pytest.fixture
def slides(painted: Path, tmp_path: Path) -> Path:
    """Slides to damage."""
    return Path(shutil.copytree(painted, tmp_path / "slides"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Extracts the slides of a folder, and returns the folder of their features."""

    def run_it(
        folder: Path,
        to: str = "features",
        names: list[str] | None = None,
        backbone: nn.Module | None = None,
        patches: PatchSettings = GRID,
        batch: int = 3,
        num_workers: int = 0,
        on_bad_slide: str = "raise",
        mpp: float | None = None,
        prepare: Callable[[BagDataset], None] = lambda dataset: None,
        mean: list[float] | None = None,
        precision: str = "float32",
        **settings: Any,
    ) -> Path:
        dataset = BagDataset(
            cohort_of(folder, names or list(SIDES), mpp),
            InOrder(batch),
            SlidePatches(patches),
            label="extraction",
            bad_slides=BadSlides(on_bad_slide, tmp_path / to),
        )
        prepare(dataset)
        extractor = PatchExtractor(Means() if backbone is None else backbone, mean=mean, frozen=True)
        loader = BagLoader(dataset, num_workers=num_workers)
        Extraction(dataset, loader, extractor, tmp_path / to, precision=precision, **settings).run()
        return tmp_path / to

    return run_it


def cohort_of(folder: Path, names: list[str], mpp: float | None) -> Cohort:
    from persam_monai.cohort import SlideEntry

    record = np.empty(0, np.float32)
    entries = [SlideEntry(name, folder / name, f"P{i}", None, record, mpp, None, i + 2) for i, name in enumerate(names)]
    return Cohort(tuple(entries), ClinicalSchema.without_record())


def files(folder: Path) -> dict[str, bytes]:
    """All files by name, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("extractor.pt", "extraction.log")
    }


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.h5")}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_files_hold_the_features_of_every_patch_in_its_place(
    painted: Path, run: Any, num_workers: int, dtype: str
) -> None:
    made = run(painted, num_workers=num_workers, dtype=dtype)
    assert sorted(files(made)) == ["a.h5", "b.h5", "more/c.h5"]
    for name, side in SIDES.items():
        picture = tifffile.imread(painted / name, key=0)
        with h5py.File(made / name.replace(".tif", ".h5")) as file:
            features, coords = file["features"][:], file["coords"][:]
            np.testing.assert_array_equal(file["coords"].attrs["extent"], [256, 256])
            assert file.attrs["fingerprint"].decode() == fingerprint(painted / name)
        places = [(x, y) for y in range(0, side, 256) for x in range(0, side, 256)]
        assert features.dtype == np.dtype(dtype)
        assert sorted(map(tuple, coords.tolist())) == sorted(places)
        for row, (x, y) in zip(features, coords, strict=True):
            pixels = picture[y : y + 256, x : x + 256].reshape(-1, 3) / 255
            pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            expected = np.concatenate([pixels.mean(0), pixels.max(0), pixels.min(0)])
            np.testing.assert_allclose(row, expected, atol=2e-3 if dtype == "float16" else 2e-5)


def test_a_file_does_not_depend_on_who_reads_and_what_else_is_extracted(painted: Path, run: Any) -> None:
    whole = files(run(painted, num_workers=2))
    alone = files(run(painted, to="alone", names=["b.tif"]))
    assert alone["b.h5"] == whole["b.h5"]


def test_what_is_current_is_neither_read_nor_written_again(
    painted: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = run(painted)
    (made / "b.h5").unlink()
    before = identities(made)
    read = []

    def note(dataset: BagDataset) -> None:
        reading = dataset.read
        dataset.read = lambda key, *rest: (read.append(key.slide), reading(key, *rest))[1]  # type: ignore

    with caplog.at_level(logging.INFO):
        run(painted, prepare=note)
    assert set(read) == {1}
    assert {name: identities(made)[name] for name in before} == before
    assert "3 slides" in caplog.text
    assert "1 written now, 2 were there already" in caplog.text
    read.clear()
    run(painted, prepare=note, batch=5)  # borders of batches matter to the last bits alone
    assert read == []


def test_machines_of_both_precisions_can_share_a_folder_unless_one_is_asked_for(painted: Path, run: Any) -> None:
    before = files(run(painted, precision="bf16"))
    assert files(run(painted, precision="auto")) == before
    with pytest.raises(UserError, match="precision was 'bf16' and is now 'float32'"):
        run(painted, precision="float32")


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"backbone": Means(2.0)}, "weights was .* and is now"),
    ({"backbone": nn.Sequential(Means())}, "extractor was '.*Means' and is now 'torch.nn"),
    ({"patches": PatchSettings(size=128, sampling="grid")}, "patch_size was 256 and is now 128"),
    ({"patches": PatchSettings(size=256, mpp=0.5, sampling="grid")}, "mpp was 0.25 and is now 0.5"),
    ({"patches": PatchSettings(size=256, min_tissue=0.1, sampling="grid")}, "min_tissue was 0.5 and is now 0.1"),
    ({"dtype": "float32"}, "features_dtype was 'float16' and is now 'float32'"),
    ({"precision": "bf16"}, "precision was 'float32' and is now 'bf16'"),
    ({"mean": [0.5, 0.5, 0.5]}, "pixel_mean was .* and is now"),
    ({"mpp": 0.24}, "slide_mpp was None and is now 0.24"),
]


@pytest.mark.parametrize(("changed", "told"), CHANGES)
def test_features_that_were_made_otherwise_are_replaced_only_on_request(
    painted: Path, run: Any, changed: dict[str, Any], told: str
) -> None:
    names = ["a.tif", "more/c.tif"]
    made = run(painted, names=names)
    (made / "extractor.pt").unlink()
    before = files(made)
    with pytest.raises(UserError, match=told) as caught:
        run(painted, names=["b.tif", *names], **changed)
    for words in (str(made / "a.h5"), str(made / "more" / "c.h5"), "--features_dir", "--overwrite true"):
        assert words in str(caught.value)
    assert files(made) == before, "something was done before the error"
    run(painted, names=names, **changed, overwrite=True)
    assert files(made) == files(run(painted, to="new", names=names, **changed))


def test_a_slide_that_has_changed_is_noticed(slides: Path, run: Any) -> None:
    made = run(slides)
    shutil.copy(slides / "b.tif", slides / "a.tif")
    with pytest.raises(UserError, match=r"a\.h5: it was made of another file") as caught:
        run(slides)
    assert "b.h5" not in str(caught.value)
    run(slides, overwrite=True, num_workers=1)  # this process has the old file open
    assert h5py.File(made / "a.h5")["features"][0, 0] == h5py.File(made / "b.h5")["features"][0, 0]


def test_a_damaged_file_is_not_taken_for_current(painted: Path, run: Any) -> None:
    made = run(painted)
    whole = files(made)
    with (made / "a.h5").open("r+b") as file:
        file.truncate(300)
    with pytest.raises(UserError, match=r"a\.h5: it cannot be read"):
        run(painted)
    run(painted, overwrite=True)
    assert files(made) == whole


def test_slides_whose_features_would_have_one_file_are_refused(slides: Path, run: Any) -> None:
    shutil.copy(slides / "a.tif", slides / "a.tiff")
    with pytest.raises(UserError, match=r"a\.h5: a\.tif \(row 2\) and a\.tiff \(row 3\)"):
        run(slides, names=["a.tif", "a.tiff"])


def test_random_weights_are_kept_and_never_used_unasked(
    painted: Path, run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = run(painted, backbone=Means(3.0))
    assert "random weights" in caplog.text
    kept = made / "extractor.pt"
    again = run(painted, to="again", backbone=Means(1.0), extractor_weights=str(kept))
    assert files(again) == files(made)
    assert not (again / "extractor.pt").exists()

    for file in made.rglob("*.h5"):
        file.unlink()
    before = kept.read_bytes()
    with pytest.raises(UserError, match=r"--extractor_weights .*extractor\.pt"):
        run(painted, backbone=Means(4.0))
    assert files(made) == {}
    assert kept.read_bytes() == before
    run(painted, backbone=Means(3.0))
    assert files(made) == files(again)


def test_float16_that_overflows_says_what_to_do_and_leaves_nothing(painted: Path, run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="features_dtype float32"):
        run(painted, backbone=Means(1e6))
    assert files(tmp_path / "features") == {}
    run(painted, backbone=Means(1e6), dtype="float32")


def test_features_that_are_no_numbers_are_refused(painted: Path, run: Any, tmp_path: Path) -> None:
    class Fragile(Means):
        """Gives NaN for stained tissue, and for none of the grey patches that an extractor is tried with."""

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            red, green, _ = patches.flatten(2).mean(2).unbind(1)
            return super().forward(patches).where((red - green < 0.8)[:, None], torch.nan)

    with pytest.raises(UserError, match=r"(a|b|c)\.h5 .*NaN or infinity"):
        run(painted, backbone=Fragile())
    assert not list((tmp_path / "features").rglob(".*"))


def test_an_extractor_that_gives_no_rows_is_refused_before_slides_are_read(painted: Path, run: Any) -> None:
    with pytest.raises(UserError, match=r"\[3, 3, 256, 256\]"):
        run(painted, backbone=nn.Identity())


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(painted: Path, run: Any) -> None:
    class Many(Means):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return super().forward(patches).repeat(1, 20_000)  # 240 kB of a patch

    made = run(painted, backbone=Many())
    whole = files(made)
    for name in ("a.h5", "b.h5"):
        (made / name).unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(UserError, match=r"\.h5 cannot be written: File too large"):
            run(painted, backbone=Many())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(files(made)) == ["more/c.h5"]
    assert files(run(painted, backbone=Many())) == whole


def test_a_folder_that_cannot_be_written_is_an_error(painted: Path, run: Any, tmp_path: Path) -> None:
    (tmp_path / "features").touch()
    with pytest.raises(UserError, match=r"features_dir .* is not writable.*--features_dir"):
        run(painted)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_slide_that_goes_bad_while_it_is_read_leaves_no_file(
    slides: Path, run: Any, tmp_path: Path, num_workers: int
) -> None:
    whole = files(run(slides, to="whole"))
    garble(slides / "b.tif", 9)
    with pytest.raises(UserError, match=r"b\.tif.*--on_bad_slide skip"):
        run(slides, num_workers=num_workers)
    assert not list((tmp_path / "features").rglob(".*"))

    for _ in range(2):  # the second time only the bad one is left
        made = run(slides, num_workers=num_workers, on_bad_slide="skip")
        found = files(made)
        lines = found.pop("skipped_slides.csv").decode().splitlines()
        assert [line.split(",")[:2] for line in lines[1:]] == [["extraction", "b.tif"]]
        assert found == {name: content for name, content in whole.items() if name != "b.h5"}


def test_a_slide_that_ends_its_worker_is_passed_over(painted: Path, run: Any) -> None:
    def dies(dataset: BagDataset) -> None:
        read = dataset.read

        def deadly(key: BagKey, *rest: Any) -> dict[str, Any]:
            if key.slide == 1 and key.bag == 2:
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGSEGV)
            return read(key, *rest)

        dataset.read = deadly  # type: ignore[method-assign, assignment]

    found = files(run(painted, num_workers=2, on_bad_slide="skip", prepare=dies))
    assert sorted(found) == ["a.h5", "more/c.h5", "skipped_slides.csv"]
    whole = files(run(painted, to="whole"))
    assert found["a.h5"] == whole["a.h5"]


@pytest.mark.parametrize("left", [["b.tif"], []])
def test_a_slide_with_features_that_cannot_be_read_now_is_its_own_problem(
    slides: Path, run: Any, left: list[str]
) -> None:
    made = run(slides)
    whole = files(made)
    for name in left:
        (made / name).with_suffix(".h5").unlink()
    (slides / "a.tif").unlink()
    with pytest.raises(UserError, match=r"Slide .*a\.tif cannot be read: No such file.*") as caught:
        run(slides)
    assert "--on_bad_slide skip" in str(caught.value)
    assert "b.tif" not in str(caught.value)

    found = files(run(slides, on_bad_slide="skip"))
    lines = found.pop("skipped_slides.csv").decode().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["extraction", "a.tif"]]
    assert found == whole


def test_a_slide_that_disappears_before_it_is_read_is_skipped(
    slides: Path, run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = files(run(slides, to="whole"))

    def meanwhile(dataset: BagDataset) -> None:
        look = dataset.source.look

        def look_and_remove(*given: Any) -> Any:
            looked = look(*given)
            (slides / "b.tif").unlink()
            return looked

        dataset.source.look = look_and_remove  # type: ignore[method-assign, assignment]

    with caplog.at_level(logging.INFO):
        left = files(run(slides, on_bad_slide="skip", prepare=meanwhile))
    assert "b.tif" in left.pop("skipped_slides.csv").decode()
    assert left == {name: content for name, content in whole.items() if name != "b.h5"}
    assert "Features of 2 slides" in caplog.text


def test_two_processes_that_make_the_same_files_leave_them_whole(painted: Path, run: Any, tmp_path: Path) -> None:
    whole = files(run(painted, to="whole"))

    def first(dataset: BagDataset) -> None:
        look = dataset.source.look

        def look_while_another_extracts(*given: Any) -> Any:
            run(painted)  # from begin to end, after this one has found nothing to be there
            return look(*given)

        dataset.source.look = look_while_another_extracts  # type: ignore[method-assign, assignment]

    assert files(run(painted, prepare=first)) == whole
