"""The installation ends in one line where it cannot succeed; the lock holds for every Python README names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the installation reads, where nothing is installed."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "programs").mkdir()
    return tmp_path


def program(checkout: Path, name: str, script: str) -> Path:
    """A program that comes before the machine's own of that name."""
    path = checkout / "programs" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def install(checkout: Path, **more: str) -> tuple[int, str]:
    environment = {**os.environ, "PATH": f"{checkout / 'programs'}:{os.environ['PATH']}", **more}
    ended = subprocess.run(["launch/install.sh"], cwd=checkout, env=environment, capture_output=True, text=True)
    assert not ended.stdout and not (checkout / ".venv").exists()
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("kernel", "machine"), [("Darwin", "arm64"), ("MINGW64_NT-10.0", "x86_64"), ("Linux", "riscv64")]
)
def test_other_systems_are_told_what_is_supported(checkout: Path, kernel: str, machine: str) -> None:
    program(checkout, "uname", f'[ "$1" = -m ] && echo {machine} || echo {kernel}')
    code, said = install(checkout)
    assert code == 2 and said.count("\n") == 1
    assert said.startswith(f"install: {kernel} {machine} found; supported is Linux on x86_64 or aarch64")


@pytest.mark.parametrize("version", ["3.10", "3.15", "2.7"])
def test_other_pythons_are_told_what_is_supported(checkout: Path, version: str) -> None:
    python = program(checkout, "other-python", f"echo {version}")
    expected = f"install: Python {version} found ({python}), 3.11 to 3.14 expected; set PYTHON to one of them\n"
    assert install(checkout, PYTHON=str(python)) == (2, expected)


def test_what_is_missing_is_named(checkout: Path) -> None:
    assert install(checkout, PYTHON="/nowhere/python") == (
        2,
        "install: /nowhere/python does not run; set PYTHON to Python 3.11 to 3.14\n",
    )
    assert install(checkout, CXX="no-compiler") == (
        2,
        "install: no C++ compiler (no-compiler); install one (Debian: apt-get install g++)\n",
    )
    program(checkout, "getconf", "exit 1")
    code, said = install(checkout)
    assert code == 2 and said.startswith("install: no glibc found") and said.count("\n") == 1


def pinned(lock: str, python: str, machine: str) -> dict[str, str]:
    """Versions a lock gives to a Python on a machine."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins: dict[str, str] = {}
    for line in re.findall(r"^[a-zA-Z0-9].*?(?= \\$)", (ROOT / lock).read_text(), re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in pins, f"{requirement.name}: two versions for {python} on {machine}"
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            pins[requirement.name] = pin.version
    return pins


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_gives_every_python_the_same_packages(python: str, machine: str) -> None:
    pins = pinned("requirements.lock", python, machine)
    assert {"torch", "torchvision", "deepspeed", "webdataset", "nvidia-dali-cuda130", "ray", "pydensecrf2"} <= set(pins)
    assert ("pyyaml-ft" in pins) == (python == "3.13")  # what 3.11 has not and 3.13 stopped at
    usual = pinned("requirements.lock", "3.11", "x86_64")
    assert {name: pins[name] for name in usual.keys() & pins.keys()} == {
        n: usual[n] for n in usual.keys() & pins.keys()
    }
    assert len(usual.keys() ^ pins.keys()) <= 3
    tools = pinned("launch/bootstrap.lock", python, machine)
    assert {"uv", "cython", "setuptools"} == set(tools) and tools["setuptools"] == pins["setuptools"]


@pytest.mark.parametrize("lock", ["requirements.lock", "launch/bootstrap.lock", "tests/s3-server.lock"])
def test_locks_hold_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.findall(r"^[a-zA-Z0-9].*==.*\n(.*)", text, re.MULTILINE)
    assert packages and all("--hash=sha256:" in first for first in packages)
    assert "://" not in text
