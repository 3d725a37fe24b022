"""Hadamard matrices: square, entries 1 and -1, rows orthogonal. Pure arithmetic; the design made of one is in
`screening.py`.

Orders are reached by Sylvester's doubling and by Paley's two constructions over prime fields (Paley 1933; Hedayat,
Sloane & Stufken 1999, section 7.3). Up to 256 that is 1, 2 and every multiple of 4 but 52, 92, 100, 116, 156, 172, 184,
188, 232, 236 and 244; what needs one of these takes the next one that is reached.
"""

from collections.abc import Callable
from functools import cache
from math import isqrt

Matrix = tuple[tuple[int, ...], ...]
LARGEST = 512


def order_of(size: int) -> int:
    """The least order of at least `size` that is reached here.

    >>> [order_of(size) for size in (1, 2, 3, 12, 13, 41, 51, 200)]
    [1, 2, 4, 12, 16, 44, 56, 200]
    """
    assert 0 < size <= LARGEST
    return next(order for order in range(size, 2 * LARGEST) if _construction(order))


@cache
def hadamard(order: int) -> Matrix:
    """The matrix of an order that `order_of` gave; the first row and the first column are ones."""
    make = _construction(order)
    assert make is not None
    matrix = make()
    by_column = [[entry * first for entry, first in zip(row, matrix[0], strict=True)] for row in matrix]
    return tuple(tuple(entry * row[0] for entry in row) for row in by_column)


@cache
def _construction(order: int) -> Callable[[], Matrix] | None:
    """How a matrix of this order is made; None where none of these ways reaches it."""
    if order in (1, 2):
        return lambda: ((1, 1), (1, -1))[:order] if order == 2 else ((1,),)
    if order % 4:
        return None
    if _is_prime(order - 1):  # order - 1 is 3 modulo 4
        return lambda: _paley_one(order - 1)
    if _is_prime(order // 2 - 1) and order // 2 % 4 == 2:
        return lambda: _paley_two(order // 2 - 1)
    return (lambda: _doubled(hadamard(order // 2))) if _construction(order // 2) else None


def _doubled(half: Matrix) -> Matrix:
    """[[H, H], [H, -H]]: Sylvester 1867."""
    return (*((*row, *row) for row in half), *((*row, *(-it for it in row)) for row in half))


def _paley_one(q: int) -> Matrix:
    """Order q + 1, q prime and 3 modulo 4: I + S, where S is the conference matrix of squares modulo q, skew."""
    core = _bordered(q, skew=True)
    return tuple(tuple(entry + (row == column) for column, entry in enumerate(line)) for row, line in enumerate(core))


def _paley_two(q: int) -> Matrix:
    """Order 2 (q + 1), q prime and 1 modulo 4: in the symmetric conference matrix of squares modulo q, each zero
    becomes [[1, -1], [-1, -1]] and each other entry e becomes e [[1, 1], [1, -1]]."""
    rows: list[tuple[int, ...]] = []
    for line in _bordered(q, skew=False):
        rows.append(tuple(it for entry in line for it in ((entry, entry) if entry else (1, -1))))
        rows.append(tuple(it for entry in line for it in ((entry, -entry) if entry else (-1, -1))))
    return tuple(rows)


def _bordered(q: int, *, skew: bool) -> Matrix:
    """The conference matrix of order q + 1: zeros on the diagonal, 1 or -1 elsewhere, rows orthogonal."""
    squares = {number * number % q for number in range(1, q)}
    sign = -1 if skew else 1
    inner = [
        [0 if row == column else 1 if (row - column) % q in squares else -1 for column in range(q)] for row in range(q)
    ]
    return ((0, *[1] * q), *((sign, *line) for line in inner))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))
