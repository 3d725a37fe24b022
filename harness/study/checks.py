"""What can be wrong with a study beyond its single parts: between changes, combinations, designs, profiles.

Also the way to see that at once with what is wrong in single parts: the sound rest of a study is checked, too.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import StudyError
from harness.names import suggestion
from harness.study.changes import Change, check_change, check_code, conflicts, edited, missing_needs
from harness.study.claimed import OF_CHANGES
from harness.study.designs.comparisons import BASELINE, combination_names, in_order
from harness.study.designs.registry import design_problems
from harness.study.study import Profile, Study
from harness.trainers.trainer import Location, Settings, SettingsError
from harness.trees import flatten


def study_problems(study: Study, *, declared: Collection[str], left_out: Sequence[Location]) -> list[str]:
    """What is wrong between the parts of a study, a sentence each; the parts by themselves are valid.

    Args:
        declared: every name of a change or combination in the file, those of wrong parts included.
        left_out: places of wrong parts that `pruned` left out; what depends on them is not judged.
    """
    doubtful = {str(place[1]) for place in left_out if place[0] == "baseline" and len(place) > 1}
    problems = [*_name_problems(study), *_baseline_problems(study, doubtful), *_reference_problems(study, declared)]
    problems += _nuisance_problems(study)
    if not left_out:
        problems += [f"designs: {problem}" for design in study.designs for problem in design_problems(study, design)]
    return problems


def _too_early(steps: Sequence[str], changes: Mapping[str, Change]) -> Iterator[str]:
    """Steps of a path before the one that they need, a sentence each."""
    for index, name in enumerate(steps):
        for needed in changes[name].needs if name in changes else ():
            if needed in steps[index + 1 :]:
                yield f"change {name!r} comes before {needed!r}, which it needs; put it after."


def _needs_problems(study: Study, known: Collection[str]) -> Iterator[str]:
    """Needs that nothing can meet, a sentence each."""
    declared = {change.name: change for change in study.changes}
    combined = {combination.name for combination in study.combinations}
    needs = study.needs()
    for change in declared.values():
        for needed in change.needs:
            if needed == change.name:
                yield f"change {change.name!r} needs itself; name the change without which it makes no sense."
            elif needed in combined:
                yield f"change {change.name!r} needs {needed!r}, a combination; needs names one change."
            elif needed not in known:
                hint = suggestion(needed, [it for it in known if it != change.name])
                yield f"change {change.name!r} needs {needed!r}, which no change of this study is called.{hint}"
        if circle := _circle(change.name, declared):
            if len(circle) > 1:
                yield f"change {change.name!r} stands on a circle of needs ({' > '.join(circle)})."
        elif change.name in needs:
            standing = [*needs[change.name], change]
            said = ", ".join(map(repr, change.needs))
            yield from (f"{why} Yet {change.name!r} needs {said}." for why in conflicts(standing))


def _merge_problems(study: Study, changes: Sequence[Change]) -> list[str]:
    try:
        edited(study.trainer, changes)
    except StudyError as error:
        return list(error.problems)
    return []


def _circle(name: str, declared: Mapping[str, Change]) -> list[str]:
    """The way from a change along needs to a change on that way, itself included; empty where there is none."""
    ways = [[name]]
    while ways:
        way = ways.pop()
        for needed in declared[way[-1]].needs if way[-1] in declared else ():
            if needed in way:
                return way
            ways.append([*way, needed])
    return []


def declared_names(tree: dict[str, Any]) -> set[str]:
    """The names of all changes and combinations in a file, valid or not."""
    entries = [entry for key in ("changes", "combinations") for entry in as_list(tree.get(key))]
    names = (entry.get("name") if isinstance(entry, dict) else entry for entry in entries)
    return {name for name in names if isinstance(name, str)}


def pruned(tree: dict[str, Any], locations: Sequence[Location]) -> dict[str, Any]:
    """A copy without what stands at these places: a single setting of the baseline, otherwise the whole entry of a
    list or mapping; name and title are made up where they are wrong."""
    baseline = [location for location in locations if location[0] == "baseline"]
    entries = {location[:2] for location in locations if len(location) > 1}
    wholes = {location[0] for location in locations if len(location) == 1}
    rest: dict[str, Any] = {"name": "unnamed", "title": "untitled"}
    for key, value in tree.items():
        if key == "baseline" and isinstance(value, dict):
            rest[key] = _without_settings(value, baseline)
        elif key in ("trainer", "baseline"):
            rest[key] = value
        elif isinstance(value, list) and key not in wholes:
            rest[key] = [entry for index, entry in enumerate(value) if (key, index) not in entries]
        elif isinstance(value, dict) and key not in wholes:
            rest[key] = {name: entry for name, entry in value.items() if (key, name) not in entries}
        elif key not in wholes:
            rest[key] = value
    return {key: value for key, value in rest.items() if key in ("trainer", "baseline") or value not in ([], {})}


def _without_settings(baseline: dict[str, Any], locations: Sequence[Location]) -> dict[str, Any]:
    tree: dict[Any, Any] = {branch: dict(it) if isinstance(it, dict) else it for branch, it in baseline.items()}
    for _, branch, *inside in locations:
        settings = tree.get(branch)
        leaf = next((part for part in inside if isinstance(settings, dict) and part in settings), None)
        if leaf is None:
            tree.pop(branch, None)
        else:
            del tree[branch][leaf]
    return tree


def as_list(value: Any) -> list[Any]:
    """A list as it is; anything else, which pydantic refuses by itself, as nothing."""
    return value if isinstance(value, list) else []


def _name_problems(study: Study) -> Iterator[str]:
    names = [change.name for change in study.changes] + [combination.name for combination in study.combinations]
    for repeated in sorted(name for name, count in Counter(names).items() if count > 1):
        yield f"changes: the name {repeated!r} stands more than once; each change and combination needs its own."
    named = combination_names(study)
    for combination in study.combinations:
        twin = named[in_order(study, combination.changes)]
        if twin != combination.name:
            yield f"combinations: {combination.name!r} and {twin!r} hold the same changes; take one of them out."


def _nuisance_problems(study: Study) -> Iterator[str]:
    for path, it in study.nuisance.items():
        for value in it.ends:
            try:
                study.baseline.override({path: value})
            except SettingsError as error:
                yield from (f"nuisance: {problem}" for problem in error.problems)


def _baseline_problems(study: Study, doubtful: Collection[str]) -> Iterator[str]:
    """Changes and profiles that do not fit the baseline, but for changes in branches that are wrong themselves."""
    needs = study.needs()
    for change in study.changes:
        needed = needs.get(change.name, ())
        touched = {path.partition(".")[0] for it in (change, *needed) for path in it.overrides}
        if not touched & set(doubtful) and not conflicts([*needed, change]):
            yield from (f"changes: {problem}" for problem in check_change(study.baseline, change, needed))
        yield from (f"changes: {it}" for it in check_code(study.trainer, study.baseline, change, needed))
    for name, profile in study.profiles.items():
        yield from (f"profiles: {name}: {problem}" for problem in _profile_problems(study.baseline, profile))


def _profile_problems(baseline: Settings, profile: Profile) -> list[str]:
    try:
        baseline.override(flatten(profile.overrides))
    except SettingsError as error:
        return list(error.problems)
    return []


def _reference_problems(study: Study, declared: Collection[str]) -> Iterator[str]:
    """Names that nothing declares, and combinations and paths of changes that cannot stand together, or not alone."""
    found = {change.name: change for change in study.changes}
    combinations = [("combinations", it.name, it.changes) for it in study.combinations]
    paths = [("paths", name, members) for name, members in study.paths.items()]
    changes = sorted(set(declared) - {name for _, name, _ in combinations} | set(found))
    needs = study.needs()
    wrong_code = {
        name for name, it in found.items() if check_code(study.trainer, study.baseline, it, needs.get(name, ()))
    }
    for kind, name, members in (*combinations, *paths):
        for member in members:
            if member not in changes:
                yield f"{kind}: {name}: unknown change {member!r}.{suggestion(member, changes)}"
        known = [found[member] for member in members if member in found]
        if len(known) == len(members) and not conflicts(known) and not wrong_code.intersection(members):
            yield from (f"{kind}: {name}: {why}" for why in _merge_problems(study, known))
        unknown = {it for change in known for it in change.needs} - set(changes)  # said of the change itself
        lacking = [change for change in known if not unknown.intersection(change.needs)]
        yield from (f"{kind}: {name}: {why}" for why in (*conflicts(known), *missing_needs(lacking)))
    for name, members in study.paths.items():
        yield from (f"paths: {name}: {why}" for why in _too_early(members, found))
    yield from (f"changes: {problem}" for problem in _needs_problems(study, changes))
    for name, profile in study.profiles.items():
        for member in set(profile.skip) - set(declared):
            yield f"profiles: {name}: skip: unknown change {member!r}.{suggestion(member, declared)}"
    yield from _published_problems(study, [BASELINE, *declared])
    yield from (f"claims: {problem}" for problem in _claims_problems(study, changes, [BASELINE, *declared]))


def _published_problems(study: Study, variants: Collection[str]) -> Iterator[str]:
    changes = [change.name for change in study.changes]
    for published in study.published:
        if published.variant not in variants:
            yield f"published: unknown variant {published.variant!r}.{suggestion(published.variant, variants)}"
        if problem := _metric_problem(study, published.metric):
            yield f"published: {problem}"
    for at, curve in enumerate(study.published_curves):
        parts = [] if curve.variant in variants else curve.variant.split("+")
        for name in parts:
            if name not in changes:
                yield f"published_curves[{at}]: unknown variant {name!r}.{suggestion(name, variants)}"
        ordered = in_order(study, parts)
        if set(parts) <= set(changes) and tuple(parts) != ordered:
            yield f"published_curves[{at}]: {curve.variant!r} is called {'+'.join(ordered)!r}, in the study's order."
        for name in curve.values:
            if problem := _metric_problem(study, name):
                yield f"published_curves[{at}]: {problem}"


def _claims_problems(study: Study, changes: Collection[str], variants: Collection[str]) -> Iterator[str]:
    counts = Counter(it.name for it in study.claims)
    yield from (f"the name {name!r} stands more than once." for name, count in counts.items() if count > 1)
    for claimed in study.claims:
        allowed = changes if claimed.says in OF_CHANGES else variants
        if claimed.of not in allowed:
            what = "change" if claimed.says in OF_CHANGES else "variant"
            yield f"{claimed.name}: unknown {what} {claimed.of!r}.{suggestion(claimed.of, allowed)}"
        elif claimed.says == "biggest" and (needs := _needs_of(study, claimed.of)):
            yield f"{claimed.name}: {claimed.of!r} needs {needs}, so it is compared with no other change alone."
        if claimed.than and claimed.than not in variants:
            yield f"{claimed.name}: unknown variant {claimed.than!r}.{suggestion(claimed.than, variants)}"
        if claimed.than == claimed.of:
            yield f"{claimed.name}: {claimed.of!r} is compared with itself."
        if claimed.metric and (problem := _metric_problem(study, claimed.metric)):
            yield f"{claimed.name}: {problem}"


def _needs_of(study: Study, name: str) -> str:
    found = next((it.needs for it in study.changes if it.name == name), ())
    return " and ".join(map(repr, found))


def _metric_problem(study: Study, metric: str) -> str:
    metrics = study.trainer.metrics.names
    known = f"There are: {', '.join(metrics)}."
    return "" if metric in metrics else f"unknown metric {metric!r}.{suggestion(metric, metrics)} {known}"
