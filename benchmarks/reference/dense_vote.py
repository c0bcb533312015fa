"""The vote of proposals with a full array for each: what the run lengths are held against (amn 1.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amn_dist.ops.vote import VoteRule


def dense_vote(labels: np.ndarray, masks: Sequence[np.ndarray], rule: VoteRule) -> np.ndarray:
    """Labels uint8[H, W] sharpened by masks bool[H, W], one after the other."""
    classes = [number for number in np.unique(labels) if number not in (0, 255)]
    winners = [_winner(labels, mask, classes, rule) for mask in masks]
    voted = labels.copy()
    for mask, winner in zip(masks, winners, strict=True):
        if rule.clear and not winner:
            voted[mask & (labels != 255)] = 0
    for number in sorted(range(len(masks)), key=lambda number: -int(masks[number].sum())):
        if winners[number]:
            voted[masks[number]] = winners[number]
    return voted


def stacked_vote(labels: np.ndarray, masks: np.ndarray, rule: VoteRule) -> np.ndarray:
    """The same of masks uint8[H, W, N] as pycocotools decodes them; all are counted by one product of matrices."""
    flat = masks.reshape(-1, masks.shape[2]).astype(np.float32)
    ids = np.unique(labels)
    counts = ((labels.reshape(-1, 1) == ids).astype(np.float32).T @ flat).astype(np.int64)  # exact below 2^24 pixels
    area, voted = masks.sum((0, 1), dtype=np.int64), labels.copy()
    background = counts[ids == 0].sum(0)
    kinds = np.flatnonzero((ids != 0) & (ids != 255))
    if not len(kinds):
        return voted
    best = kinds[counts[kinds].argmax(0)]
    held = counts[best, np.arange(masks.shape[2])]
    totals = np.array([(labels == number).sum() for number in ids])
    size = np.maximum(area, 1)
    fits = (held / size > rule.overlap) | (held / totals[best] >= rule.coverage)
    accepted = (held > 0) & fits & (background / size <= rule.background)
    for number in np.flatnonzero(~accepted) if rule.clear else ():
        voted[masks[..., number].astype(bool) & (labels != 255)] = 0
    for number in np.argsort(-area, kind="stable"):
        if accepted[number]:
            voted[masks[..., number].astype(bool)] = ids[best[number]]
    return voted


def _winner(labels: np.ndarray, mask: np.ndarray, classes: Sequence[int], rule: VoteRule) -> int:
    held = {number: int((mask & (labels == number)).sum()) for number in classes}
    best = max(held, key=lambda number: held[number], default=0)
    if not best or not held[best] or (mask & (labels == 0)).sum() / mask.sum() > rule.background:
        return 0
    fits = held[best] / mask.sum() > rule.overlap or held[best] / (labels == best).sum() >= rule.coverage
    return int(best) if fits else 0
