"""From a range of commits to changes: which commits are one, what each needs, which are left out and why.

Found by trying: each commit's edit is merged into the code of the range's beginning, alone and with others before it.
No file is written and nothing is trained; the text of a study is `studying.py`'s matter.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from harness.errors import StudyError
from harness.texts import shortened
from harness.trainers.code import fixed_names
from harness.trainers.git import Logged
from harness.trainers.sources import Sources
from harness.trainers.trainer import Edit
from harness.trainers.user import UserTrainer

LONGEST_NAME = 40
SHOWN = 10  # digits of a commit
UNREAD = "edits nothing that training reads"


@dataclass(frozen=True)
class Found:
    """A change that was found in a history.

    Attributes:
        name: kebab-case, from the subject of its first commit. commits: whole hashes, in order.
        needs: names of the changes that it needs directly; what those need is not repeated.
    """

    name: str
    summary: str
    commits: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def edit(self) -> Edit:
        return Edit(self.name, self.commits)


@dataclass(frozen=True)
class History:
    """What `read_history` gives.

    Attributes:
        left_out: commits that are no change, or no part of one, each with the reason.
        kept: names of the changes that the tip's history holds; all, but where a loop's log names discarded commits.
        notes: what else whoever reads the study should know, a sentence each.
    """

    changes: tuple[Found, ...]
    left_out: tuple[tuple[Logged, str], ...]
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Key = Callable[
    [Logged, Collection[str]], str
]  # commit and the names of the files that it touches: of which group it is


def grouping(text: str) -> Key:
    """How commits are grouped: `commit` (each by itself), `trailer:KEY`, `message:REGEX` (by what its first group, or
    all of it, matches in the subject) or `path` (by the first folder, or file, that they touch).

    Raises:
        StudyError: none of these.
    """
    kind, _, argument = text.partition(":")
    if kind == "commit" and not argument:
        return lambda it, names: it.commit
    if kind == "path" and not argument:
        return lambda it, names: min(name.partition("/")[0] for name in names) if names else it.commit
    if kind == "trailer" and argument:
        return lambda it, names: it.trailers.get(argument.lower(), it.commit)
    if kind == "message" and argument:
        try:
            pattern = re.compile(argument)
        except re.error as error:
            raise StudyError(f"--by {text}: {argument!r} is no regular expression ({error}).") from None
        return lambda it, names: _matched(pattern, it)
    raise StudyError(f"--by {text}: expected commit, path, trailer:KEY or message:REGEX.")


def _matched(pattern: "re.Pattern[str]", it: Logged) -> str:
    found = pattern.search(it.subject)
    return (found[1] if pattern.groups else found[0]) or it.commit if found else it.commit


def read_history(trainer: UserTrainer, commits: Sequence[Logged], tip: str, *, by: Key) -> History:
    """The changes of a range.

    A commit is left out where it is a merge, is taken back within the range, edits what is fixed, or leaves what
    training reads as it is; one that only prepares for another, such as by a file that nobody reads yet, becomes a part
    of that one. A change needs others where without them its edit does not merge, does nothing, or uses a
    name that it uses in its own commit and that only they bring.

    Args:
        trainer: with the code of the commit that the range begins after.
        commits: the range, each after its parents; several histories that begin there, where some were discarded. A
            merge is a change where it has one parent here: what it brings to that one.
        tip: the commit that counts as the last one.
    """
    left_out = _taken_back(commits)
    for it in commits:
        if it.commit not in left_out and (why := _why_not(trainer, it)):
            left_out[it.commit] = why
    preparing = [it.commit for it in commits if left_out.get(it.commit) == UNREAD]
    tries = _Tries(trainer, preparing, [it.commit for it in commits], _pasts(commits))
    num_unmerged = 0
    for name, members in _groups(trainer, [it for it in commits if it.commit not in left_out], by).items():
        found = Found(name, shortened(members[0].subject, 200) or name, tuple(it.commit for it in members))
        if problem := tries.add(found):
            left_out |= dict.fromkeys(found.commits, problem)
            num_unmerged += problem != UNREAD
    for found in tries.changes.values():
        for commit in found.commits:
            left_out.pop(commit, None)
    listed = tuple((it, left_out[it.commit]) for it in commits if it.commit in left_out)
    past = tries.in_past_of([tip])
    kept = tries.that_merge(past)
    notes = tries.compared_with(tip, kept)
    if len(kept) < len(past):
        lost = [name for name in past if name not in kept]
        notes.append(f"{', '.join(lost)}: do not merge with all before them, so they are changes by themselves alone.")
    if (num_unmerged or len(kept) < len(past)) and any(len(it.parents) > 1 for it in commits):
        notes.append(
            "What a merge resolved by hand is in no commit's own edit, so that what stands on it does not merge here; "
            "--first-parent takes each step of the main line as it is, a merge with all that it brought."
        )
    return History(tuple(tries.changes.values()), listed, tuple(kept), tuple(notes))


def _pasts(commits: Sequence[Logged]) -> dict[str, frozenset[str]]:
    """Each commit with all of the range that it stands on, itself among them."""
    pasts: dict[str, frozenset[str]] = {}
    for it in commits:
        pasts[it.commit] = frozenset((it.commit,)).union(*(pasts.get(parent, ()) for parent in it.parents))
    return pasts


def _taken_back(commits: Sequence[Logged]) -> dict[str, str]:
    """Commits that other ones take back, and those, with the reason; one that is brought back is there again."""
    out: dict[str, str] = {}
    reverts: dict[str, str] = {}
    for it in commits:
        whole = next((other.commit for other in commits if it.reverts and other.commit.startswith(it.reverts)), "")
        if not whole:
            continue
        reverts[it.commit] = whole
        if whole in reverts:
            out.pop(reverts[whole], None)
            out[it.commit] = f"brings {reverts[whole][:SHOWN]} back, which stands for it"
        else:
            out[it.commit] = f"reverts {whole[:SHOWN]}"
            out[whole] = f"is reverted by {it.commit[:SHOWN]}"
    return out


def _why_not(trainer: UserTrainer, it: Logged) -> str:
    """Why a commit by itself is no change; empty where it is one."""
    if len(it.parents) > 1:
        return "is a merge; the commits that it merged stand for themselves"
    touched = trainer.touched(Edit(it.commit[:SHOWN], (it.commit,)), allows_fixed=True)
    if fixed := dict(fixed_names(touched, trainer.fixed)):
        return (
            f"edits {', '.join(fixed)}, which {'are' if len(fixed) > 1 else 'is'} fixed: what measures stays the same"
        )
    after, before = _sources(trainer, it.commit), _sources(trainer, it.parents[0]) if it.parents else None
    if after and before and after.fingerprint == before.fingerprint:
        return UNREAD
    return ""


def _sources(trainer: UserTrainer, commit: str) -> Sources | None:
    """The code of a commit; None where it cannot be read."""
    try:
        return trainer.at(commit).sources
    except StudyError:
        return None


def _groups(trainer: UserTrainer, commits: Sequence[Logged], by: Key) -> dict[str, list[Logged]]:
    """Commits that are one change, by its name, in the order of the first of each."""
    groups: dict[str, list[Logged]] = {}
    for it in commits:
        names = trainer.touched(Edit(it.commit[:SHOWN], (it.commit,)))
        groups.setdefault(by(it, names), []).append(it)
    named: dict[str, list[Logged]] = {}
    for key, members in groups.items():
        text = members[0].subject if len(members) == 1 or key == members[0].commit else key
        named[change_name(text, members[0].commit, named)] = members
    return named


def change_name(text: str, commit: str, taken: Collection[str]) -> str:
    """A change's name from what people wrote: as many of its words as fit; a number where it is taken.

    >>> change_name("Use SwiGLU (x2) in the MLP", "0" * 40, ["use-swiglu-x2-in-the-mlp"])
    'use-swiglu-x2-in-the-mlp-2'
    """
    words = re.findall(r"[a-z0-9]+(?:\.[0-9]+)*", text.lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}".strip("-")
        if len(longer) > LONGEST_NAME:
            break
        name = longer
    name = name if name and name != "baseline" else f"commit-{commit[:SHOWN]}"
    tries = (name, *(f"{name}-{count}" for count in range(2, len(taken) + 3)))
    return next(it for it in tries if it not in taken)


@dataclass
class _Tries:
    """Changes that were found so far, in order, and what was tried.

    Attributes:
        order: all commits of the range; pasts: what each stands on, itself among them.
        preparing: commits that do nothing by themselves, and belong to no change yet.
        below: all that a change stands on.
    """

    trainer: UserTrainer
    preparing: list[str]
    order: list[str]
    pasts: dict[str, frozenset[str]]
    changes: dict[str, Found] = field(default_factory=dict)
    below: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, found: Found) -> str:
        """Adds a change with what it needs; or says why it cannot stand even on all before it."""
        needed = self._needed(found)
        if isinstance(needed, str):
            found, needed = self._prepared(found), self._needed(self._prepared(found))
        if isinstance(needed, str):
            return needed
        self.preparing = [it for it in self.preparing if it not in found.commits]
        self.below[found.name] = frozenset(needed)
        direct = tuple(it for it in needed if not any(it in self.below[other] for other in needed))
        self.changes[found.name] = Found(found.name, found.summary, found.commits, direct)
        return ""

    def _needed(self, found: Found) -> list[str] | str:
        """The fewest changes on which this one stands, as far as leaving them out one by one finds; or the problem."""
        if not self._problem(found, []):
            return []
        every = self.in_past_of(found.commits)
        if (problem := self._problem(found, every)) and (
            problem := self._problem(found, every := self.that_merge(every))
        ):
            return problem
        files = {name: self.trainer.touched(it.edit) for name, it in self.changes.items()}
        near = self._whole(name for name in every if files[name] & self.trainer.touched(found.edit))
        needed = near if not self._problem(found, near) else every
        for name in reversed(needed):
            rest = [it for it in needed if it != name and name not in self.below[it]]
            if name in needed and not self._problem(found, rest):
                needed = rest
        return needed

    def _prepared(self, found: Found) -> Found:
        """A change with the commits before it that did nothing but prepare for what it reads."""
        own = _sources(self.trainer, found.commits[-1])
        reads = own.files.keys() if own else frozenset()
        before = [it for it in self.preparing if it in self.pasts[found.commits[0]]]
        parts = [it for it in before if self.trainer.touched(Edit(it[:SHOWN], (it,))) & reads]
        return Found(found.name, found.summary, (*parts, *found.commits))

    def in_past_of(self, commits: Collection[str]) -> list[str]:
        """Names of the changes of which some commit is one of these, or one that they stand on."""
        past = frozenset().union(*(self.pasts[it] for it in commits))
        return [name for name, it in self.changes.items() if past & {*it.commits}]

    def that_merge(self, names: Sequence[str]) -> list[str]:
        """These changes without those that do not merge with the ones before them, and without what needs those."""
        if self._merges(names):
            return list(names)
        found: list[str] = []
        for name in names:
            if self.below[name] <= {*found} and self._merges([*found, name]):
                found.append(name)
        return found

    def _merges(self, names: Sequence[str]) -> bool:
        try:
            self.trainer.with_edits([self.changes[name].edit for name in names])
        except StudyError:
            return False
        return True

    def _whole(self, names: Iterable[str]) -> list[str]:
        """These changes with what they stand on, in order."""
        wanted = {other for name in names for other in (name, *self.below[name])}
        return [name for name in self.changes if name in wanted]

    def _problem(self, found: Found, below: Sequence[str]) -> str:
        """Why a change does not stand on these; empty where it does."""
        edits = [self.changes[name].edit for name in below]
        try:
            before = self.trainer.with_edits(edits) if edits else self.trainer
            after = self.trainer.with_edits([*edits, found.edit])
        except StudyError as error:
            return " ".join(error.problems)
        assert before.sources
        assert after.sources
        if before.sources.fingerprint == after.sources.fingerprint:
            return UNREAD
        lacking = self._lacking(found, before.sources, after.sources)
        return f"uses {', '.join(sorted(lacking)[:5])}, which nothing before it brings" if lacking else ""

    def _lacking(self, found: Found, before: Sources, after: Sources) -> frozenset[str]:
        """Names that the change begins to use, that are there in its own commit, and here are not."""
        own = _sources(self.trainer, found.commits[-1])
        if own is None:
            return frozenset()
        (used, _), (uses, brings) = before.vocabulary, after.vocabulary
        return (uses - used - brings) & own.vocabulary[1]

    def compared_with(self, tip: str, kept: Sequence[str]) -> list[str]:
        """What whoever takes all changes that were kept for the tip's code should know."""
        last = _sources(self.trainer, tip)
        edits = [self.changes[name].edit for name in kept]
        all_of_them = "All changes" if len(kept) == len(self.changes) else f"The {len(kept)} changes that were kept"
        together = self.trainer.with_edits(edits) if edits else self.trainer
        if last is None or together.sources is None:
            return [f"The code of {tip[:SHOWN]} cannot be read, so it was not compared with all changes together."]
        if last.fingerprint == together.sources.fingerprint:
            return [f"{all_of_them} together are the code of {tip[:SHOWN]}."]
        names = sorted(last.files.keys() | together.sources.files.keys())
        others = [it for it in names if last.files.get(it) != together.sources.files.get(it)]
        differ = f"{', '.join(others[:5])} differ{'s' if len(others) == 1 else ''}"
        return [f"{all_of_them} together are not the code of {tip[:SHOWN]}: {differ}, by what was left out."]


def in_words(left_out: Sequence[tuple[Logged, str]]) -> list[str]:
    """A line for each commit that was left out.

    >>> in_words([(Logged("0123456789abcdef", (), "Notes\\n"), "edits nothing that training reads")])
    ['0123456789 Notes: edits nothing that training reads']
    """
    return [f"{it.commit[:SHOWN]} {shortened(it.subject, 80)}: {why}" for it, why in left_out]
