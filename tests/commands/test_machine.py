"""What `amn doctor` says of the tools that kernels of a GPU are built with."""

import pytest

from amn_dist.commands.doctor.machine import kernel_compiler


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    check = kernel_compiler()
    assert not check.ok and not check.needed
    assert check.found.startswith("C compiler: none; Python.h: ") and "gcc" in check.advice


def test_the_compiler_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh")
    assert kernel_compiler().found.startswith("C compiler: /")
