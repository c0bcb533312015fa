"""Dense CRF with Potts labels over colour and position (amn 6)."""

from amn_dist.ops.crf.dense import deeplab_crf, dense_crf, hard_label_unary

__all__ = ["deeplab_crf", "dense_crf", "hard_label_unary"]
