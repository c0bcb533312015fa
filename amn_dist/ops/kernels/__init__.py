"""Kernels in Triton for what a device would otherwise do in thousands of launches; each has a twin that torch runs."""
