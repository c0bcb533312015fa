"""The benchmarks of the vote: references that agree, proposals drawn by rule, figures of what was counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amn_dist.ops.run_lengths import lengths_of
from amn_dist.ops.vote import VoteRule, vote_lengths
from benchmarks import harness, proposals
from benchmarks.reference.dense_vote import dense_vote, stacked_vote

RULES = [VoteRule(), VoteRule(background=1.0, clear=True), VoteRule(overlap=0.2, coverage=0.3)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_references_vote_as_run_lengths_do(rule: VoteRule) -> None:
    for seed in range(8):
        random = np.random.default_rng(seed)
        labels = np.repeat(np.repeat(random.choice([0, 1, 5, 255], (5, 6)), 4, 0), 4, 1).astype(np.uint8)
        masks = [np.zeros(labels.shape, bool), labels == 7, *(random.random((6, *labels.shape)) < 0.4), labels == 1]
        masks += [np.roll(labels == 5, 3, axis=1)] * (seed % 2)
        expected = vote_lengths(labels, np.concatenate([*map(lengths_of, masks)]), rule)
        assert np.array_equal(dense_vote(labels, masks, rule), expected)
        assert np.array_equal(stacked_vote(labels, np.stack(masks, -1).astype(np.uint8), rule), expected)


def test_drawn_proposals_are_the_true_pieces_nearly() -> None:
    truth = np.zeros((60, 80), np.uint8)
    truth[10:40, 10:30], truth[10:40, 50:70], truth[45:55, 5:75] = 3, 3, 255
    pieces = list(proposals.true_pieces(truth))
    assert [int(piece.sum()) for piece in pieces] == [60 * 80 - 1200 - 700, 600, 600]
    drawn = [proposals.drawn_proposals(truth, np.random.default_rng(seed), 1.5) for seed in (0, 0, 1)]
    assert all(np.array_equal(one, other) for one, other in zip(drawn[0], drawn[1], strict=True))
    assert [mask.sum() for mask in drawn[0]] != [mask.sum() for mask in drawn[2]]
    assert all(mask.sum() >= proposals.LEAST for some in drawn for mask in some)
    bent = proposals.bent(pieces[1], np.random.default_rng(0), 1.5)
    assert 0.7 < (bent & pieces[1]).sum() / (bent | pieces[1]).sum() < 1
    assert np.array_equal(proposals.bent(pieces[1], np.random.default_rng(0), 0), pieces[1])
    left, right = proposals.halves(bent, np.random.default_rng(0))
    assert np.array_equal(left | right, bent) and not (left & right).any() and left.any() and right.any()


def test_a_run_is_measured_before_and_after(
    make_voted_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["proposals", str(make_voted_run), "--images", "3"])
    proposals.main()
    record = json.loads((tmp_path / "proposals.json").read_text())
    assert (record["labels"], record["images"]) == ("cam_seed", 3) and "upper case" in record["note"]
    before, after = record["rows"]["before"], record["rows"]["drawn from truth (upper case), default"]
    assert before["iou"].keys() == after["iou"].keys() >= {"background"} and after["miou"] >= before["miou"]
    assert before["miou"] == pytest.approx(np.mean([*before["iou"].values()]), abs=0.01)
    assert "| mean |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["proposals", str(tmp_path)])
    with pytest.raises(SystemExit):
        proposals.main()
    assert "not a run" in capsys.readouterr().err


@pytest.fixture
def make_voted_run(tmp_path: Path) -> Path:
    """A run of method irn with seeds that are the truth with borders eaten away, written by the real writers."""
    from amn_dist.config import Config, dump_config
    from amn_dist.runs.run import Run, write_json, write_text
    from amn_dist.shards.format import encode
    from amn_dist.shards.shardset import ShardSet
    from amn_dist.shards.writer import write_index, write_shard
    from data_shards.synthetic import pack_synthetic

    pack_synthetic(tmp_path / "data" / "train", images=4, seed=1, classes=2, size=(64, 80), shard_size=4)
    images = ShardSet.open(str(tmp_path / "data" / "train"))
    tree = {"name": "x", "method": "irn", "pseudo_mask": "seed", "data": {"val": None}}
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_text(run.folder / "config.yaml", dump_config(Config.model_validate(tree)))
    write_json(run.folder / "data.json", {"data": str(tmp_path / "data")})
    rows = []
    for entry in images.shard(0):
        truth = images.load(entry.ordinal, "gt.png")
        seed = np.where(np.roll(truth, 2, 0) == np.roll(truth, 3, 1), truth, 0).astype(np.uint8)
        rows.append((entry.key, (entry.height, entry.width), {"seed.png": encode("seed.png", seed)}))
    reports = [write_shard(run.stage("cam_seed"), 0, rows)]
    write_index(run.stage("cam_seed"), kind="cam_seed", classes=images.classes, reports=reports)
    return run.folder
