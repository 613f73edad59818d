"""How the vision encoder is made to encode less: the values of `encoder=`."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PixelDedup:
    """Encode parts of an image once whose pixels are those of the part to their left or above.

    Attributes:
        tolerance: largest difference of two pixel values, as the processor normalises them, that count as the same.
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Check the tolerance."""
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance must be a number of at least 0, got {self.tolerance!r}; 0 asks for equal pixels")
