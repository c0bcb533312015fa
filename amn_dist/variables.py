"""Variables of the environment that are numbers."""

from __future__ import annotations

import os
import re

from amn_dist.errors import ConfigError, printable

# str.isdigit, int() and float() take digits of any script, and do not agree on which.
WHOLE = re.compile(r"[0-9]{1,18}")
NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def whole_number(name: str, default: int, *, least: int = 0, most: int = 2**31 - 1) -> int:
    """A variable in decimal digits; the default where it is not set. Raises ConfigError naming it."""
    text = os.environ.get(name, str(default))
    if not WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise ConfigError(f"{name}: found '{printable(text, 80)}', expected a whole number from {least} to {most}")
    return int(text)


def number(name: str, default: float, *, least: float = 0.0, most: float) -> float:
    """A variable with or without a fraction; the default where it is not set. Raises ConfigError naming it."""
    text = os.environ.get(name, str(default))
    if len(text) > 40 or not NUMBER.fullmatch(text) or not least <= float(text) <= most:
        raise ConfigError(f"{name}: found '{printable(text, 80)}', expected a number from {least:g} to {most:g}")
    return float(text)
