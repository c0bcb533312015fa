"""CLIP: an image and a text transformer into one space, and where a frozen one sees a class (clip 2 to 4)."""
