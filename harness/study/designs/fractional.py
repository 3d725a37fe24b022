"""Two-level fractional factorials of resolution IV or more: which runs, what is confused with what.

Arithmetic on numbers of factors and runs only; it knows no changes (`factorials.py` puts names to the factors).

With 2^b runs, b base factors take all combinations of on and off. Every further factor gets a column: a set of base
factors, written as the bits of an integer, and it is on in the runs where an odd number of those is on. Sums modulo 2
hold in the run where everything is off, so the baseline is always one of the runs. Factors whose columns sum to zero
form a word; the shortest word's length is the resolution. Resolution IV: main effects are free of interactions of two,
which are confused with each other. V: interactions of two are free of each other.

Box, Hunter & Hunter 1978, chapter 12; Fries & Hunter 1980 for minimum aberration: as few shortest words as possible,
then as few of the next length, and so on.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

# Partial designs kept at each step of the search. 10 find the published minimum-aberration word counts of every design
# of up to 11 factors in up to 128 runs (tests/test_fractional.py); 5 miss that of 9 factors in 128 runs.
BEAM = 10
MOST_RUNS = 512
# Words up to this length are counted, enough to find every resolution up to 512 runs: 10 factors in 512 runs have one
# word of 10; with more factors there are two generators at least, and some word holds at most two thirds of them.
LONGEST_WORD = 10


@dataclass(frozen=True, slots=True)
class Fraction:
    """A regular fraction of the 2^k combinations of k factors; made by `best_fraction`.

    Attributes:
        columns: one a factor, the base factors first (1, 2, 4, ...).
        resolution: length of the shortest word; None for the complete factorial, which has no word.
    """

    columns: tuple[int, ...]
    resolution: int | None

    @property
    def num_base(self) -> int:
        return sum(column.bit_count() == 1 for column in self.columns)

    @property
    def runs(self) -> list[tuple[int, ...]]:
        """The numbers of the factors that are on, a tuple a run; fewest first, so the baseline is the first."""
        on = (
            tuple(index for index, column in enumerate(self.columns) if (run & column).bit_count() % 2)
            for run in range(2**self.num_base)
        )
        return sorted(on, key=lambda run: (len(run), run))

    @property
    def generators(self) -> dict[int, tuple[int, ...]]:
        """For each further factor the base factors of which an odd number is on where it is on."""
        return {
            index: tuple(base for base in range(self.num_base) if column >> base & 1)
            for index, column in enumerate(self.columns)
            if index >= self.num_base
        }

    @property
    def aliases(self) -> list[tuple[tuple[int, int], ...]]:
        """Interactions of two factors that this design cannot tell apart, group by group.

        The whole list up to order 2: with resolution IV or more no main effect is confused with an interaction of two.
        The signs agree: what is estimated is the sum of the group's interactions, for words of length 4 are even.
        """
        by_column: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for first, second in combinations(range(len(self.columns)), 2):
            by_column[self.columns[first] ^ self.columns[second]].append((first, second))
        return [tuple(group) for group in by_column.values() if len(group) > 1]


def fewest_runs(num_factors: int) -> int:
    """The least power of two in which these factors reach resolution IV (or are complete): 2^b >= 2k for k > 3."""
    return min(1 << num_factors, 1 << (2 * num_factors - 1).bit_length())


def best_fraction(num_factors: int, num_runs: int) -> Fraction:
    """The design of least aberration that a beam search finds; the same on every call.

    Args:
        num_factors: at least 1.
        num_runs: a power of two, from `fewest_runs(num_factors)` to 2^num_factors, at most `MOST_RUNS`.
    """
    num_base = num_runs.bit_length() - 1
    assert num_runs == 1 << num_base
    assert fewest_runs(num_factors) <= num_runs <= min(2**num_factors, MOST_RUNS)
    # Beyond 5/16 of the runs, every design of resolution IV consists of odd columns (Chen & Cheng 2006), and a search
    # over all columns ends in dead ends; odd columns never do: two of them never sum to a third.
    every = range(1, num_runs)
    odd = [column for column in every if column.bit_count() % 2]
    found = [_search(num_factors, num_base, columns) for columns in (every, odd)]
    words, columns = min(partial for partial in found if partial is not None)
    resolution = next((length for length, count in enumerate(words) if count), None)
    assert (resolution is None) == (num_factors == num_base)
    return Fraction(columns, resolution)


Sums = list[list[int]]  # [j][x]: in how many ways j of the columns sum to x


def _search(num_factors: int, num_base: int, allowed: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Word counts by length, and columns; None where the beam runs into a dead end."""
    base = tuple(1 << index for index in range(num_base))
    sums: Sums = [[0] * 2**num_base for _ in range(min(num_factors, LONGEST_WORD) + 1)]
    sums[0][0] = 1
    for column in base:
        sums = _with_column(sums, column)
    beam = [((0,) * len(sums), base, sums)]
    for _ in range(num_factors - num_base):
        grown: dict[tuple[int, ...], tuple[tuple[int, ...], int, Sums]] = {}
        for words, columns, sums in beam:
            for column in allowed:
                if sums[1][column] or sums[2][column]:  # a word of length 2 or 3
                    continue
                key = base + tuple(sorted({*columns[num_base:], column}))
                new = (0, *(count + sums[size][column] for size, count in enumerate(words[1:])))
                grown.setdefault(key, (new, column, sums))
        best = sorted((words, columns) for columns, (words, _, _) in grown.items())[:BEAM]
        beam = [(words, key, _with_column(grown[key][2], grown[key][1])) for words, key in best]
    return min((words, columns) for words, columns, _ in beam) if beam else None


def _with_column(sums: Sums, column: int) -> Sums:
    return [sums[0]] + [
        [ways + sums[size - 1][value ^ column] for value, ways in enumerate(sums[size])] for size in range(1, len(sums))
    ]
