"""NumPy or torch in, the same kind out."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def as_array(value: np.ndarray | Tensor) -> np.ndarray:
    """The values as a NumPy array; a view where they already lie in main memory."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def as_floats(value: np.ndarray | Tensor) -> np.ndarray:
    """The values as float32."""
    return as_array(value.float() if isinstance(value, Tensor) else value).astype(np.float32, copy=False)


def same_kind(result: np.ndarray, subject: Array) -> Array:
    """The result as NumPy or torch, whichever the subject is, on its device."""
    return torch.from_numpy(result).to(subject.device) if isinstance(subject, Tensor) else result
