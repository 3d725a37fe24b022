"""Handwritten digits, by a small network written in numpy: the training of one cell, as a function.

`harness ablate --study digits.yaml` calls `train` for each variant and seed.
"""

import numpy as np
from sklearn.datasets import load_digits

import harness


def train(run: harness.Run) -> None:
    settings = run.settings
    images, labels = load_digits(return_X_y=True)
    images = images / 16.0 - (0.3 if settings.center else 0.0)
    parts = np.split(np.random.default_rng(0).permutation(len(images)), [1000, 1300])  # the same for all seeds
    fit, validation, test = ((images[part], labels[part]) for part in parts)

    weights, start = _start(run)
    for epoch in range(start, settings.epochs):
        order = np.random.default_rng(run.seed_for("order", epoch)).permutation(len(fit[0]))
        for batch in np.array_split(order, len(order) // settings.batch_size):
            _step(weights, fit[0][batch], fit[1][batch], settings.learning_rate, settings.weight_decay)
        run.log(
            epoch + 1,
            epoch=epoch + 1,
            **{"val/accuracy": _accuracy(weights, *validation), "val/loss": _loss(weights, *validation)},
        )
        with run.saving() as path:
            np.savez(path.open("wb"), epoch=epoch + 1, **weights)
        if run.should_stop:
            return
    run.finish(**{"test/accuracy": _accuracy(weights, *test)})


def _start(run: harness.Run) -> tuple[dict[str, np.ndarray], int]:
    """From the last checkpoint, or from the beginning."""
    saved = run.saved()
    if saved is not None:
        with np.load(saved) as state:
            weights = {name: state[name] for name in state if name != "epoch"}
            return weights, int(state["epoch"])
    random = np.random.default_rng(run.seed_for("weights"))
    hidden = run.settings.model.hidden
    return {
        "w1": random.normal(0, (2 / 64) ** 0.5, (64, hidden)),
        "b1": np.zeros(hidden),
        "w2": random.normal(0, (1 / hidden) ** 0.5, (hidden, 10)),
        "b2": np.zeros(10),
    }, 0


def _forward(weights: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    scores = hidden @ weights["w2"] + weights["b2"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def _step(weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, rate: float, decay: float) -> None:
    hidden, shares = _forward(weights, images)
    shares[np.arange(len(labels)), labels] -= 1
    errors = shares / len(labels)
    before = (errors @ weights["w2"].T) * (hidden > 0)
    steps = {"w1": images.T @ before, "b1": before.sum(0), "w2": hidden.T @ errors, "b2": errors.sum(0)}
    for name, step in steps.items():
        weights[name] -= rate * (step + decay * weights[name])


def _accuracy(weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> float:
    return float((_forward(weights, images)[1].argmax(axis=1) == labels).mean())


def _loss(weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(_forward(weights, images)[1][np.arange(len(labels)), labels] + 1e-12).mean())
