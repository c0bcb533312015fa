"""What stages will cost, from what they measured."""

from pathlib import Path

import pytest

from amn_dist.plan import measured, rated
from amn_dist.telemetry import METRICS

SOUND = '{"step": 1, "images_per_s": 8.0}\n{"done": true, "seconds": 12.5}\n'


@pytest.mark.parametrize(
    "line",
    ["[1]", "7", "[" * 100_000, '{"done": true, "seconds": "soon"}', '{"done": true, "seconds": true}', "\x1b[2J",
     '{"images_per_s": NaN}', '{"images_per_s": 0}', '{"images_per_s": [8]}', '{"images_per_s": 1, "images_per_s": 2}'],
)  # fmt: skip
def test_lines_that_measure_nothing_are_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / METRICS).write_text(SOUND + line + "\n")
    assert (measured(tmp_path), rated(tmp_path)) == (12.5, 8.0)


def test_without_records_nothing_is_measured(tmp_path: Path) -> None:
    assert (measured(tmp_path), rated(tmp_path)) == (None, None)
