"""Tensors in, tensors out."""

from amn_dist.caches import redirect

redirect()  # before numba and triton are imported
