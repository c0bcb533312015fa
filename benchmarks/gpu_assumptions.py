"""What the model of a run on GPUs assumes: stages, targets, and what a device, a link and a start are worth, twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

FITS = ("classify", "amn", "irn", "segment")
MASKS = ("classify", "cam", "cam_seed", "amn", "amn_map", "amn_seed", "irn", "walk")
STREAMS = {"cam_seed": "cam", "amn_seed": "amn_map", "clip_seed": "clip_map"}
"""Maps that go on with the chunks of the Map before, where they lie: they start nothing and decode nothing."""
HOST_AS = {"clip_map": "cam", "clip_seed": "cam_seed"}
"""Maps whose host reads, decodes and writes what that of a measured one does."""
WAITED = {"clip_map": "boxes"}
"""Work of the host that the device waits for: CLIP's maps go on when their boxes are there."""
FIT_PARTS = ("read", "crop")
"""What a host does for an image of a step (host_costs.py)."""
CORES = 16
"""Of a host, for each of its GPUs."""
NODE = 8
"""GPUs that one machine holds."""
TARGETS_MIN = {1: {"masks": 60, "all": 180}, 8: {"masks": 12, "all": 35}}
POINTS = {"seed": (0.130, 0.832), "deeplab": (1.156, 1.377)}
"""Lattice points a pixel, over positions and colours, in the mean of 20 photographs of COCO at the stages' kernels."""


@dataclass(frozen=True)
class Case:
    """What is assumed of an H200 and its host. Rates are those reached, a second. flops: by type."""

    bf16: float
    """And float16."""
    fp32: float
    fp64: float
    bytes_per_s: float
    lattice_bytes_per_s: float
    """Of a CRF, whose accesses are scattered."""
    launch_s: float
    node_link: float
    far_link: float
    """Bytes a second of a GPU's link inside a machine and between machines."""
    hidden: float
    """Share of the gradients' exchange behind the backward pass."""
    sync_s: float
    host: float
    """Of the core-milliseconds measured here."""
    cores: int
    """That are free for this, of the 16 of a GPU."""
    labels: int
    """Of 81 that compete in a prediction's CRF."""
    start_s: float
    """Until a stage's processes have what they need."""

    def flops(self, kind: torch.dtype) -> float:
        return {torch.bfloat16: self.bf16, torch.float16: self.bf16, torch.float64: self.fp64}.get(kind, self.fp32)


CASES = {
    "low": Case(bf16=0.55 * 790e12, fp32=0.8 * 67e12, fp64=0.6 * 67e12, bytes_per_s=0.9 * 4.3e12,
                lattice_bytes_per_s=0.6 * 4.3e12, launch_s=4e-6, node_link=300e9, far_link=40e9, hidden=0.7,
                sync_s=50e-6, host=0.52, cores=15, labels=6, start_s=15),
    "high": Case(bf16=0.35 * 790e12, fp32=0.5 * 67e12, fp64=0.3 * 67e12, bytes_per_s=0.6 * 4.3e12,
                 lattice_bytes_per_s=0.2 * 4.3e12, launch_s=8e-6, node_link=100e9, far_link=20e9, hidden=0.0,
                 sync_s=200e-6, host=1.0, cores=10, labels=20, start_s=45),
}  # fmt: skip
"""bf16: 35 to 55 % of 790 TFLOP/s; float32 without TF32, float64: of 67; bytes: of 4.3 TB/s. host: a core as measured
here, or that of results/decode.json, which does a crop in 6.9 ms."""
