"""The tree of runs that one manifest asks for: identities, names, tags; and the images of its variants and of itself.

The tags repeat what the nesting says, so that sorting and filtering work without it. Identities hold the store's own
id: two machines that run the same study against one server make two trees, and do not fight over one.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from harness.plan.manifest import Manifest, RunVariant
from harness.tracking.ledger import Known
from harness.tracking.places import STORE_TAG
from harness.tracking.run_image import (
    LONGEST_TAG,
    Artifact,
    Point,
    RunImage,
    RunStatus,
    fingerprint_tree,
    group_status,
    params,
    shortened,
)

PARENT_TAG = "mlflow.parentRunId"
STATES: Mapping[RunStatus, str] = {
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
}


@dataclass(frozen=True)
class Outline:
    """One manifest in one store."""

    manifest: Manifest
    store_id: str
    _keys: dict[tuple[str, ...], str] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def study_key(self) -> str:
        return self._key()

    def variant_key(self, variant: RunVariant) -> str:
        return self._key(variant.name)

    def cell_key(self, variant: RunVariant, cell_key: str) -> str:
        """The identity of the run that shows this cell in this variant; the same cell has one in every study."""
        return self._key(variant.name, cell_key)

    @cached_property
    def _manifest_artifact(self) -> Artifact:
        text = json.dumps(self.manifest.to_json(), indent=1)
        return Artifact("manifest.json", text, sha256(text.encode()).hexdigest()[:16])

    def cell_tags(self, variant: RunVariant, parent: str) -> dict[str, str]:
        return {**self._variant_tags(variant), "harness.kind": "cell", PARENT_TAG: parent}

    def variant_image(
        self,
        variant: RunVariant,
        runs: Mapping[str, Known],
        *,
        parent: str,
        is_live: bool,
        first_ms: int | None = None,
        points: Sequence[Point] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> RunImage:
        """Args:
        runs: what the ledger holds, by identity; cells that are not in it have not started.
        first_ms: when the first cell started, where no cell is in the ledger yet.
        settings: of its cells, where one of them has started.
        """
        shown = {**self._variant_tags(variant), PARENT_TAG: parent}
        if variant.summary:
            shown["mlflow.note.content"] = shortened(variant.summary, LONGEST_TAG)
        known = [runs.get(self.cell_key(variant, key)) for key in variant.cells.values()]
        return self._group(
            key=self.variant_key(variant),
            name=variant.name,
            known=known,
            is_live=is_live,
            first_ms=first_ms,
            tags=shown,
            params=params(settings or {}),
            points=tuple(points),
        )

    def study_image(
        self,
        runs: Mapping[str, Known],
        *,
        is_live: bool,
        first_ms: int | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> RunImage:
        command = self.manifest.command
        parts = (self.manifest.title, self.manifest.note, f"    {command}" if command else "")
        note = "\n\n".join(filter(None, parts))
        known = [
            runs.get(self.cell_key(variant, key))
            for variant in self.manifest.variants
            for key in variant.cells.values()
        ]
        return self._group(
            key=self.study_key,
            name=self.id,
            known=known,
            is_live=is_live,
            first_ms=first_ms,
            tags={
                **self._study_tags(),
                "mlflow.note.content": shortened(note, LONGEST_TAG),
                "mlflow.source.name": shortened(command or "harness", LONGEST_TAG),
                "mlflow.source.type": "LOCAL",
            },
            params=params(fingerprint_tree(self.manifest.fingerprints)),
            artifacts=(self._manifest_artifact, *artifacts),
        )

    def _group(
        self,
        *,
        known: Sequence[Known | None],
        is_live: bool,
        first_ms: int | None,
        tags: dict[str, str],
        **rest: Any,
    ) -> RunImage:
        status = group_status((it.state if it else "waiting" for it in known), is_live=is_live)
        started = [it for it in known if it]
        now = time.time_ns() // 1_000_000
        ends = [it.end_ms for it in started if it.end_ms]
        return RunImage(
            study_id=self.id,
            state=STATES[status],
            status=status,
            start_ms=min((it.start_ms for it in started), default=now if first_ms is None else first_ms),
            end_ms=None if status == "RUNNING" else max(ends, default=None),
            tags={**tags, "harness.status": STATES[status]},
            **rest,
        )

    def _study_tags(self) -> dict[str, str]:
        return {
            "harness.kind": "study",
            STORE_TAG: self.store_id,
            "harness.study": self.manifest.study,
            "harness.study_id": self.id,
            "harness.profile": self.manifest.profile,
            "harness.exploratory": json.dumps(self.manifest.exploratory),
            **{name: shortened(text, LONGEST_TAG) for name, text in self.manifest.tags.items()},
        }

    def _variant_tags(self, variant: RunVariant) -> dict[str, str]:
        return {
            **self._study_tags(),
            "harness.kind": "variant",
            "harness.variant": shortened(variant.name, LONGEST_TAG),
            "harness.changes": shortened("+".join(variant.changes), LONGEST_TAG),
            **variant.tags,  # of a search: its name and the trial's number
        }

    def _key(self, *parts: str) -> str:
        if parts not in self._keys:
            self._keys[parts] = sha256(json.dumps([self.store_id, self.id, *parts]).encode()).hexdigest()[:32]
        return self._keys[parts]
