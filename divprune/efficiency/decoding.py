"""What an answer costs after its first token, in floating-point operations and in bytes of weights that are read."""

from divprune.efficiency.schedule import DropSchedule
from divprune.efficiency.shapes import GATED_DECODERS, LanguageShape
from divprune.errors import UnsupportedModelError


def decode_flop(shape: LanguageShape, num_text_tokens: int, schedule: DropSchedule, num_new_tokens: int) -> float:
    """Return the operations of the tokens after the first, which the prefill gives; two a multiply-accumulate.

    Args:
        shape: of the language model.
        num_text_tokens: N, of the prompt.
        schedule: the visual tokens that each layer keeps in its cache.
        num_new_tokens: of the answer, at least 1.

    Raises:
        ValueError: `num_new_tokens` is less than 1, or the schedule names a layer that the model does not have.
        UnsupportedModelError: this model's layers are not known.
    """
    if num_new_tokens < 1:
        raise ValueError(f"num_new_tokens must be at least 1, got {num_new_tokens}")
    steps = num_new_tokens - 1
    queries = shape.head_size * shape.num_heads
    attended = sum(num_text_tokens + count for count in schedule.counts(shape.num_layers)) * steps
    # Each token also attends to itself and to those of the answer before it.
    attended += shape.num_layers * steps * (steps + 1) // 2
    return 2.0 * steps * num_weights(shape) + 4.0 * queries * attended


def num_weights(shape: LanguageShape) -> int:
    """Return the weights that every token is multiplied with: projections, feed-forward blocks and the output matrix.

    Raises:
        UnsupportedModelError: this model's layers are not known.
    """
    if shape.model_type not in GATED_DECODERS:
        raise UnsupportedModelError(
            f"model_type must be one of {', '.join(GATED_DECODERS)} to count weights, got {shape.model_type!r}"
        )
    queries, keys = shape.head_size * shape.num_heads, shape.head_size * shape.num_key_value_heads
    layer = shape.hidden_size * (2 * queries + 2 * keys + 3 * shape.intermediate_size)
    return shape.num_layers * layer + shape.hidden_size * shape.vocabulary_size
