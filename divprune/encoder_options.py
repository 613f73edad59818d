"""Ways to encode less: options of the vision encoder, `encoder="tome:r=8"`, that act before any token is selected.

image -> **fewer patches in the vision encoder** -> visual tokens -> selection -> prompt -> LLM. What they leave of an
image's M visual tokens is what methods select from.
"""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal, get_args

from divprune.methods.base import Method
from divprune.methods.item_context import Modality
from divprune.methods.spec import choices, parsed_parameters
from divprune.methods.vision_inputs import VISION_NEEDS

Schedule = Literal["constant", "decreasing"]


@dataclass(frozen=True)
class TomeEncoder:
    """ToMe: similar patches are merged inside the vision encoder, a few in every block.

    Behind the attention of a block the patches at even places choose the most similar one at an odd place (cosine of
    the block's keys, mean over the heads), and the `r` most similar pairs are merged into their average, weighted by
    how many patches each stands for. Attention counts a merged patch as often (proportional attention: the logarithm
    of the number is added). A CLS token is never merged. What is left stays in the order of the image.

    D. Bolya, C. Fu, X. Dai, P. Zhang, C. Feichtenhofer, J. Hoffman, "Token Merging: Your ViT But Faster", ICLR 2023,
    https://arxiv.org/abs/2210.09461

    Attributes:
        r: Patches merged away in each block, at least 1.
        schedule: "constant", or "decreasing" from twice `r` in the first block to none in the last, rounded down, which
            costs less for about as many patches left.

    Raises:
        ValueError: A value is out of range.
    """

    name: ClassVar[str] = "tome"
    r: int
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"r must be a whole number of patches, at least 1, got {self.r!r}")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}, got {self.schedule!r}")

    def __str__(self) -> str:
        """Return what `encoder_option` reads."""
        return f"{self.name}:r={self.r}" + ("" if self.schedule == "constant" else f",schedule={self.schedule}")

    def merges(self, num_blocks: int) -> list[int]:
        """Return how many patches each of the blocks merges away."""
        if self.schedule == "constant" or num_blocks == 1:
            return [self.r] * num_blocks
        return [2 * self.r * (num_blocks - 1 - block) // (num_blocks - 1) for block in range(num_blocks)]

    def patches_left(self, num_patches: int, num_blocks: int) -> list[int]:
        """Return how many of an image's patches are left behind each block.

        Raises:
            ValueError: A block cannot merge so many: at most half of the patches find a partner.
        """
        left = []
        for block, merged in enumerate(self.merges(num_blocks)):
            if merged > num_patches // 2:
                raise ValueError(
                    f"r must be smaller than {self.r} for {self.schedule} merging of these images: block {block} of "
                    f"{num_blocks} has {num_patches} patches left, and cannot merge {merged} of them away"
                )
            num_patches -= merged
            left.append(num_patches)
        return left


@dataclass(frozen=True)
class PixelDedup:
    """Visual tokens whose pixels equal those of their left or upper neighbour are not encoded.

    For encoders that take patches of native resolution (Qwen-VL's). Neighbours are of one frame, and of one window
    where the encoder has windows. Each token that is left out is within the tolerance of one that is encoded.

    N. Wang, Z. Jin, C. Chen, H. Lu, "PixelPrune: Pixel-Level Adaptive Visual Token Reduction via Predictive Coding",
    https://arxiv.org/abs/2604.00886

    Attributes:
        tolerance: Largest difference of two pixels that count as equal, in the processor's normalised units; 0 for
            identical pixels alone. They are compared as the encoder gets them: in half precision near shades are one.

    Raises:
        ValueError: It is negative or not finite.
        TypeError: It is no number.
    """

    name: ClassVar[str] = "pixel-dedup"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Check the value."""
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, (int, float)):
            raise TypeError(f"tolerance must be a number from 0 on, got {self.tolerance!r}")
        if not isfinite(self.tolerance) or self.tolerance < 0:
            raise ValueError(f"tolerance must be a number from 0 on, got {self.tolerance!r}")

    def __str__(self) -> str:
        """Return what `encoder_option` reads."""
        return self.name + (f":tolerance={self.tolerance!r}" if self.tolerance else "")


_GRID_NEEDS = frozenset({"grid", "pieces"})
EncoderOption = TomeEncoder | PixelDedup
_OPTIONS: dict[str, type[EncoderOption]] = {option.name: option for option in (TomeEncoder, PixelDedup)}


def encoder_option(spec: str) -> EncoderOption:
    """Return the option that `spec` names, such as "tome:r=8" or "pixel-dedup".

    Raises:
        ValueError: There is none of this name, it has no such parameter, or a value does not fit it.
    """
    name, _, parameters = spec.partition(":")
    name = name.strip()
    if name not in _OPTIONS:
        raise ValueError(f"encoder must be an option such as 'tome:r=8', got {spec!r}{choices(name, list(_OPTIONS))}")
    values = parsed_parameters(f"encoder option {name!r}", _OPTIONS[name], parameters)
    if name == TomeEncoder.name and "r" not in values:
        raise ValueError("encoder option 'tome' needs a number of patches to merge in each block: tome:r=8")
    return _OPTIONS[name](**values)


def require_encoder_method(option: EncoderOption, method: Method) -> None:
    """Refuse an encoder option beside a method that reads what it changes, or that acts behind it.

    Raises:
        ValueError: the method is one.
    """
    # Where pixels are encoded once, what is read of a patch is that of the one encoded in its place.
    changed = _GRID_NEEDS if isinstance(option, PixelDedup) else VISION_NEEDS | _GRID_NEEDS
    reads = sorted(method.needs & changed)
    if reads:
        raise ValueError(
            f"encoder must be None for method {method.name!r}, got '{option}': the method reads {', '.join(reads)} of "
            "all patches, of which the option leaves fewer; choose one that needs the visual tokens alone, such as "
            "'divprune'"
        )
    if method.layers:
        raise ValueError(
            f"encoder must be None for method {method.name!r}, got '{option}': the method drops tokens inside the "
            "language model; choose one that acts before it, such as 'divprune'"
        )


def require_encoder_modality(option: EncoderOption, modality: Modality) -> None:
    """Refuse an encoder option on what it is not for.

    Raises:
        ValueError: it merges patches, and is shown a video.
    """
    if isinstance(option, TomeEncoder) and modality == "video":
        raise ValueError(f"encoder option {option.name!r} is for images, got a video; leave `encoder` out")
