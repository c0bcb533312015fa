"""YAML and JSON of foreign origin: what two readers could take for two things, and what has no bound, is refused.

Every function raises ValueError saying what was found and expected, in one line; its caller says where.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import yaml

from amn_dist.errors import printable

DEEPEST = 64
"""Levels of lists and objects in a document."""
LONGEST = 2**16
"""Characters of a YAML document; a configuration with all its settings has 6,000."""
MOST = 20_000
"""Values in a YAML document, with those that aliases repeat."""
INTEGERS = range(-(2**63), 2**63)
"""What other programs hold an integer in."""


def read_json(text: str | bytes, form: Any = Any) -> Any:
    """The value a JSON text holds. form: its type, such as a dataclass, to whose fields it must fit without conversion.

    Refused are: a key that an object has twice, NaN and infinity, integers beyond 64 bits, text that is not UTF-8, and
    more than 64 levels.
    """
    try:
        tree = _JSON.decode(text.decode() if isinstance(text, bytes) else text)
        _check_depth(tree)
        return tree if form is Any else msgspec.convert(tree, form)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error


def check_keys(text: str) -> None:
    """Raise ValueError when an object of a JSON text has a key twice; nothing else is looked at, and little is held."""
    try:
        _KEYS.decode(text)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error


def read_yaml(text: str) -> Any:
    """The value a YAML text holds: null, true or false, numbers, text, lists, and sections with names as keys.

    Numbers are decimal, with or without an exponent. Refused are: a key that a section has twice, tags, an alias inside
    of what it repeats, numbers that are not finite, integers beyond 64 bits, and what is longer or deeper than a
    configuration can be.
    """
    if len(text) > LONGEST:
        raise ValueError(f"has more than {LONGEST} characters; expected a configuration")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        told = " ".join(part for part in (error.context, error.problem) if part)
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{printable(told)}") from error
    except yaml.YAMLError as error:
        raise ValueError(printable(error)) from error


def write_yaml(tree: Any) -> str:
    """A tree as YAML that read_yaml reads back unchanged."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            both = f"{printable(found[name], 40)} and {printable(value, 40)}"
            raise ValueError(f"has the key '{printable(name, 80)}' twice, with {both}; expected it once")
        found[name] = value
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or int(text) not in INTEGERS:
        raise ValueError(f"has the integer {printable(text, 40)}; expected at most 64 bits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))  # as YAML spells them
    if not math.isfinite(number):
        raise ValueError(f"has the number {printable(text, 40)}; expected a finite one")
    return number


def _check_depth(tree: Any) -> None:
    level = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
        if not level:
            return
    raise ValueError(_too_deep())


def _children(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if isinstance(node, dict) else node


def _too_deep() -> str:
    return f"is nested more than {DEEPEST} levels deep"


def _no_object(pairs: list[tuple[str, Any]]) -> None:
    """As _object, of objects that nobody wants."""
    if len({name for name, _ in pairs}) != len(pairs):
        _object(pairs)


_KEYS = json.JSONDecoder(object_pairs_hook=_no_object)
_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_finite, parse_constant=_finite)


class _Loader(yaml.SafeLoader):
    """SafeLoader that looks at every node before anything is made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.count
        if getattr(event, "tag", None) is not None:
            raise _fault(f"found the tag {event.tag}, expected values without tags", event)
        if self.depth > DEEPEST:
            raise _fault(_too_deep(), event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self.sizes:
            raise _fault(f"found the alias *{event.anchor} inside of what it repeats", event)
        self.count += self.sizes.get(id(node), 1)
        if self.count > MOST:
            raise _fault(f"holds more than {MOST} values, with those that aliases repeat", event)
        self.sizes.setdefault(id(node), self.count - before)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                found = key.value if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise _fault(f"found {found} as a key, expected a name", key)
            if key.value in seen:
                raise _fault(f"found the key {key.value} twice, expected it once", key)
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return _marked(_integer, node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return _marked(_finite, node)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which one of the two loaders takes for something else."""


def _marked(convert: Any, node: yaml.ScalarNode) -> Any:
    try:
        return convert(node.value)
    except ValueError as error:
        raise _fault(str(error), node) from error


def _fault(told: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=told, problem_mark=where.start_mark)


EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_RESOLVED = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)
# Not YAML 1.1's: 0320 is no octal, 1:30 no sexagesimal number, 2024-01-01 no date; but 1e-3 is a number.
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _RESOLVED:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)
for _name in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", getattr(_Loader, f"construct_yaml_{_name}"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{EXPONENT.pattern})\Z"), list("-+0123456789"))
