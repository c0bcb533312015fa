"""A run whose segmentation network learns from what proposals made of its masks, to the end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amn_dist.config import Config, Vote
from amn_dist.errors import ConfigError, ShardError
from amn_dist.farms.farm import Chunk
from amn_dist.farms.stream import Join, Source
from amn_dist.interchange.selection import select_masks
from amn_dist.ops.run_lengths import lengths_of
from amn_dist.ops.vote import vote_lengths, vote_regions
from amn_dist.records import PROPOSALS
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run, read_json
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.stages.vote import VoteMap
from data_shards.regions import import_regions
from data_shards.synthetic import pack_synthetic
from tests.tiny import IRN

TREE = {
    **{key: value for key, value in IRN.items() if key != "data"},
    "predict": {"crf": "off"},
}

EASY = {"overlap": 0.2, "coverage": 0.2, "background": 1.0}
"""Masks of networks that have learned next to nothing are no majority of anything."""
VOTED = {"pseudo_mask": "vote", "vote": {"labels": "walk", "proposals": "proposals", **EASY}}


def line(root: Path, name: str, said: io.StringIO | None = None, **more: object) -> Pipeline:
    config = Config.model_validate({**TREE, "name": name, **more})
    return Pipeline(config, Run(root / "runs" / name), root / "data", console=Console(file=said or io.StringIO()))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, proposals that are the true objects, and a run that learned from the vote of its walk's masks."""
    root = tmp_path_factory.mktemp("vote")
    for role, images in (("train", 4), ("val", 2)):
        pack_synthetic(root / "data" / role, images=images, seed=len(role), classes=2, size=(48, 64), shard_size=2)
    images = ShardSet.open(str(root / "data" / "train"))
    tree = {}
    for ordinal in range(len(images)):
        truth = images.load(ordinal, "gt.png")
        masks = [truth == number for number in np.unique(truth)]
        segments = [{"size": list(truth.shape), "counts": lengths_of(mask).tolist()} for mask in masks]
        tree[images.entry(ordinal).key] = [{"segmentation": segment} for segment in segments]
    (root / "sam.json").write_text(json.dumps(tree))
    import_regions(root / "sam.json", images.url, root / "data" / "proposals")
    line(root, "voted", **VOTED).execute()
    return root


def test_the_network_learns_from_what_was_voted(root: Path) -> None:
    run = line(root, "voted", **VOTED)
    before, given = run.open("walk"), ShardSet.open(str(root / "data" / "proposals"))
    changed = 0
    for ordinal in range(len(before)):
        labels = before.load(ordinal, "mask.png")
        expected = vote_lengths(labels, given.load(ordinal, PROPOSALS)[2:], VoteMap(Vote(**EASY)).rule)
        assert np.array_equal(run.open("vote").load(ordinal, "mask.png"), expected)
        changed += int((expected != labels).sum())
    assert changed
    inputs = (run.run.origin("segment") or {})["inputs"]
    assert inputs["vote"] == run.open("vote").digest and "walk" not in inputs
    assert (run.run.origin("vote") or {})["inputs"]["proposals set"] == given.digest
    rows = read_json(root / "runs" / "voted" / "score" / "score.json")["sets"]["train"]["rows"]
    assert set(rows) == {"cam", "cam_seed", "walk", "vote"} and rows["vote"]["miou"] is not None
    assert select_masks(str(root / "runs" / "voted")).shards.kind == "vote"
    assert run.open("predict").fields == ("raw.png",)


def test_photographs_are_decoded_only_for_stages_that_look_at_them(root: Path) -> None:
    images, out = ShardSet.open(str(root / "data" / "train")), root / "blind"
    reports = []
    for number in range(len(images.shard_sizes)):
        rows = [
            (e.key, (e.height, e.width), {"jpg": b"no photograph", "tags": images.read(e.ordinal, "tags")})
            for e in images.shard(number)
        ]
        reports.append(write_shard(out, number, rows))
    write_index(out, kind="images", classes=images.classes, reports=reports)
    run = line(root, "voted", **VOTED)
    vote, before = run.stage("vote"), run.open("vote")
    joins = (run.join("labels", "walk", "mask.png"), Join("proposals", str(root / "data" / "proposals"), PROPOSALS))
    source = Source(str(out), joins, run.config.loader, pixels=vote.looks)
    for sample in VoteMap(run.config.vote).run(None, source.open()(Chunk(0, 0, 2))):
        assert np.array_equal(sample.made["vote"]["mask.png"], before.load(sample.ordinal, "mask.png"))
    with pytest.raises(ShardError, match=r"JPEG|text"):
        list(Source(str(out), joins, run.config.loader).open()(Chunk(0, 0, 2)))


def test_superpixels_vote_where_there_are_no_proposals(root: Path) -> None:
    said = io.StringIO()
    run = line(root, "superpixels", said, pseudo_mask="vote", vote={"labels": "seed", "clear": True})
    run.execute(until="vote")
    assert "cam_seed: taken from run voted" in said.getvalue() and "walk" not in {stage.name for stage in run.stages}
    for ordinal in range(4):
        labels, regions = run.open("cam_seed").load(ordinal, "seed.png"), run.open("superpixel")
        expected = vote_regions(labels, regions.load(ordinal, "superpixel.u16.png"), VoteMap(Vote(clear=True)).rule)
        assert np.array_equal(run.open("vote").load(ordinal, "mask.png"), expected)


def test_the_content_of_the_proposals_is_the_origin_not_their_place(root: Path, tmp_path: Path) -> None:
    tree = json.loads((root / "sam.json").read_text())
    images = str(root / "data" / "train")
    import_regions(root / "sam.json", images, tmp_path / "same")
    (tmp_path / "less.json").write_text(json.dumps({key: some[:1] for key, some in tree.items()}))
    import_regions(tmp_path / "less.json", images, tmp_path / "other")
    settings = {**EASY, "labels": "walk", "proposals": str(tmp_path / "same")}
    line(root, "voted", pseudo_mask="vote", vote=settings).execute(until="vote")
    with pytest.raises(ConfigError, match=r"vote: made with proposals set .*--redo vote"):
        line(root, "voted", vote={**settings, "proposals": str(tmp_path / "other")}).execute(until="vote")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("train", r"vote\.proposals: .*expected proposals\.rle; see amn import"),
        ("nowhere", "nowhere: cannot be listed"),
    ],
)
def test_a_set_that_is_none_of_proposals_is_refused(root: Path, place: str, told: str) -> None:
    run = line(root, "refused", vote={"labels": "walk", "proposals": place})
    with pytest.raises(Exception, match=told):
        run.execute(until="vote")
    assert not run.run.folder.exists() or not run.run.is_done(run.stage("classify"))
