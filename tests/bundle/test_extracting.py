# SPDX-License-Identifier: Apache-2.0
"""Extraction as users type it: interrupted, several at once, and with names that no log may hold."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest

from persam_monai.engines.extraction.locks import FileLock
from persam_monai.synthetic import write_pyramid
from tests.bundle.running import CONFIGS, ROOT, SMALL_EXTRACTOR, command, run_bundle, run_well
from tests.bundle.test_bad_slides import damage
from tests.data.making import Picture

EXTRACTING = [CONFIGS / "extract.json", SMALL_EXTRACTOR]
SLIDES = 8
FOLDER, ACCESSION, REMARK = "Brockhurst_Amelia", "ACC-90817", "told to Dr Hawthornwaite"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    """A folder with a table and nothing else: no labels, no clinical.yaml, cells that no schema would admit."""
    folder = tmp_path_factory.mktemp("extracted") / "data"
    (folder / "slides" / FOLDER).mkdir(parents=True)
    lines = ["patient_id,slide,age,remarks"]
    for i in range(SLIDES):
        slide = f"slides/{FOLDER}/{ACCESSION}-{i}.tif"
        write_pyramid(folder / slide, picture(1024, 1024, i), mpp=0.25)
        lines.append(f"Quillfeather-{i},{slide},#REF!,{REMARK}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


class Extracted(NamedTuple):
    """What is left of an extraction."""

    features: Path
    result: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def extracted(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    """Of all slides, undisturbed, by two workers."""
    folder = tmp_path_factory.mktemp("told")
    settings: dict[str, Any] = {"dataset_dir": slides, "num_workers": 2}
    result = run_well("extracting", EXTRACTING, **settings, **quick(folder))
    return Extracted(slides / "features", result)


def quick(folder: Path) -> dict[str, Any]:
    return {"extractor_batch": 3, "index_dir": folder / "index"}


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of all files, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "extractor.pt"
    }


class Begun(NamedTuple):
    """An extraction in a process of its own, and what it prints."""

    process: subprocess.Popen[bytes]
    output: Path

    def waits(self) -> bool:
        """Whether only slides of other processes are left."""
        return "in the hands of other processes" in self.output.read_text()

    def wait_for(self, found: Callable[[], Any]) -> None:
        """Until ``found()``, while the process runs."""
        deadline = time.monotonic() + 120
        while not found():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)


def begin(slides: Path, features: Path, output: Path, **settings: Any) -> Begun:
    words = command("extracting", EXTRACTING, dataset_dir=slides, features_dir=features, **settings)
    # A shell that runs the tests in the background lets them, and all they start, ignore Ctrl-C.
    listening = ["env", "--default-signal=INT", *words]
    with output.open("wb") as file:
        return Begun(subprocess.Popen(listening, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT), output)


@contextmanager
def one_locked(features: Path) -> Iterator[None]:
    """Keep extractions from finishing: the last slide is in our hands."""
    lock = FileLock.take(features / "slides" / FOLDER / f"{ACCESSION}-{SLIDES - 1}.h5")
    assert lock is not None
    try:
        yield
    finally:
        lock.release()


def test_every_slide_has_a_file_below_its_own_folder(extracted: Extracted) -> None:
    names = [f"slides/{FOLDER}/{ACCESSION}-{i}.h5" for i in range(SLIDES)]
    assert list(contents(extracted.features)) == names
    with h5py.File(extracted.features / names[0]) as file:
        assert file["features"].shape == (16, 32)
        assert file["features"].dtype == "float16"
    assert f"Features of {SLIDES} slides are in {extracted.features}: {SLIDES} written now" in extracted.result.stdout
    assert (extracted.features / "extractor.pt").is_file()


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT))],
)
def test_an_extraction_that_was_stopped_goes_on_to_the_same_files(
    extracted: Extracted, slides: Path, tmp_path: Path, number: int
) -> None:
    features = tmp_path / "features"
    with one_locked(features):
        begun = begin(slides, features, tmp_path / "output", num_workers=1, **quick(tmp_path))
        begun.wait_for(lambda: list(features.rglob("*.h5")))
        begun.process.send_signal(number)
        begun.process.wait(60)
    left = contents(features)
    finished = {name: content for name, content in left.items() if name.endswith(".h5")}
    assert 1 <= len(finished) < SLIDES
    if number == signal.SIGKILL:
        assert begun.process.returncode == -number
    else:
        assert begun.process.returncode == (143 if number == signal.SIGTERM else -number)
        assert left == finished, "half-written files or locks"
        assert "Traceback" not in begun.output.read_text()
    before = {name: (features / name).stat().st_ino for name in finished}
    run_well("run", EXTRACTING, dataset_dir=slides, features_dir=features, **quick(tmp_path))
    assert contents(features) == contents(extracted.features)
    assert {name: (features / name).stat().st_ino for name in finished} == before, "finished files were written again"


def test_two_processes_share_a_folder(extracted: Extracted, slides: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    with one_locked(features):
        both = [begin(slides, features, tmp_path / str(i), num_workers=i, **quick(tmp_path)) for i in (0, 1)]
        for one in both:
            one.wait_for(one.waits)
        assert len(list(features.rglob("*.h5"))) == SLIDES - 1
        assert [one.process.poll() for one in both] == [None, None]
    assert [one.process.wait(60) for one in both] == [0, 0]
    assert contents(features) == contents(extracted.features)
    counts = []
    for one in both:
        told = re.search(r"(\d+) written now, (\d+) were there already, (\d+) come from", one.output.read_text())
        assert told is not None
        counts.append([int(number) for number in told.groups()])
    assert sum(written for written, _, _ in counts) == SLIDES, "a slide was done twice"
    assert [sum(one) for one in counts] == [SLIDES, SLIDES]


def test_one_slide_can_be_named_and_other_settings_need_another_folder(
    extracted: Extracted, slides: Path, tmp_path: Path
) -> None:
    slide = slides / "slides" / FOLDER / f"{ACCESSION}-0.tif"
    settings: dict[str, Any] = {"slide": slide, "features_dir": tmp_path / "one", **quick(tmp_path)}
    run_well(
        "extracting", EXTRACTING, **settings, slide_mpp=0.25, extractor_weights=extracted.features / "extractor.pt"
    )
    (name,) = contents(tmp_path / "one")
    assert name == str(slide.with_suffix(".h5")).lstrip("/")

    settings = {"dataset_dir": slides, **quick(tmp_path), "mpp": 0.5, "seed": 1}
    before = contents(extracted.features)
    result = run_bundle("extracting", EXTRACTING, **settings)
    assert result.returncode == 1
    message = result.stderr[result.stderr.index("\nError: ") :]
    for words in ("mpp was 0.25 and is now 0.5", "weights was ", "--overwrite true", "and 3 more"):
        assert words in message
    assert "Traceback" not in result.stderr
    assert contents(extracted.features) == before


def test_a_damaged_slide_is_left_out_on_request(slides: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(slides / "slides", folder / "slides")
    for place in range(2, SLIDES):
        (folder / "slides" / FOLDER / f"{ACCESSION}-{place}.tif").unlink()
    (folder / "cohort.csv").write_text("slide\n" + "".join(f"slides/{FOLDER}/{ACCESSION}-{i}.tif\n" for i in (0, 1)))
    damage(folder / "slides" / FOLDER / f"{ACCESSION}-1.tif")
    settings: dict[str, Any] = {"dataset_dir": folder, "on_bad_slide": "skip"}
    result = run_well("extracting", EXTRACTING, **settings, **quick(tmp_path))
    slide = f"slides/{FOLDER}/{ACCESSION}-1.tif"
    assert sorted(contents(folder / "features")) == ["skipped_slides.csv", f"slides/{FOLDER}/{ACCESSION}-0.h5"]
    assert slide in (folder / "features" / "skipped_slides.csv").read_text()
    assert f"Skipped slide {slide} (extraction)" in result.stdout


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"features_dtype": "float8"}, "features_dtype is 'float8'; expected one of float16, float32"),
        ({"extractor_weights": "nowhere.pth"}, "nowhere.pth are not a file"),
        ({"extractor_batch": "null"}, "^extractor_batch is 'null'; expected a whole number of at least 1"),
        ({"extractor_batch": 0}, "extractor_batch is 0; expected a whole number of at least 1"),
        ({"slide_mpp": 0.5}, "--slide_mpp goes with --slide"),
        ({"slide": "nowhere.svs"}, "--slide nowhere.svs: there is no such file"),
        ({"table": "nowhere.csv"}, "nowhere.csv"),
        ({"feature_dir": "x"}, 'Did you mean "features_dir"'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], told: str
) -> None:
    import monai.bundle

    from persam_monai import commandline

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.excepthook", None)
    given = {"dataset_dir": str(slides), "features_dir": str(tmp_path / "features"), **settings}
    words = command("extracting", EXTRACTING, **given)[2:]
    monkeypatch.setattr("sys.argv", [str(Path(monai.bundle.__file__).with_name("__main__.py")), *words[1:]])
    with pytest.raises(Exception) as caught:  # noqa: PT011  MONAI wraps ours in one of its own
        monai.bundle.run("extracting", config_file=[str(path) for path in EXTRACTING], **given)
    assert re.search(told, str(commandline.user_error_in(caught.value)))
    assert not list(tmp_path.rglob("*.h5"))


def test_extractor_batch_null_in_a_config_is_refused_by_its_name(slides: Path, tmp_path: Path) -> None:
    import monai.bundle

    from persam_monai import commandline

    (tmp_path / "null.json").write_text('{"extractor_batch": null}')
    parser = monai.bundle.ConfigParser()
    parser.read_config([str(ROOT / CONFIGS / "extract.json"), str(tmp_path / "null.json")])
    parser.update({"dataset_dir": str(slides), "features_dir": str(tmp_path / "features")})
    with pytest.raises(Exception) as caught:  # noqa: PT011  MONAI wraps ours in one of its own
        parser.get_parsed_content("dataset")
    told = str(commandline.user_error_in(caught.value))
    assert told == "extractor_batch is None; expected a whole number of at least 1."
