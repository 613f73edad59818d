"""The whole greedy loop of Algorithm 1 as one Triton kernel; imported by `selection.fused` alone, where Triton is.

Each program finds how far the nearest neighbours of a few tokens are. The last one of a set to do so, whichever that
is, goes on with all picks of the set, since only then is everything known that they start from:

    tokens of a set   0 .. 3    4 .. 7   ...   M - 4 .. M - 1
                        |         |               |
    gaps (M,)         store     store           store
    arrived            + 1       + 1             + 1      complete: seed, its row, minimum, argmax, row, minimum, ...
"""

import triton
import triton.language as tl

BARRED = tl.constexpr(float("-inf"))
COPY = tl.constexpr(-1.0)


@triton.jit
def max_min_kernel(
    matrix,
    inverse_lengths,
    tokens,
    valid,
    counts,
    min_distance,
    gaps,
    arrived,
    picks,
    when_chosen,
    total,
    width,
    num_keep,
    ZERO_BELOW: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
):
    """Pick from each set of a batch; the grid is (B * ceil(M / ROWS),).

    Args:
        matrix: (B, M, M) products of tokens, or distances where `inverse_lengths` is None.
        inverse_lengths: (B, M) of the tokens, or None.
        tokens: (B, M, d).
        valid: (B, M) int8, 0 at tokens that do not exist; None if all do.
        counts: (B,) int32 how many to pick from each set; None for `num_keep`.
        min_distance: (1,) stop before the first pick that is nearer than this to an earlier one; None for never.
        gaps: (B, M) scratch.
        arrived: (B,) int32 zeros.
        picks: (B, num_keep) int64, written; 0 past the last pick.
        when_chosen: (B, num_keep), written; -inf past the last pick.
        total: M.
        width: d.
        num_keep: Most picks from a set.
        ZERO_BELOW: Cosine distances up to this are zero.
        ROWS: Power of two: for how many tokens a program finds the nearest neighbour.
        BLOCK: Power of two, at least M: a row of the matrix stays in registers.
        WIDTH_BLOCK: How many numbers of two tokens are compared at once.
    """
    num_programs = tl.cdiv(total, ROWS)
    start = (tl.program_id(0) // num_programs).to(tl.int64) * total
    # Past the end, the last token again.
    own = tl.minimum(tl.program_id(0) % num_programs * ROWS + tl.arange(0, ROWS), total - 1)
    columns = tl.arange(0, BLOCK)
    exists = columns < total
    if valid is not None:
        exists &= tl.load(valid + start + columns, mask=exists, other=0) != 0
    distance = _distances(
        matrix, inverse_lengths, start, own[:, None], columns[None, :], exists[None, :], total, ZERO_BELOW
    )
    others = tl.where(columns[None, :] == own[:, None], float("inf"), distance)
    gap, nearest = tl.min(others, 1, return_indices=True, return_indices_tie_break_left=True)
    # Two that are each other's nearest tie, though a product may give their distance in two ways.
    back = _distances(matrix, inverse_lengths, start, nearest, own, gap < float("inf"), total, ZERO_BELOW)
    gap = tl.minimum(gap, back)
    # The nearest is the first of equals, so of a token's copies the lowest.
    may_be_copy = (gap == 0) & (nearest < own)
    if tl.max(may_be_copy.to(tl.int32), 0) == 1:
        same = _equal(tokens, (start + own) * width, (start + nearest) * width, width, WIDTH_BLOCK)
        gap = tl.where(may_be_copy & same, COPY, gap)
    tl.store(gaps + start + own, gap)
    # Counted after the store and before the loads, so that who completes the count sees all gaps.
    tl.debug_barrier()
    batch = tl.program_id(0) // num_programs
    if tl.atomic_add(arrived + batch, 1, sem="acq_rel", scope="gpu") == num_programs - 1:
        # `.cg`: not from the first-level cache, which other multiprocessors do not write to.
        # The gaps of tokens that do not exist are not read.
        found = tl.load(gaps + start + columns, mask=exists, other=BARRED, cache_modifier=".cg")
        count = num_keep
        if counts is not None:
            count = tl.load(counts + batch)
        # Copies follow the first of them, whatever a product does to their last bits.
        closest = tl.where(found == COPY, tl.zeros_like(found), tl.where(found >= 0, float("inf"), found))
        _, pick = tl.max(found, 0, return_indices=True, return_indices_tie_break_left=True)
        place = batch.to(tl.int64) * num_keep
        tl.store(picks + place, pick.to(tl.int64))
        tl.store(when_chosen + place, float("inf"))
        step = 1
        while step < count:
            met = _distances(matrix, inverse_lengths, start, pick, columns, exists, total, ZERO_BELOW)
            closest = tl.where(columns == pick, BARRED, tl.minimum(closest, met))
            farthest, pick = tl.max(closest, 0, return_indices=True, return_indices_tie_break_left=True)
            if min_distance is not None:
                count = tl.where(farthest < tl.load(min_distance), step, count)
            tl.store(picks + place + step, pick.to(tl.int64), mask=step < count)
            tl.store(when_chosen + place + step, farthest, mask=step < count)
            step += 1
        while count < num_keep:
            tl.store(picks + place + count, tl.zeros((), tl.int64))
            tl.store(when_chosen + place + count, BARRED)
            count += 1


@triton.jit
def _distances(matrix, inverse_lengths, start, token, column, exists, total, ZERO_BELOW: tl.constexpr):
    """Return the distances between `token` and `column`, whose shapes broadcast; infinite where not `exists`."""
    distance = tl.load(matrix + (start + token) * total + column, mask=exists, other=0.0)
    if inverse_lengths is not None:
        own = tl.load(inverse_lengths + start + token)
        other = tl.load(inverse_lengths + start + column, mask=exists, other=0.0)
        distance = 1 - distance * (own * other)
        distance = tl.where(distance <= ZERO_BELOW, tl.zeros_like(distance), distance)
    return tl.where(exists, distance, float("inf"))


@triton.jit
def _equal(tokens, first, second, width, WIDTH_BLOCK: tl.constexpr):
    """Return whether the `width` numbers at `first` and at `second` (n,) are the same."""
    num_different = tl.zeros_like(first)
    for begin in range(0, width, WIDTH_BLOCK):
        places = begin + tl.arange(0, WIDTH_BLOCK)[None, :]
        one = tl.load(tokens + first[:, None] + places, mask=places < width, other=0.0)
        other = tl.load(tokens + second[:, None] + places, mask=places < width, other=0.0)
        num_different += tl.sum((one != other).to(tl.int32), 1)
    return num_different == 0


@triton.jit
def row_rule_kernel(
    matrix,
    state,
    base,
    weight,
    first,
    picks,
    total,
    num_keep,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pick from each set of a batch by a rule of `selection.fused_rules.RowRule`; the grid is (B,).

    Args:
        matrix: (B, M, M).
        state: (B, M) before the first pick.
        base: (B, M).
        weight: (1,).
        first: (B,) int64 first picks, or None.
        picks: (B, num_keep) int64, written.
        total: M.
        num_keep: Number of picks.
        KIND: "largest", "smallest" or "suppress".
        BLOCK: Power of two, at least M.
    """
    batch = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    left = columns < total
    places = batch * total + columns
    now = tl.load(state + places, mask=left, other=0.0)
    unchanging = tl.load(base + places, mask=left, other=0.0)
    factor = tl.load(weight)
    pick = _best(now, unchanging, factor, left, KIND)
    if first is not None:
        pick = tl.load(first + batch).to(tl.int32)
    tl.store(picks + batch * num_keep, pick.to(tl.int64))
    step = 1
    while step < num_keep:
        left = left & (columns != pick)
        row = tl.load(matrix + (batch * total + pick) * total + columns, mask=columns < total, other=0.0)
        if KIND == "suppress":
            own = tl.sum(tl.where(columns == pick, now, tl.zeros_like(now)), 0)
            now = tl.maximum(now - row * own, tl.zeros_like(now))
        elif KIND == "largest":
            now = tl.where(step == 1, row, tl.maximum(now, row))
        else:
            now = tl.where(step == 1, row, tl.minimum(now, row))
        pick = _best(now, unchanging, factor, left, KIND)
        tl.store(picks + batch * num_keep + step, pick.to(tl.int64))
        step += 1


@triton.jit
def _best(state, base, weight, left, KIND: tl.constexpr):
    """Return the token of the largest gain among those that are left, the lowest index of equals."""
    if KIND == "suppress":
        gains = tl.where(state <= 0, base, state)
    elif KIND == "largest":
        gains = base - weight * state
    else:
        gains = state
    gains = tl.where(left, gains, BARRED)
    _, pick = tl.max(gains, 0, return_indices=True, return_indices_tie_break_left=True)
    return pick
