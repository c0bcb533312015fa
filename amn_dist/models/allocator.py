"""What the process does with memory that torch lets go."""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Settings of glibc's mallopt."""


@cache
def keep_freed_memory() -> None:
    """Have this process keep freed memory, up to 2 GiB, for its next allocation; without glibc nothing happens.

    Large maps otherwise come fresh from the kernel, page by page, which costs as much as a 1x1 convolution.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
