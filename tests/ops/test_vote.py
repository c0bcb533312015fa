"""Votes of proposals against a dense oracle of loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amn_dist.errors import ShardError
from amn_dist.ops.run_lengths import lengths_of
from amn_dist.ops.vote import VoteRule, vote_lengths, vote_regions

RULES = [
    VoteRule(),
    VoteRule(background=1.0, clear=True),
    VoteRule(overlap=0.2, coverage=0.3, background=0.8),
    VoteRule(overlap=0.9, coverage=1.0, clear=True),
]


def oracle_class(labels: np.ndarray, mask: np.ndarray, rule: VoteRule) -> int:
    """The class a proposal bool[H, W] is accepted for, 0 for none."""
    area = int(mask.sum())
    best, held = 0, 0
    for number in range(1, 255):
        inside = int((mask & (labels == number)).sum())
        if inside > held:
            best, held = number, inside
    if not held or int((mask & (labels == 0)).sum()) / area > rule.background:
        return 0
    fits = held / area > rule.overlap or held / int((labels == best).sum()) >= rule.coverage
    return best if fits else 0


def oracle(labels: np.ndarray, masks: list[np.ndarray], rule: VoteRule) -> np.ndarray:
    """Votes of dense masks, one after the other."""
    winners = [oracle_class(labels, mask, rule) for mask in masks]
    voted = labels.copy()
    if rule.clear:
        for mask, winner in zip(masks, winners, strict=True):
            if not winner:
                voted[mask & (labels != 255)] = 0
    for mask, winner in sorted(zip(masks, winners, strict=True), key=lambda pair: -int(pair[0].sum())):
        if winner:
            voted[mask] = winner
    return voted


def lengths(masks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *map(lengths_of, masks)])


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of boxes and noise; proposals that overlap, are nested, empty, whole, single pixels, or touch borders."""
    random = np.random.default_rng(seed)

    def box() -> tuple[slice, slice]:
        return tuple(slice(*np.sort(random.integers(0, side + 1, 2))) for side in (height, width))  # type: ignore[return-value]

    labels = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(0, 6)):
        labels[box()] = random.choice([0, 1, 2, 7, 254, 255])
    if random.random() < 0.3:
        noise = random.random(labels.shape) < 0.2
        labels[noise] = random.choice([1, 2, 255], noise.sum())
    masks = [np.zeros(labels.shape, bool), np.ones(labels.shape, bool), random.random(labels.shape) < 0.5]
    for _ in range(random.integers(0, 12)):
        mask = np.zeros(labels.shape, bool)
        mask[box()] = True
        masks.append(mask)
        inner = mask & (random.random(labels.shape) < 0.9)
        masks.append(inner)
    masks += [labels == number for number in (1, 7, 255)]
    keep = random.permutation(len(masks))[: random.integers(0, len(masks) + 1)]
    return labels, [masks[number] for number in keep]


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.sampled_from(RULES))
@example(0, 1, 1, RULES[0])
@example(3, 1, 1, RULES[1])
def test_votes_are_those_of_the_dense_oracle(seed: int, height: int, width: int, rule: VoteRule) -> None:
    labels, masks = scene(seed, height, width)
    before = labels.copy()
    voted = vote_lengths(labels, lengths(masks), rule)
    assert voted.dtype == np.uint8 and np.array_equal(voted, oracle(labels, masks, rule))
    assert np.array_equal(labels, before)


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.sampled_from(RULES))
def test_votes_of_a_partition_are_those_of_its_masks(seed: int, height: int, width: int, rule: VoteRule) -> None:
    labels, _ = scene(seed, height, width)
    regions = np.random.default_rng(seed).integers(0, 9, (-(-height // 4), -(-width // 4)))
    regions = np.repeat(np.repeat(regions, 4, 0), 4, 1)[:height, :width].astype(np.uint16)
    masks = [regions == number for number in range(9)]
    voted = vote_regions(labels, regions, rule)
    assert voted.dtype == np.uint8 and np.array_equal(voted, oracle(labels, masks, rule))
    assert np.array_equal(voted, vote_lengths(labels, lengths(masks), rule))


def test_the_rules_by_example() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[2:8, 2:6] = 3  # the body of an object that reaches to column 10
    labels[:, 18:] = 255
    whole, mostly_undecided = np.zeros(labels.shape, bool), labels == 255
    whole[2:8, 2:9] = True
    assert (vote_lengths(labels, lengths([whole]), VoteRule())[2:8, 2:9] == 3).all(), (
        "24 of 42 pixels are more than half"
    )
    wide = np.zeros(labels.shape, bool)
    wide[2:8, 2:12] = True
    assert np.array_equal(vote_lengths(labels, lengths([wide]), VoteRule()), labels), "36 of 60 pixels are background"
    assert (vote_lengths(labels, lengths([wide]), VoteRule(background=1))[2:8, 2:12] == 3).all(), "it holds all of 3"
    assert np.array_equal(vote_lengths(labels, lengths([mostly_undecided]), VoteRule()), labels)
    narrow = np.zeros(labels.shape, bool)
    narrow[4:6, 7:9] = True
    assert (vote_lengths(labels, lengths([whole, narrow]), VoteRule(clear=True))[4:6, 7:9] == 3).all()
    cleared = vote_lengths(labels, lengths([wide]), VoteRule(clear=True))
    assert not (cleared == 3).any() and (cleared[:, 18:] == 255).all()


def test_small_lies_over_large_and_of_equal_ones_the_later() -> None:
    labels = np.ones((4, 8), np.uint8)
    labels[:, 4:] = 2
    large, small = np.zeros((2, 4, 8), bool)
    large[:, :7], small[:, 5:] = True, True
    for order in ([large, small], [small, large]):
        voted = vote_lengths(labels, lengths(order), VoteRule())
        assert (voted[:, :5] == 1).all() and (voted[:, 5:] == 2).all()
    left, right = np.zeros((2, 4, 8), bool)
    left[:, :5], right[:, 3:] = True, True
    assert vote_lengths(labels, lengths([left, right]), VoteRule())[0].tolist() == [1, 1, 1, 2, 2, 2, 2, 2]
    assert vote_lengths(labels, lengths([right, left]), VoteRule())[0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("broken", [[5], [12, 5], [13], [6, -1, 7], [-1, 13]])
def test_lengths_that_do_not_cover_the_image_are_refused(broken: list[int]) -> None:
    with pytest.raises(ShardError, match="do not cover 4x3 pixels each"):
        vote_lengths(np.ones((3, 4), np.uint8), np.array(broken, np.int32), VoteRule())
