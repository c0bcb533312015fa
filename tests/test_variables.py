"""Variables that are numbers: everything else is refused by name, wherever it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amn_dist.errors import ConfigError
from amn_dist.storage.cache import cache_here
from amn_dist.storage.objects import open_objects
from amn_dist.storage.retry import retried
from amn_dist.training.world import join_world
from amn_dist.variables import number, whole_number

NO_NUMBERS = ("", " 1", "1\n", "²", "３", "1_0", "-1", "+1", "nan", "inf", "1e999", "0x1", "9" * 5000, "\x1b[2J", "1,5")


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1.0"])
def test_whole_numbers_are_decimal_digits(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert whole_number("AMN_TEST", 7) == 7
    monkeypatch.setenv("AMN_TEST", "12")
    assert whole_number("AMN_TEST", 7) == 12
    monkeypatch.setenv("AMN_TEST", text)
    with pytest.raises(ConfigError, match=r"AMN_TEST: found .*, expected a whole number from 0 to ") as caught:
        whole_number("AMN_TEST", 7)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_numbers_are_finite_and_in_range(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for good, value in (("12", 12.0), ("0.5", 0.5), (".5", 0.5), ("1e1", 10.0)):
        monkeypatch.setenv("AMN_TEST", good)
        assert number("AMN_TEST", 7, most=100) == value
    monkeypatch.setenv("AMN_TEST", text)
    with pytest.raises(ConfigError, match=r"AMN_TEST: found .*, expected a number from 0 to 100") as caught:
        number("AMN_TEST", 7, most=100)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


READERS: dict[str, Callable[[], Any]] = {
    "AMN_CACHE_GB": cache_here,
    "AMN_STORAGE_PATIENCE_S": lambda: retried("memory://x", "read", lambda: 1),
    "AMN_STORAGE_TIMEOUT_S": lambda: open_objects("s3://bucket/key"),
    "RANK": join_world,
    "WORLD_SIZE": join_world,
    "LOCAL_RANK": join_world,
}


@pytest.mark.parametrize("text", ["²", "inf", "nan", "-1", "1e999", "9" * 400, "many"])
@pytest.mark.parametrize("name", sorted(READERS))
def test_every_variable_that_is_a_number_is_checked(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv("AMN_CACHE", "/nowhere")
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=rf"^{name}: found '"):
        READERS[name]()


def test_the_port_of_a_gang_is_checked_before_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "70000"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="MASTER_PORT: found '70000', expected a whole number from 0 to 65535"):
        join_world(timeout_s=1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="LOCAL_RANK 2: expected 0 to 1"):
        join_world(timeout_s=1)
