"""A study written out: one tree that says everything, as `harness show` prints it. Reading is in `load.py`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.study.load import TRAINER_KEYS, read_composed, study_of
from harness.study.study import Study
from harness.trainers.trainer import SettingsError
from harness.trees import overlaid


def resolved_study(name_or_path: str | Path) -> dict[str, Any]:
    """A study as one tree, to be written as YAML: what it extends, lists of values and names of changes written out,
    and every setting of the baseline with its value.

    In the folder of the study's file the tree plans the same cells, under the same keys.

    Raises:
        StudyError: there is no such study, or it is wrong.
    """
    composed = read_composed(name_or_path)
    study = study_of(composed)
    trainer = {key: composed.tree[key] for key in TRAINER_KEYS if key in composed.tree}
    if isinstance(trainer.get("trainer"), Mapping) and composed.root.resolve() != composed.path.parent.resolve():
        root = composed.root / str(trainer["trainer"].get("root", "."))
        trainer["trainer"] = {**trainer["trainer"], "root": os.path.relpath(root, composed.path.parent)}
    trainer["baseline"] = _baseline(study, composed.tree.get("baseline", {}))
    head = {"name": study.name, "title": study.title} | ({"source": study.source} if study.source else {})
    return head | trainer | _parts(study)


def _baseline(study: Study, written: Mapping[str, Any]) -> Mapping[str, Any]:
    """All settings, with the bounds and choices that are written; as it is written where that would say another thing,
    such as with a settings model whose fields go by other names."""
    whole = overlaid(study.baseline.tree(), written)
    try:
        return whole if study.trainer.parse(whole) == study.baseline else written
    except SettingsError:
        return written


def _parts(study: Study) -> dict[str, Any]:
    parts = {
        "changes": [_said(it) for it in study.changes],
        "combinations": [_said(it) for it in study.combinations],
        "paths": {name: list(steps) for name, steps in study.paths.items()},
        "designs": list(study.designs),
        "profiles": {name: {"seeds": it.seeds} | _said(it) for name, it in study.profiles.items()},
        "published": [_said(it) for it in study.published],
        "claims": [_said(it) for it in study.claims],
        "published_curves": [_said(it) for it in study.published_curves],
        "nuisance": {path: _said(it) for path, it in study.nuisance.items()},
        "tags": dict(study.tags),
        "note": study.note,
    }
    return {name: part for name, part in parts.items() if part}


def _said(part: Any) -> dict[str, Any]:
    """A part's values but those that are the default."""
    said: dict[str, Any] = part.model_dump(mode="json", exclude_defaults=True)
    return said
