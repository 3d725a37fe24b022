"""What a report says beside tables and figures: what to beware of, how it was measured, and where it comes from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.plan.manifest import EARLIER, GREEDY
from harness.plan.registration import departures
from harness.report.tables import INTERACTIONS, Tables, rows_of
from harness.report.wording import format_seconds
from harness.stats.overview import comparability_problems, ignores_seed, percent_problems
from harness.stats.sentences import CHECKPOINT_RULE, HELD, VARIED, report_line
from harness.stats.wording import describe_cells, describe_seeds
from harness.store.result import REFUSED
from harness.texts import counted
from harness.trees import flatten

AUTO = "auto"  # a setting that means what the machine makes of it, so that it cannot differ from what was declared


def warnings(tables: Tables) -> list[str]:
    """What the reader must know before any number: smallness, missing cells, mixed conditions; a sentence each."""
    found = []
    manifest = tables.manifest
    found += exploratory_reasons(tables)
    found += _missing(tables.variants)
    found += _refused(tables.results)
    found += comparability_problems(tables.results)
    found += [f"{note[:1].upper()}{note[1:]}" for note in manifest.notes]
    return found


def exploratory_reasons(tables: Tables) -> list[str]:
    """Why nothing is claimed, or the numbers are not what they look like; a sentence each."""
    manifest = tables.manifest
    found = [it for it in (ignores_seed(tables.results), *percent_problems(tables.results)) if it]
    if manifest.metrics.is_exploratory:
        found.append(
            f"Exploratory: {manifest.metrics.reporting.words} both chooses and is reported, and the number that was "
            "used to choose is too good on average. Let another metric, such as one on validation data, select."
        )
    elif manifest.exploratory:
        found.append(
            f"Exploratory: the profile {manifest.profile!r} is too small for conclusions. It shows what to run in "
            "full, not what to claim."
        )
    return found


def _missing(variants: pd.DataFrame) -> list[str]:
    rows = [row for row in rows_of(variants) if row.n_ok < row.n]
    if not rows:
        return []
    num_missing = sum(row.n - row.n_ok for row in rows)
    names = describe_cells([f"{row.variant} ({row.outcomes})" for row in rows], limit=8)
    return [
        f"{num_missing} of {sum(variants['n'])} cells have no number: {names}. Effects use complete pairs only and say "
        "so; a cell that a change made fail is an outcome of that change."
    ]


def _refused(results: pd.DataFrame) -> list[str]:
    rows = rows_of(results[results["status"] == REFUSED])
    if not rows:
        return []
    named = describe_cells([f"{row.variant} seed {row.seed}" for row in rows], limit=8)
    return [
        f"{counted(len(rows), 'result')} of these cannot be believed, and no number of theirs is used: {named}. "
        f"The first: {rows[0].reason}"
    ]


def deviations(tables: Tables) -> str:
    """In which settings this run's baseline differs from the study's as declared; empty where in none."""
    used = flatten(tables.manifest.baseline)
    declared = flatten(tables.manifest.declared or tables.manifest.baseline)
    names = [name for name in {**declared, **used} if declared.get(name) != AUTO]
    differing = [name for name in names if declared.get(name) != used.get(name)]
    return "; ".join(f"{name} {_said(used, name)} instead of {_said(declared, name)}" for name in differing)


def _said(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "none")
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def methods(tables: Tables) -> str:
    """The paragraph to paste: the biggest improvement (or the first effect) with everything that rule 12 asks for; then
    what was planned, how often it was looked at, what was missing, and which claims of the whole study run stand."""
    family = tables.main_family
    if family is None:
        return ""
    manifest = tables.manifest
    change = tables.headline.variant or str(family.effects["variant"].iloc[0])
    line = report_line(
        family.effects,
        change,
        tables.results,
        checkpoint_rule=manifest.checkpoint_rule or CHECKPOINT_RULE,
        varied=manifest.varied or VARIED,
        held=manifest.held or HELD,
        examples=tables.example_effect(*family.sides[change]),
    )
    return " ".join([line, *_of_the_run(tables)])


def _of_the_run(tables: Tables) -> Iterator[str]:
    manifest, effects = tables.manifest, tables.effects
    seeds = f"{manifest.horizon} seeds were" if manifest.horizon else "No number of seeds was"
    yield f"{seeds} declared before the first cell."
    if manifest.frozen:
        done = "; ".join(departures(manifest, _ended(tables)))
        yield f"What is tested was written down beforehand ({manifest.frozen['time']}); done {done or 'as planned'}."
    else:
        yield "What is tested was not written down beforehand."
    looks = [str(len(it.seeds)) for it in manifest.looks]
    error = ".055" if any(len(it.seeds) > manifest.horizon for it in manifest.looks) else ".05"
    share = f", which share one error of {error}" if len(looks) > 1 and manifest.horizon else ""
    at = f"{len(looks)} times, at {', '.join(looks)} seeds{share}" if len(looks) > 1 else "once"
    yield f"The effects were looked at {at}."
    if before := [it.label for it in manifest.comparisons if it.design == EARLIER]:
        yield f"Edited after a look, and compared as it was before, too: {describe_cells(before, limit=12)}."
    tested = effects[effects["design"] != GREEDY]
    if len(tested):
        designs = tested["design"].nunique()
        over, by = int(tested["corrected_over"].iloc[0]), tested["correction"].iloc[0]
        acting = ", interactions included," if INTERACTIONS in tables.acting_together else ""
        named = f"{designs} designs" if designs > 1 else "one design"
        many = f"All {over} comparisons of {named}{acting} are corrected together ({by})."
        yield many if over > 1 else "There is one comparison, so that nothing is to be corrected for others."
    lost = int((tables.variants["n"] - tables.variants["n_ok"]).sum())
    yield f"{lost} of {int(tables.variants['n'].sum())} cells have no number." if lost else "No cell is missing."
    claimed = effects[effects["verdict"].isin(CLAIMS)].drop_duplicates(["variant", "reference"])
    said = [f"{row.change} {_VERBS[row.verdict]} {row.reference}" for row in rows_of(claimed)]
    yield f"Claims that stand: {describe_cells(said, limit=12)}; no other." if said else "No claim stands."


# What stands after correction, and how a sentence says it.
_VERBS = {"improves": "improves on", "hurts": "is worse than", "equivalent": "is equivalent to"}
CLAIMS = tuple(_VERBS)


def _ended(tables: Tables) -> list[int]:
    results = tables.results
    return sorted(int(seed) for seed in results.loc[results["status"] != "missing", "seed"].unique())


def provenance(tables: Tables) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value); everything that differs between cells is listed."""
    results, manifest = tables.results, tables.manifest
    cells = results.drop_duplicates("key")
    finished = cells[cells["status"] == "finished"]
    commits = finished["commit"].astype(str).str.slice(0, 12).replace("", "none")
    commits = commits + finished["dirty"].map({True: " with uncommitted edits", False: ""}).astype(str)
    rows = [
        ("study run", f"{manifest.id} (profile {manifest.profile})"),
        *([("note", manifest.note)] if manifest.note else []),
        *([("tags", ", ".join(f"{name}={text}" for name, text in manifest.tags.items()))] if manifest.tags else []),
        ("command", manifest.command),
        ("cells", f"{len(finished)} of {len(cells)} finished"),
        ("seeds", describe_seeds(sorted(results["seed"].unique()))),
        ("cost", f"{format_seconds(float(cells['seconds'].sum()))} of training"),
        ("device", _listed(finished["device"])),
        *_noted(finished, "precision", "threads"),
        ("versions", _listed(finished["versions"])),
        ("commit", _listed(commits)),
        *_noted(finished, "data_fingerprint"),
        *_code(tables),
        *_planned(tables),
        ("last cell finished", max(finished["finished_at"], default="")),
    ]
    if differing := deviations(tables):
        rows.append(("differs from the study as declared", differing))
    return [(name, value or "none recorded") for name, value in rows]


