"""Sets that are being made: what holds after a stop, what is dropped, what is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from amn_dist.errors import ShardError
from data_shards.resumable import QUARANTINE, BadSample, ResumableSet, explain, stamp_of_inputs

RECORD = "record.json"


def making(folder: Path, *stamps: str) -> ResumableSet:
    return ResumableSet(folder, stamps, RECORD, 1, other="a finished set of something else")


def test_shards_of_other_inputs_are_dropped(tmp_path: Path) -> None:
    making(tmp_path, "a", "b", "c").prepare()
    for name in ("000000.tar", "000000.json", "000001.tar", "000002.tar", "000002.json", "000001.json.tmp-7-ab"):
        (tmp_path / name).touch()
    making(tmp_path, "a", "x", "c", "d").prepare()
    assert sorted(os.listdir(tmp_path)) == ["000000.json", "000000.tar", "000002.json", "000002.tar", RECORD]
    making(tmp_path, "a").prepare()
    assert sorted(os.listdir(tmp_path)) == ["000000.json", "000000.tar", RECORD]
    assert making(tmp_path).recorded() == ["a"]


@pytest.mark.parametrize("names", [("mine.txt",), (RECORD, "mine.txt"), ("000000.tar",), (RECORD, "0000000.tar")])
def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ShardError, match=rf"holds other files \({names[-1]}\); choose an empty or new folder"):
        making(tmp_path, "a").prepare()
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_what_is_finished_is_neither_dropped_nor_mixed(tmp_path: Path) -> None:
    making(tmp_path, "a").prepare()
    for name in ("000000.tar", "000000.json", "index.json"):
        (tmp_path / name).touch()
    making(tmp_path, "a").prepare()
    with pytest.raises(ShardError, match="holds a finished set of something else; remove it or choose another folder"):
        making(tmp_path, "b").prepare()
    assert len(os.listdir(tmp_path)) == 4


def test_a_folder_without_shards_goes(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    making(folder, "a").prepare()
    (folder / "000000.tar").touch()  # of a writer that died before the report
    making(folder).discard_if_empty()
    assert not folder.exists()
    making(folder, "a").prepare()
    (folder / "000000.json").touch()
    making(folder).discard_if_empty()
    assert sorted(os.listdir(folder)) == ["000000.json", RECORD]


def test_who_is_left_out_is_written_down(tmp_path: Path) -> None:
    bad = [BadSample("k", "damaged", file="k.jpg"), BadSample("l", "not there")]
    making(tmp_path).quarantine(bad)
    record: dict[str, Any] = json.loads((tmp_path / QUARANTINE).read_text())
    assert record["count"] == 2 and record["samples"][1] == {"key": "l", "reason": "not there"}
    assert making(tmp_path).quarantined() == bad
    making(tmp_path).quarantine([])
    assert not (tmp_path / QUARANTINE).exists() and making(tmp_path).quarantined() == []
    assert explain(bad, 9, "maps").startswith("2 of 9 maps are bad: [k] damaged; [l] not there. Mend them, or")


def test_stamps_follow_their_inputs() -> None:
    assert stamp_of_inputs(1, ["a"]) == stamp_of_inputs(1, ["a"]) != stamp_of_inputs(1, ["b"])
