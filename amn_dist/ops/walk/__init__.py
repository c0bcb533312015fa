"""Random walk inside class boundaries, and the pseudo-masks it yields (amn 1.5, 3.4)."""

from amn_dist.ops.walk.walk import pseudo_mask, pseudo_masks, random_walk, random_walks

__all__ = ["pseudo_mask", "pseudo_masks", "random_walk", "random_walks"]