def _planned(tables: Tables) -> list[tuple[str, str]]:
    """How the study run was planned, looked at, and done otherwise."""
    manifest = tables.manifest
    ended = _ended(tables)
    rows = [("varied between seeds", manifest.varied or VARIED), ("held constant", manifest.held or HELD)]
    rows.append(
        ("horizon", f"{manifest.horizon} seeds, declared before the first cell" if manifest.horizon else "none")
    )
    looks = [f"{it.time[:16]} at {len(it.seeds)} seeds" for it in manifest.looks]
    rows.append(("looks at the effects", "; ".join(looks) or "this one"))
    if manifest.frozen:
        said = f"frozen at {manifest.frozen['time']}, hash {manifest.frozen['hash']}"
        said += f", hypothesis: {manifest.frozen['hypothesis']}" if manifest.frozen["hypothesis"] else ""
        rows += [("plan", said), ("done as planned", "; ".join(departures(manifest, ended)) or "as planned")]
    return rows


def _code(tables: Tables) -> list[tuple[str, str]]:
    """Of training that is not the harness's own: which code, and what `harness try` found of it."""
    code = tables.manifest.fingerprints.get("sources")
    if code is None:
        return [("training, as tried", "; ".join(tables.tried))] if tables.tried else []
    pinned = code.removeprefix("pinned:")
    said = (
        code if pinned == code else f"pinned as {pinned!r} by the study itself: edits of the code were not looked for"
    )
    return [
        ("sources", said),
        ("training, as tried", "; ".join(tables.tried) or "not tried: `harness try` was not run"),
    ]


def _noted(finished: pd.DataFrame, *facts: str) -> list[tuple[str, str]]:
    """One line for the facts that training noted of its cells; none where it noted none of them."""
    noted = [name for name in facts if name in finished.columns]
    if not noted:
        return []
    said = finished[noted].astype("str").agg(", ".join, axis="columns") if len(finished) else pd.Series(dtype="str")
    return [(", ".join(noted).replace("_", " "), _listed(said))]


def _listed(column: "pd.Series[str]") -> str:
    values: Sequence[str] = sorted(column.astype(str).unique())
    return " | ".join(value or "not recorded" for value in values)
