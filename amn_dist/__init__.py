"""Weakly-supervised semantic segmentation at scale: AMN and IRN on WebDataset, DALI, DeepSpeed and Ray."""

__version__ = "0.1.0"
