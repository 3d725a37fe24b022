"""Least squares with features that one can add or leave out, fitted in closed form and judged by its error in degrees.

A metric that is minimized, in a unit of its own; the seed draws which days are measured.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

import harness


class Settings(BaseModel):
    """The settings of one fit: a pydantic model says what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(200, ge=20)
    harmonics: int = Field(1, ge=0, le=6)
    trend: bool = False
    ridge: float = Field(0.01, ge=0)
    noise: float = Field(2.0, ge=0)


def train(run: harness.Run) -> None:
    settings = run.settings
    random = np.random.default_rng(run.seed_for("days"))
    measured = temperatures(random, random.uniform(0, 10, settings.days), settings.noise)
    judged = {split: temperatures(random, random.uniform(0, 10, 2000), 0.0) for split in ("val", "test")}
    features, truth = design(measured[0], settings), measured[1]
    gram = features.T @ features + settings.ridge * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ truth)
    errors = {
        f"{split}/rmse": float(np.sqrt(np.mean((design(years, settings) @ weights - truth) ** 2)))
        for split, (years, truth) in judged.items()
    }
    run.log(1, **{"val/rmse": errors["val/rmse"]})
    run.finish(**{"test/rmse": errors["test/rmse"]})


def temperatures(random: np.random.Generator, years: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Times in years, and degrees: a season, half of it once more with twice the frequency, and a trend."""
    season = 8 * np.sin(2 * np.pi * years) + 2 * np.cos(4 * np.pi * years)
    return years, 10 + season + 0.3 * years + noise * random.standard_normal(len(years))


def design(years: np.ndarray, settings: Settings) -> np.ndarray:
    columns = [np.ones_like(years)]
    for k in range(1, settings.harmonics + 1):
        columns += [np.sin(2 * np.pi * k * years), np.cos(2 * np.pi * k * years)]
    return np.stack(columns + ([years] if settings.trend else []), axis=1)
