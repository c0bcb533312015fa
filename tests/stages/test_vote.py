"""The stage that sharpens labels by proposals."""

from __future__ import annotations

import numpy as np
import pytest

from amn_dist.config import Config, Vote
from amn_dist.errors import ShardError
from amn_dist.methods import Stage, scored, stages
from amn_dist.ops.run_lengths import lengths_of
from amn_dist.records import Sample
from amn_dist.stages.vote import VoteMap

LABELS = np.zeros((6, 8), np.uint8)
LABELS[1:5, 1:4] = 2
MASK = np.zeros((6, 8), bool)
MASK[1:5, 1:6] = True
TAGS = np.array([0, 1], np.uint8)


def voted(section: Vote, **joined: np.ndarray) -> np.ndarray:
    sample = Sample("a", 0, np.empty((6, 8, 0), np.uint8), TAGS, joined={"labels": LABELS, **joined})
    (done,) = VoteMap(section).run(None, iter([sample]))
    return done.made["vote"]["mask.png"]


def proposals(height: int, width: int) -> np.ndarray:
    return np.concatenate([[height, width], lengths_of(MASK)]).astype(np.int32)


def test_proposals_and_regions_vote_by_the_settings() -> None:
    expected = np.where(MASK, 2, 0)
    assert np.array_equal(voted(Vote(), proposals=proposals(6, 8)), expected)
    assert np.array_equal(voted(Vote(), regions=MASK.astype(np.uint16)), expected)
    strict = Vote(overlap=0.9, coverage=1, background=0.1)
    assert np.array_equal(voted(strict, proposals=proposals(6, 8)), LABELS)
    assert not voted(strict.model_copy(update={"clear": True}), proposals=proposals(6, 8)).any()
    assert np.array_equal(voted(Vote(), proposals=np.array([6, 8], np.int32)), LABELS)


def test_proposals_of_another_size_are_named() -> None:
    with pytest.raises(ShardError, match="a: its proposals are of 6x8 pixels, its labels of 8x6"):
        voted(Vote(), proposals=proposals(8, 6))


def names(**settings: object) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(Config.model_validate({"name": "x", **settings}))}


REFINE = {"maps": "m"}


@pytest.mark.parametrize(
    ("settings", "reads", "learns"),
    [
        ({"vote": {"labels": "walk"}}, {"labels": "walk", "regions": "superpixel"}, "walk"),
        ({"pseudo_mask": "vote", "vote": {"labels": "walk", "proposals": "p"}}, {"labels": "walk"}, "vote"),
        ({"pseudo_mask": "vote", "vote": {"labels": "seed", "proposals": "p"}}, {"labels": "amn_seed"}, "vote"),
        ({"pseudo_mask": "seed", "vote": {"labels": "walk", "proposals": "p"}}, {"labels": "walk"}, "amn_seed"),
        ({"method": "refine", "refine": REFINE, "vote": {"labels": "first_seed", "proposals": "p"}},
         {"labels": "refine_seed"}, "walk"),
        ({"method": "icd", "pseudo_mask": "vote", "vote": {"labels": "seed"}},
         {"labels": "icd_seed", "regions": "superpixel"}, "vote"),
    ],
)  # fmt: skip
def test_whose_labels_are_sharpened_and_who_learns_from_them(
    settings: dict[str, object], reads: dict[str, str], learns: str
) -> None:
    by_name = names(**settings)
    assert by_name["vote"].reads == reads and by_name["segment"].reads == {"label": learns}
    assert ("walk" in by_name) == ("walk" in (reads["labels"], learns))
    assert list(by_name).count("superpixel") == ("regions" in reads)
    assert "vote" in [artefact.name for _, artefact in scored(Config.model_validate({"name": "x", **settings}))]
    outside = None if "regions" in reads else "proposals"
    assert by_name["vote"].outside == outside and not by_name["vote"].looks


def test_without_a_vote_nothing_changes() -> None:
    assert not {"vote", "superpixel"} & names().keys()
    assert names(vote={"labels": False}).keys() == names().keys()  # a bare `off` of YAML
    with pytest.raises(ValueError, match=r"set vote\.labels"):
        names(pseudo_mask="vote")
