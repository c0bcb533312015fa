"""Agreement of labels and activations with a truth (amn 1.6)."""

from amn_dist.ops.metrics.counts import confusion, iou, mean_iou, protocol_iou, scores

__all__ = ["confusion", "iou", "mean_iou", "protocol_iou", "scores"]
