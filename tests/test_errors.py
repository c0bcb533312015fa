"""Text of foreign origin in a message: one printable line of bounded length, whatever it held."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amn_dist.errors import MESSAGE, AmnError, ConfigError, PeerLost, ShardError, listed, printable, quoted

ANY = st.one_of(st.text(st.characters(exclude_categories=())), st.binary(), st.integers(), st.none())
KINDS = [AmnError, ConfigError, ShardError, PeerLost]


@given(ANY, st.integers(1, 300))
@example("\x1b[2J\x1b]0;title\x07", 200)
@example("a\u202eb\u200b\ud800\udcff\x00\x7f\x85\u2028", 200)
@example("x" * 10_000, 4)
@example("\x1b" * 10_000, 7)
@example(b"\xff\x1b", 200)
def test_any_value_becomes_one_printable_line(value: object, limit: int) -> None:
    found = printable(value, limit)
    assert found.isprintable() and len(found) <= limit
    assert printable(found, limit) == found
    assert quoted(value, limit).isprintable() and len(quoted(value, limit)) <= limit


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=200))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_what_is_cut_keeps_beginning_and_end() -> None:
    found = printable("begin " + "x" * 10_000 + " end")
    assert len(found) <= 200 and found.startswith("begin x") and found.endswith("x end") and "x ... x" in found


def test_escapes_name_the_character() -> None:
    assert printable("a\x1b[2J\u202eb\udcff\r\nc") == "a\\x1b[2J\\u202eb\\udcff c"
    assert quoted("a\x1b'") == '"a\\x1b\'"'
    assert printable("snow \u2603, \u4e2d") == "snow \u2603, \u4e2d"


@pytest.mark.parametrize(
    "error", [ValueError(), OSError(), KeyError("\x1b"), UnicodeDecodeError("utf-8", b"", 0, 1, "")]
)
def test_an_error_always_says_something(error: Exception) -> None:
    assert printable(error).isprintable() and printable(error)
    assert printable(ValueError(" \n ")) == "ValueError"


def test_values_that_cannot_be_written_are_named_by_type() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert printable(10**10_000) == quoted(10**10_000) == "a int"
    assert quoted(deep) == "a list"


@given(st.lists(st.text(max_size=400), max_size=40), st.integers(40, 600))
def test_a_list_is_bounded_and_counts_what_it_leaves_out(texts: list[str], limit: int) -> None:
    found = listed(texts, limit)
    assert found.isprintable() and len(found) <= limit + len("; and 40 more")


def test_a_list_says_how_many_are_left_out() -> None:
    assert listed(["a\n", "b"]) == "a; b"
    assert listed(["x" * 30] * 5, 70) == f"{'x' * 30}; {'x' * 30}; and 3 more"


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.characters(exclude_categories=())))
@example(text="where: \x1b[2J" + "x\n" * 10_000 + "; what to do")
def test_an_error_is_one_printable_line_and_survives_pickling(kind: type[AmnError], text: str) -> None:
    error = kind(text)
    assert str(error).isprintable() and 0 < len(str(error)) <= MESSAGE
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind and twin.args == error.args and str(twin) == str(error)


def test_where_and_what_to_do_survive_a_text_nobody_bounded() -> None:
    told = str(ShardError(f"folder/file.json: found {'x' * 100_000}; make the set again"))
    assert told.startswith("folder/file.json: found x") and told.endswith("x; make the set again")
