"""GlobalCom2: the thumbnail says how much each tile of an image keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from divprune.lazy_torch import torch
from divprune.methods.base import Fidelity, Method, Paper
from divprune.methods.grids import given_pieces, token_places
from divprune.methods.item_context import ItemContext, Modality, Need, Piece
from divprune.methods.scores import checked_number, importance, ranked
from divprune.methods.shares import weighted_shares

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GlobalCom2(Method):
    """The most attended tokens of the thumbnail and of each tile, whose share goes by the thumbnail's attention.

    For LLaVA-NeXT: the image as a whole (the thumbnail) and the same in tiles. With r the fraction kept, a tile keeps
    r (1 + softmax(s / 10) - mean) of its tokens, s the CLS attention within the thumbnail that falls on the tile, and
    the thumbnail r of its own; within each, the highest CLS attention of its own. The order is the thumbnail, then tile
    by tile. An image without tiles is a thumbnail alone. Image newline tokens are never kept.

    Choices where the paper leaves one: s is a sum, of the last vision layer's attention; tiles are as large as the
    thumbnail, and a token of it counts for the tile in which its middle lies; padding has no tokens; fractions are
    rounded down, and what remains goes one each to the largest shares, so that the number is the caller's.

    X. Liu, Z. Wang, J. Chen, Y. Han, Y. Wang, J. Yuan, J. Song, S. Huang, H. Chen, "Global Compression
    Commander: Plug-and-Play Inference Acceleration for High-Resolution Large Vision-Language Models", AAAI 2026,
    https://arxiv.org/abs/2501.05179

    Attributes:
        temperature: of the softmax, above 0.
    """

    name: ClassVar[str] = "globalcom2"
    paper: ClassVar[Paper | None] = Paper(
        title="Global Compression Commander: Plug-and-Play Inference Acceleration for High-Resolution Large "
        "Vision-Language Models",
        year=2026,
        url="https://arxiv.org/abs/2501.05179",
        citation="Liu, Wang, Chen, Han, Wang, Yuan, Song, Huang, Chen, AAAI 2026",
    )
    fidelity: ClassVar[Fidelity] = "unverified"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"image"})
    needs: ClassVar[frozenset[Need]] = frozenset({"vision_attention", "pieces"})
    vision_layer: ClassVar[int] = -1
    temperature: float = 10.0

    def __post_init__(self) -> None:
        """Check the temperature."""
        checked_number("temperature", self.temperature, 1e-6)

    def select(self, visual_tokens: Tensor, num_keep: int, context: ItemContext) -> Tensor:
        """Select tile by tile; the loop is over tiles.

        Raises:
            ValueError: The tokens are neither one grid nor a square thumbnail and a grid of tiles.
        """
        attention = importance(context, self.name).to(visual_tokens.device).double()
        pieces = given_pieces(context, self.name)
        if len(pieces) == 1:
            return ranked(attention)[:num_keep]
        if len(pieces) > 2 or pieces[0].rows != pieces[0].columns:
            raise ValueError(
                f"method {self.name!r} needs a square thumbnail and one grid of tiles, as LLaVA-NeXT has them, got "
                f"{len(pieces)} grids; choose a method that needs none (see `divprune methods`)"
            )
        part = _parts(pieces, len(attention)).to(attention.device)
        sizes = part.bincount()
        seen = _tile_of_thumbnail(pieces[0].rows, pieces[1]).to(attention.device)
        falls_on = torch.zeros(len(sizes) - 1, dtype=torch.float64, device=attention.device)
        falls_on.index_add_(0, seen, attention[part == 0])
        favour = (falls_on / self.temperature).softmax(dim=0)
        ratios = torch.cat([favour.new_ones(1), 1 + favour - favour.mean()])
        counts = weighted_shares(num_keep, ratios * sizes, sizes).tolist()
        own = [(part == number).nonzero().squeeze(1) for number in range(len(sizes))]
        return torch.cat([tokens[ranked(attention[tokens])[:count]] for tokens, count in zip(own, counts, strict=True)])


def _tile_starts(side: int, piece: Piece) -> tuple[int, int, int]:
    """Return how many tokens of padding lie above and left of a grid of tiles, and how many tiles stand in a row."""
    tiles_down, tiles_across = -(-piece.rows // side), -(-piece.columns // side)
    return (tiles_down * side - piece.rows) // 2, (tiles_across * side - piece.columns) // 2, tiles_across


def _parts(pieces: tuple[Piece, ...], total: int) -> Tensor:
    """(M,) the thumbnail, 0, or the tile, from 1 on, of each token."""
    above, left, across = _tile_starts(pieces[0].rows, pieces[1])
    piece, row, column = token_places(pieces, total)
    tile = (row + above) // pieces[0].rows * across + (column + left) // pieces[0].rows
    return torch.where(piece == 0, 0, 1 + tile)


def _tile_of_thumbnail(side: int, piece: Piece) -> Tensor:
    """(side * side,) the tile in which the middle of each of the thumbnail's tokens lies, which is the image scaled."""
    above, left, across = _tile_starts(side, piece)
    middle = 2 * torch.arange(side) + 1
    row, column = middle * piece.rows // (2 * side) + above, middle * piece.columns // (2 * side) + left
    return (row.unsqueeze(1) // side * across + column // side).flatten()
