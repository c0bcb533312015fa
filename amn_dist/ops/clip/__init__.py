"""CLIP-ES after the network: maps along attention, and the labels they become (clip 4 to 6)."""
