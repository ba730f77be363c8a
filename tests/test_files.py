# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persam_monai.errors import UserError
from persam_monai.files import replacing, sha256, write_json
from tests.bundle.running import ROOT


def test_a_file_appears_when_it_is_complete_and_with_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "file.txt"
    with replacing(place) as partial:
        partial.write_text("half")
        assert not place.exists()
        assert partial.parent == place.parent  # a rename across file systems would not be one step
        partial.write_text("whole")
    assert place.read_text() == "whole"
    assert list(place.parent.iterdir()) == [place]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "file.txt"
    place.write_text("old")

    def fail() -> None:
        with replacing(place) as partial:
            partial.write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "metrics.json"
    with pytest.raises(UserError, match=r"metrics\.json cannot be written.*Choose a place") as caught:
        write_json(place, {})
    assert str(place) in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_somebody_else_is_named(tmp_path: Path) -> None:
    """A home, say, that this user may not even look into."""
    program = "import os, sys; from persam_monai.files import write_json; os.setuid(65534); write_json(sys.argv[1], {})"
    tmp_path.chmod(0o700)
    command = [sys.executable, "-c", program, str(tmp_path / "cache" / "metrics.json")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stderr
    assert said.splitlines()[-1].startswith(f"persam_monai.errors.UserError: {command[-1]} cannot be written")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(UserError, match=r"metrics\.json cannot be written"):
        write_json(tmp_path / "metrics.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_json_reads_back_and_keeps_its_letters(tmp_path: Path) -> None:
    content = {"grün": [1, 2.5, None], "µm": {"b": True}}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "µm" in text


def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
