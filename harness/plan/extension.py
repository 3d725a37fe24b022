"""How a study run grows: one manifest for two plans of it, whatever was renamed or edited between the two.

Who edits a change after a look has tried two, and whoever chooses among attempts has tested them all. So what was
looked at stays among the comparisons of the study run, in the design EARLIER. No file is read or written here.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from harness.plan.manifest import EARLIER, GREEDY, Manifest, RunComparison, RunVariant

EDITED = "~"  # kernel-7~1 is what kernel-7 was before its first edit; no change can be called so
_OF_NO_PAIRS = ("screening", "fractional")  # their effects are contrasts of all of their variants


def extended(known: Manifest, added: Manifest, *, declared: Collection[str] | None = None) -> Manifest:
    """One manifest for two plans of the same study run: all variants, seeds and comparisons of both.

    Where a variant has other settings than before (its change was edited), its earlier cells are another variant's.
    What was looked at of that one stays compared, under its name with the number of the edit. What nobody has looked
    at is dropped from the manifest; its cells stay in the folder. A variant that has another name now has that one.

    Args:
        declared: the names of all changes that the study has now; by default no change was renamed.
    """
    assert known.id == added.id
    before = with_edits(_called_alike(known, added), added)
    if declared is not None:
        before = _with_changes_renamed(before, added, declared)
    variants = {it.name: it for it in before.variants}
    for it in added.variants:
        found = variants.get(it.name)
        cells = dict(sorted({**(found.cells if found else {}), **it.cells}.items()))
        variants[it.name] = replace(it, cells=cells, tags={**(found.tags if found else {}), **it.tags})
    return replace(
        added,
        variants=tuple(variants.values()),
        comparisons=tuple(dict.fromkeys((*before.comparisons, *added.comparisons))),
        notes=tuple(dict.fromkeys((*known.notes, *added.notes))),
        horizon=known.horizon if known.comparisons else added.horizon,  # declared first, or never
        looks=known.looks,
        frozen=known.frozen or added.frozen,
        tags={**known.tags, **added.tags},
        note=added.note or known.note,
    )


def _called_alike(known: Manifest, added: Manifest) -> Manifest:
    """A variant that was called by all of its changes has the name that they have in `added`."""
    called = {it.changes: it.name for it in added.variants}
    joined = [it for it in known.variants if it.changes and it.name == "+".join(it.changes)]
    return _with_names(known, {it.name: called.get(it.changes, it.name) for it in joined})


def _with_changes_renamed(known: Manifest, added: Manifest, declared: Collection[str]) -> Manifest:
    """A change that is declared no more has the name of a new one of its settings; in combinations, too."""
    names = {it.name for it in known.variants}
    new = {it.settings: it.name for it in added.variants if len(it.changes) == 1 and it.name not in names}
    gone = [it for it in known.variants if len(it.changes) == 1 and it.name not in declared]
    changes = {it.name: new[it.settings] for it in gone if it.settings in new}
    variants = [replace(it, changes=tuple(changes.get(one, one) for one in it.changes)) for it in known.variants]
    joined = [it.name for it in known.variants if it.changes and it.name == "+".join(it.changes)]
    renamed = {it.name: "+".join(it.changes) for it in variants if it.name in joined}
    return _with_names(replace(known, variants=tuple(variants)), renamed)


def _with_names(known: Manifest, names: Mapping[str, str]) -> Manifest:
    """With other names of variants; a comparison that was called by one is called by the new one."""
    return replace(
        known,
        variants=tuple(replace(it, name=names.get(it.name, it.name)) for it in known.variants),
        comparisons=tuple(
            RunComparison(it.design, *(names.get(name, name) for name in (it.label, it.variant, it.reference)))
            for it in known.comparisons
        ),
    )


def with_edits(known: Manifest, added: Manifest) -> Manifest:
    """Variants that have other settings in `added` are there no more, but for what was looked at."""
    now = {it.name: it.settings for it in added.variants}
    edited = [it for it in known.variants if now.get(it.name, it.settings) != it.settings]
    if not edited:
        return known
    earlier = {it.name: _numbered(it.name, known) for it in edited if it.settings}  # 0.1 did not say them
    compared = dict.fromkeys(known.comparisons)
    for it in known.comparisons:
        sides = [earlier.get(name, name) for name in (it.variant, it.reference)]
        if sides == [it.variant, it.reference]:
            continue
        if it.design == EARLIER:
            del compared[it]  # what was there before the edit is not compared with what is there now
        if _was_seen(known, it):
            compared[_comparison_before(*sides)] = None
    kept = {name for it in compared for name in (it.variant, it.reference)}
    variants = {it.name: it for it in known.variants if it not in edited}
    variants |= {earlier[it.name]: _before_its_edit(it, earlier) for it in edited if earlier.get(it.name) in kept}
    for name in list(variants):
        origin = name.rpartition(EDITED)[0]
        if now.get(origin) == variants[name].settings:  # edited, and back
            compared = {it: None for it in compared if name not in (it.variant, it.reference)}
            variants[origin] = replace(variants.pop(name), name=origin)
    return replace(known, variants=tuple(variants.values()), comparisons=tuple(compared))


def _numbered(name: str, known: Manifest) -> str:
    """The name of what this variant was before the edit that is its next."""
    edits = (it.name.rpartition(EDITED) for it in known.variants)
    return f"{name}{EDITED}{1 + max((int(number) for origin, _, number in edits if origin == name), default=0)}"


def _before_its_edit(variant: RunVariant, earlier: Mapping[str, str]) -> RunVariant:
    """Its changes are other ones than those of now: the edited ones that stood alone, too, or else all."""
    name = earlier[variant.name]
    number = name.rpartition(EDITED)[2]
    marked = [it for it in variant.changes if it in earlier] or variant.changes
    changes = tuple(earlier.get(it, f"{it}{EDITED}{number}") if it in marked else it for it in variant.changes)
    return replace(variant, name=name, changes=changes, summary=f"{variant.summary} (before an edit)")


def _was_seen(known: Manifest, found: RunComparison) -> bool:
    """Whether a look may have shown a tested comparison of pairs: both sides have cells of a seed that it saw."""
    held = {it.name: it.cells.keys() for it in known.variants}
    shared = held.get(found.variant, set()) & held.get(found.reference, set())
    is_tested = found.design != GREEDY and found.design.partition(":")[0] not in _OF_NO_PAIRS
    return is_tested and any(shared.intersection(look.seeds) for look in known.looks)


def _comparison_before(variant: str, reference: str) -> RunComparison:
    label = variant if reference == "baseline" else f"{variant} over {reference}"
    return RunComparison(EARLIER, label, variant, reference)
