"""Which rank trains which sequences in which packs: as many packs on every rank, at a balanced cost, with nothing communicated.

What surprises: one greedy pass does both. Cost grows with length, so the order that balances ranks, longest processing time first
(Graham 1969, doi:10.1137/0117039), is the order that fills packs, first-fit decreasing (Johnson et al. 1974, doi:10.1137/0203025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Schedule = list[list[list[int]]]
"""schedule[rank][pack] lists indices of sequences. Every rank has the same number of packs; its last ones may be empty."""

TOLERANCE = 0.01  # of the mean cost: exchanges stop once the dearest rank is that close to it
EXCHANGES_PER_RANK = 4  # bounds the time; 40 to 1,024 log-normal lengths on 8 ranks need 26 exchanges at most


@dataclass(frozen=True, slots=True)
class Cost:
    """A sequence of n tokens costs linear * n + quadratic * n**2, in any unit. Whole numbers add up exactly."""

    linear: float
    quadratic: float

    def __post_init__(self):
        if not (self.linear > 0 and self.quadratic >= 0):  # also catches NaN
            raise ValueError(f"Cost: linear {self.linear} must be > 0 and quadratic {self.quadratic} >= 0, so that cost grows with length")

    def of(self, length: int) -> float:
        return self.linear * length + self.quadratic * length**2


def transformer_cost(parameters: int, layers: int, attention_width: int) -> Cost:
    """FLOPs of one training pass, forward and backward, over a sequence that attends causally to itself.

    `parameters` are those that multiply every token, the head included; `attention_width` is heads times the width of a head (the
    hidden width in most models). A token costs 6 FLOPs a parameter. A pair of tokens costs 12 a layer and channel, in scores and their
    product with the values, and the causal mask drops half the pairs (Narayanan et al., arXiv:2104.04473, appendix, less recomputation).
    """
    return Cost(linear=6 * parameters, quadratic=6 * layers * attention_width)


def fewest_packs(lengths: Sequence[int], tokens_per_pack: int, ranks: int) -> int:
    """Packs per rank if every pack were full; no schedule has fewer. A sequence longer than a pack counts as a full one."""
    tokens = sum(min(length, tokens_per_pack) for length in lengths)
    return -(-tokens // (tokens_per_pack * ranks))


def schedule_packs(lengths: Sequence[int], tokens_per_pack: int, ranks: int, cost: Cost) -> Schedule:
    """Puts every sequence of one optimizer update into one pack of one rank: a function of its arguments alone, ties by index.

    `lengths` in tokens that the model reads. The longest sequence comes first and goes to the cheapest rank with room for it, there
    into the first pack with room; exchanges between ranks then even out what is left. A pack holds at most `tokens_per_pack` tokens,
    or a single longer sequence. A rank may open one pack more than `fewest_packs`, so that balance does not suffer where packs are
    nearly full, and yet more only when no rank has room: with s the longest sequence below the budget B, packs per rank
    <= 1 + max(fewest_packs, tokens / (ranks * (B - s))). On one rank this is first-fit decreasing; without sequences there are no packs.
    Raises ValueError when an argument is not positive.
    """
    shortest = min(lengths, default=1)
    if min(tokens_per_pack, ranks, shortest) < 1:
        raise ValueError(
            f"schedule_packs: tokens_per_pack {tokens_per_pack}, ranks {ranks}, shortest sequence {shortest}; each must be >= 1"
        )
    need = [min(length, tokens_per_pack) for length in lengths]
    costs = [cost.of(length) for length in lengths]
    packs: Schedule = [[] for _ in range(ranks)]
    room: list[list[int]] = [[] for _ in range(ranks)]
    spent = [0] * ranks
    limit = fewest_packs(lengths, tokens_per_pack, ranks) + 1
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        cheapest_first = sorted(range(ranks), key=spent.__getitem__)
        while (found := _first_fit(room, cheapest_first, need[index], limit)) is None:
            limit += 1
        rank, place = found
        if place == len(packs[rank]):
            packs[rank].append([])
            room[rank].append(tokens_per_pack)
        packs[rank][place].append(index)
        room[rank][place] -= need[index]
        spent[rank] += costs[index]
    for _ in range(EXCHANGES_PER_RANK * ranks):
        balanced = max(spent) * ranks <= (1 + TOLERANCE) * sum(spent)
        if balanced or not _exchange(packs, room, spent, need, costs):
            break
    most = max(map(len, packs))
    return [own + [[] for _ in range(most - len(own))] for own in packs]


def _first_fit(room: list[list[int]], ranks: Sequence[int], need: int, limit: int) -> tuple[int, int] | None:
    """The first of `ranks` with room for `need` tokens and its first pack with room, or its next pack while it has below `limit`."""
    for rank in ranks:
        place = next((place for place, free in enumerate(room[rank]) if free >= need), len(room[rank]))
        if place < limit:
            return rank, place
    return None


def _exchange(packs: Schedule, room: list[list[int]], spent: list[float], need: Sequence[int], costs: Sequence[float]) -> bool:
    """Exchanges, in place, a sequence of the dearest rank for a shorter one of the cheapest rank where that helps; False when none does."""
    dear = max(range(len(spent)), key=spent.__getitem__)
    for cheap in sorted(range(len(spent)), key=spent.__getitem__):
        gap = spent[dear] - spent[cheap]
        pairs = (
            (abs(gap - 2 * (costs[i] - costs[j])), p, x, q, y)  # the gap that is left; ties by place
            for p, own in enumerate(packs[dear])
            for x, i in enumerate(own)
            for q, other in enumerate(packs[cheap])
            for y, j in enumerate(other)
            if 0 < costs[i] - costs[j] < gap and room[cheap][q] + need[j] >= need[i]
        )
        if best := min(pairs, default=None):
            _, p, x, q, y = best
            i, j = packs[dear][p][x], packs[cheap][q][y]
            packs[dear][p][x], packs[cheap][q][y] = j, i
            room[dear][p] += need[i] - need[j]
            room[cheap][q] -= need[i] - need[j]
            spent[dear] -= costs[i] - costs[j]
            spent[cheap] += costs[i] - costs[j]
            return True
    return False


def schedule_metrics(schedule: Schedule, lengths: Sequence[int], tokens_per_pack: int, cost: Cost) -> dict[str, float]:
    """What a step reports of its schedule, all zero without sequences.

    padding: share of tokens that belong to no sequence, 0 by construction; fill: mean of tokens / tokens_per_pack over packs with
    sequences, above 1 only for sequences longer than a pack; imbalance: cost of the dearest rank / mean cost - 1; packs: of each rank;
    empty_packs: of all ranks together.
    """
    tokens = [sum(lengths[index] for index in pack) for own in schedule for pack in own]
    costs = [sum(cost.of(lengths[index]) for pack in own for index in pack) for own in schedule]
    used = sum(count > 0 for count in tokens)
    return {
        "padding": 0.0,
        "fill": sum(tokens) / (used * tokens_per_pack) if used else 0.0,
        "imbalance": max(costs) * len(costs) / sum(costs) - 1 if used else 0.0,
        "packs": len(schedule[0]),
        "empty_packs": len(tokens) - used,
    }
