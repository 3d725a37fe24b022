"""What measures: the text and the evaluator. `fixed:` in the study, so that no change may edit it."""

from bisect import bisect

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz .,"
WORDS = (  # noqa: SIM905
    "the a one every no some old small quiet bright river mountain letter garden window teacher harbour engine winter "
    "morning sleeps writes carries follows remembers opens paints measures answers slowly often never together again "
    "under over beside without toward and but while because"
).split()
FIT, VALIDATION, TEST = 6_000, 3_000, 3_000  # letters


def text(part: str) -> np.ndarray:
    """Letters as numbers, the same for all seeds: sentences of these words, drawn by a chain of its own."""
    size = {"fit": FIT, "validation": VALIDATION, "test": TEST}[part]
    shares = np.random.default_rng(0).dirichlet(np.full(len(WORDS), 0.2), len(WORDS))  # which word follows which
    follows = [list(row) for row in shares.cumsum(axis=1)]
    draws = np.random.default_rng(sum(map(ord, part))).random((size, 2)).tolist()
    word, written = 0, ""
    for draw, end in draws:
        word = min(bisect(follows[word], draw), len(WORDS) - 1)
        written += WORDS[word] + (". " if end > 0.92 else ", " if end > 0.85 else " ")
        if len(written) >= size:
            break
    return np.array([LETTERS.index(it) for it in written[:size]])


def bits_per_letter(scores: np.ndarray, letters: np.ndarray) -> float:
    """Mean of -log2 of the share that softmax gives the letter that came. scores: (n, letters)."""
    scores = scores - scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(letters)), letters].mean() / np.log(2))
