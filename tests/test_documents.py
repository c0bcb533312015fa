"""What a JSON or YAML text may say, and what is refused because two readers would take it for two things."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.documents import DEEPEST, LONGEST, check_keys, read_json, read_yaml, write_yaml

LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
"""Each line says the one before nine times."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_plain_json_is_read_as_by_json(tree: Any) -> None:
    text = json.dumps(tree)
    assert read_json(text) == read_json(text.encode()) == tree
    check_keys(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"kind": "cam", "kind": "walk"}', "has the key 'kind' twice, with cam and walk"),
        ('[{"a": {"b": 1, "c": 2, "b": 1}}]', "has the key 'b' twice"),
        ("[NaN]", "has the number NaN; expected a finite one"),
        ("-Infinity", "the number -Infinity"),
        ("1e999", "the number 1e999"),
        (str(2**63), "the integer 9223372036854775808; expected at most 64 bits"),
        ("9" * 6000, "at most 64 bits"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "more than 64 levels"),
        ("[" * 100_000, "more than 64 levels"),
        ('{"a":' * 100_000, "more than 64 levels"),
        (b'"\xff"', "not UTF-8"),
        ('{"a": 1', "line 1 column"),
        ("", "Expecting value"),
        ('{"a": 1} {"a": 2}', "Extra data"),
    ],
)
def test_json_that_nobody_means_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        read_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_deepest_nesting_and_names_of_files_that_are_no_text_are_read() -> None:
    assert read_json('"\\udcff"') == "\udcff"
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(read_json(text)) == text


@dataclass(frozen=True)
class Kept:
    step: Annotated[int, msgspec.Meta(ge=0)]
    files: dict[str, int]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"step": 3.0, "files": {}}', r"Expected `int`, got `float` - at `\$\.step`"),
        ('{"step": true, "files": {}}', r"got `bool` - at `\$\.step`"),
        ('{"step": "3", "files": {}}', r"got `str` - at `\$\.step`"),
        ('{"step": -3, "files": {}}', r">= 0 - at `\$\.step`"),
        ('{"step": 3, "files": {"a": null}}', "got `null`"),
        ('{"step": 3}', "missing required field `files`"),
        ("[3]", "Expected `object`, got `array`"),
    ],
)
def test_json_of_another_form_is_refused_with_the_place(text: str, told: str) -> None:
    assert read_json('{"step": 3, "files": {"a": 1}, "of later versions": 7}', Kept) == Kept(3, {"a": 1})
    with pytest.raises(ValueError, match=told):
        read_json(text, Kept)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_repeated_keys_are_found_without_holding_anything(text: str) -> None:
    with pytest.raises(ValueError, match="has the key 'a' twice"):
        check_keys(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: found the key a twice"),
        ("a: {b: 1, b: 1}", "the key b twice"),
        ("a: &x [1, *x]", r"line 1: found the alias \*x inside of what it repeats"),
        ("a: &x {b: {c: *x}}", r"alias \*x inside"),
        (LAUGHS, "more than 20000 values, with those that aliases repeat"),
        ("[" * 1000, "more than 64 levels"),
        ("a: " + "{b: " * 100, "more than 64 levels"),
        ("a: .inf", "the number .inf; expected a finite one"),
        ("a: -.INF", "the number -.INF"),
        ("a: .nan", "the number .nan"),
        ("a: 1e999", "the number 1e999"),
        ("a: 99999999999999999999", "the integer 99999999999999999999; expected at most 64 bits"),
        ("a: " + "9" * 6000, "at most 64 bits"),
        ("a: !!float 3", "found the tag tag:yaml.org,2002:float"),
        ("a: !!timestamp x", "found the tag"),
        ("a: !!python/name:os.system", "found the tag tag:yaml.org,2002:python/name:os.system"),
        ("1: a", "found 1 as a key, expected a name"),
        ("on: a", "found on as a key, expected a name"),
        ("[a]: b", "found a sequence as a key"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\na: 2", "another document"),
        ("a: \0", "not allowed"),
        ("a" * (LONGEST + 1), "more than 65536 characters"),
    ],
)
def test_yaml_that_nobody_means_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E3", 5000.0),
        ("2.5e-4", 2.5e-4),
        (".5", 0.5),
        ("+3", 3),
        ("-0", 0),
        ("0320", "0320"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("off", False),
        ("", None),
        ("~", None),
        ("[1, 2.0, x]", [1, 2.0, "x"]),
    ],
)
def test_a_plain_value_is_what_it_looks_like(text: str, value: Any) -> None:
    found = read_yaml(f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


def test_aliases_and_merged_sections_say_again_what_stands_elsewhere() -> None:
    found = read_yaml("a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}\nf: [*x, *x]\n")
    assert found["d"] == found["f"][1] == {"b": 1, "c": 2} and found["e"] == {"b": 1, "c": 3}


@given(
    JSON.filter(lambda tree: tree is not None) | st.sampled_from(["1e3", "0320", "1_000", "off", "1:30", ".inf", "="])
)
def test_yaml_that_is_written_is_read_back_by_us_and_by_others(value: Any) -> None:
    text = write_yaml({"a": value})
    assert read_yaml(text) == yaml.safe_load(text) == {"a": value}


def test_a_digit_of_another_script_is_no_digit() -> None:
    assert read_yaml("a: ²")["a"] == "²" and read_yaml("a: ３")["a"] == "３"


def test_files_of_the_shared_set_that_call_python_are_refused(shared_data: Path) -> None:
    with pytest.raises(ValueError, match="found the tag"):
        read_yaml((shared_data / "bad" / "yaml" / "python_tag.yaml").read_text())
