"""Who decides, while a call runs, which tokens a decoder layer drops."""

from typing import Protocol

from torch import Tensor

from divprune.huggingface.layer_pruning.decoder_capture import Asked, Heard


class Chooser(Protocol):
    """Which columns of the prompt stay.

    Attributes:
        asked: what it wants to hear of the layer before; None if nothing.
    """

    asked: Asked | None

    def __call__(self, layer: int, hidden: Tensor, slots: Tensor, heard: Heard) -> Tensor:
        """Chooses, once a call for each layer that drops tokens.

        Args:
            layer: the layer.
            hidden: (B, n, d) hidden states that enter it.
            slots: (B, L) int64: where in the hidden states, and in what was heard, each prompt column stands.
            heard: what was asked for.

        Returns:
            (B, L') int64 source, see `prompt.source_columns`.
        """

    def merged(self, layer: int, hidden: Tensor, slots: Tensor) -> Tensor:
        """Hidden states (B * copies, n, d) that enter a layer, with what its anchors became; called in every pass.

        Args:
            layer: the layer, whose tokens are chosen.
            hidden: as above, `copies` rows for each of the prompt.
            slots: (B, L) as above.
        """
