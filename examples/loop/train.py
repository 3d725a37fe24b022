"""A character model: which letter comes next? Softmax regression on the letters before it, written in numpy."""

import numpy as np
import prepare

import harness

# Letters that it sees.
CONTEXT = 2
# Steps of gradient descent.
STEPS = 150
# Letters a step.
BATCH = 12
# How far a step goes.
RATE = 5.0
# Spread of the weights at the beginning.
SCALE = 0.1
# What the weights lose at each step.
DECAY = 0.0
# The share of letters that it does not see.
UNSEEN = 0.0
# What the letters that did not come get of the target.
SMOOTHING = 0.0
# Steps between two validations.
EVERY = 50
# Keeps a logarithm finite.
TINY = 1e-12
# How letters are kept.
KIND = np.int64


def train(run: harness.Run) -> None:
    fit, size = prepare.text("fit"), len(prepare.LETTERS)
    # Where it begins.
    start = np.random.default_rng(run.seed_for("weights"))
    # Axes: which letter before, its number, the next one's number.
    weights = SCALE * start.normal(size=(CONTEXT, size, size))
    # No letter is likelier than another.
    bias = np.zeros(size)

    draws = np.random.default_rng(run.seed_for("batches"))

    for step in range(1, STEPS + 1):
        places = draws.integers(CONTEXT, len(fit), BATCH)
        # One row for each letter before.
        before = letters_before(fit, places)

        seen = draws.random(before.shape) >= UNSEEN
        # What it expects.
        shares = softmax(scores(weights, bias, before, seen))

        target = (1 - SMOOTHING) * np.eye(size)[fit[places]] + SMOOTHING / size
        # Of the cross-entropy.
        error = (shares - target) / BATCH

        for position in range(CONTEXT):
            part = error * seen[position][:, None]
            # The same letter may stand in several rows.
            np.add.at(weights[position], before[position], -RATE * part)

        weights *= 1 - DECAY
        # The bias forgets nothing.
        bias -= RATE * error.sum(axis=0)

        if step % EVERY == 0 or step == STEPS:
            run.log(step, **{"val/bits": measure(weights, bias, "validation")})

    run.finish(**{"test/bits": measure(weights, bias, "test")})


def letters_before(text: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(CONTEXT, places): the letter before each place, the one before that, and so on."""
    rows = [text[places - back] for back in range(1, CONTEXT + 1)]
    # Whole numbers.
    return np.stack(rows).astype(KIND)


def scores(weights: np.ndarray, bias: np.ndarray, before: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(places, letters): how much speaks for each letter."""
    total = np.tile(bias, (before.shape[1], 1))
    # Each letter before adds its own.
    for table, letters, is_seen in zip(weights, before, seen, strict=True):
        found = table[letters]
        # Unseen letters say nothing.
        total += found * is_seen[:, None]

    return total


def softmax(values: np.ndarray) -> np.ndarray:
    """Rows that sum to 1."""
    shifted = values - values.max(axis=1, keepdims=True)
    # Nothing above 1.
    powers = np.exp(shifted)

    return powers / (powers.sum(axis=1, keepdims=True) + TINY)


def measure(weights: np.ndarray, bias: np.ndarray, part: str) -> float:
    text = prepare.text(part)
    # Every place that has enough letters before it.
    places = np.arange(CONTEXT, len(text))

    before = letters_before(text, places)
    # All of them are seen.
    seen = np.ones(before.shape, dtype=bool)

    return prepare.bits_per_letter(scores(weights, bias, before, seen), text[places])
