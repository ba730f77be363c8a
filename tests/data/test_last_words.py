# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PREAMBLE = """
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("last_words", "persam_monai/data/last_words.py")
last_words = importlib.util.module_from_spec(spec)
spec.loader.exec_module(last_words)
reading = last_words.reading
def die(number): os.kill(os.getpid(), number); time.sleep(60)
"""  # the module by itself: importing the package takes seconds


def ended(script: str) -> tuple[int, str]:
    """Exit status and stderr of a process; fails if its output does not end with it."""
    began = time.monotonic()
    result = subprocess.run([sys.executable, "-c", PREAMBLE + script], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 30
    assert result.stdout == ""
    return result.returncode, result.stderr


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS])
def test_a_process_that_dies_while_it_reads_names_the_slide(number: int) -> None:
    status, message = ended(f"with reading('/data/slide ä.svs'): die({number})")
    assert status == -number
    (line,) = [line for line in message.splitlines() if line]
    assert line.startswith("ERROR: ")
    assert "/data/slide ä.svs" in line
    assert "--on_bad_slide skip" in line


def test_the_slide_that_is_named_is_the_last_one_however_long_the_one_before() -> None:
    status, message = ended(
        f"""
with reading("/data/a-much-longer-name-that-was-read-before.svs"): pass
with reading("/b.svs"): die({signal.SIGKILL})"""
    )
    assert status == -signal.SIGKILL
    assert "slide /b.svs:" in message
    assert "longer" not in message
    assert message.count("ERROR") == 1


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("with reading('/a.svs'): pass", 0),
        ("with reading('/a.svs'): pass\nsys.exit(3)", 3),
        (f"with reading('/a.svs'): pass\ndie({signal.SIGSEGV})", -signal.SIGSEGV),
        (f"die({signal.SIGKILL})", -signal.SIGKILL),
        (f"try:\n    with reading('/a.svs'): 1 / 0\nexcept ZeroDivisionError: die({signal.SIGKILL})", -signal.SIGKILL),
        ("with reading('/a.svs'): sys.exit(4)", 4),
    ],
)
def test_a_process_that_does_not_die_of_reading_says_nothing(script: str, status: int) -> None:
    assert ended(script) == (status, "")


def test_an_error_while_reading_is_no_death() -> None:
    status, message = ended("with reading('/a.svs'): 1 / 0")
    assert status == 1
    assert "ZeroDivisionError" in message
    assert "ERROR: The process ended" not in message


def test_interrupting_the_whole_group_does_not_silence_the_last_words() -> None:
    script = f"""
os.setpgid(0, 0)
with reading("/a.svs"):
    signal.signal(signal.SIGTERM, lambda *_: None)
    time.sleep(0.3)
    os.killpg(0, signal.SIGTERM)
    die({signal.SIGKILL})"""
    assert "/a.svs" in ended(script)[1]


def test_a_forked_process_has_last_words_of_its_own() -> None:
    script = f"""
with reading("/parent.svs"): pass
child = os.fork()
if child == 0:
    with reading("/child.svs"): die({signal.SIGSEGV})
os.waitpid(child, 0)
time.sleep(0.2)"""
    status, message = ended(script)
    assert status == 0
    assert "/child.svs" in message
    assert "/parent.svs" not in message


def test_a_path_that_is_too_long_is_cut_off() -> None:
    status, message = ended(f"with reading('/' + 'x' * 10000): die({signal.SIGKILL})")
    assert status == -signal.SIGKILL
    assert "x" * 4000 in message
    assert "x" * 4096 not in message


def test_reading_many_slides_takes_one_other_process_and_no_files() -> None:
    script = """
before = None
for i in range(200):
    with reading(f"/{i}.svs"): pass
    before = before or os.listdir("/proc/self/fd")
assert len(os.listdir("/proc/self/fd")) == len(before)
children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
assert len(children) == 1, children"""
    assert ended(script) == (0, "")
