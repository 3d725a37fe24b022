"""Lines of champions in stores that are packed, merged, checked, freed and deleted."""

import json
import shutil
import tarfile
from dataclasses import replace

import pytest
from repository import START, TinyRepository
from test_kept_stores import MANIFEST, aged, call, filled, kinds
from tracked import a_manifest, cells_of

from harness.api.judging import judge
from harness.api.lineages import lineage
from harness.api.stores import check_store, delete, deletion, merge_into, pack
from harness.errors import StoreError
from harness.store.cells import Cells
from harness.store.lines import FORMAT, Lines
from harness.store.merge import merge
from harness.store.pack import INDEX, may_be_packed
from harness.store.unused import PATCHES, garbage

ID = "tiny-standard-main"
CELLS = cells_of()


def judged(cells: Cells, *names: str, seed: int = 100) -> Lines:
    """A line in which these were proposed, each as a patch, and kept; it goes on where it is there already."""
    lines, known = Lines(cells.root), Lines(cells.root).read(ID)
    if known is None:
        begun = {"study_run": MANIFEST.id, "base": "", "alpha": 0.05, "first_seed": seed}
        lines.append(ID, "begun", format=FORMAT, **begun)
        cells.write_manifest(replace(a_manifest({"champion-0": CELLS}), id=ID, belongs_to=MANIFEST.id))
    for name in names:
        number = len(lines.read(ID).proposals) + 1
        entry = {"name": name, "patch": str(lines.keep_patch(name.encode())), "overrides": {}}
        proposed = {"number": number, "champion": 0, "name": name, "identity": name, "entry": entry, "rule": "explore"}
        lines.append(ID, "judged", **proposed, level=1.0, verdict="keep", reason="one run", num_seeds=1)
    return lines


@pytest.fixture
def stores(tmp_path):
    """Two with the same study run, and no line."""
    return [filled(tmp_path / name, CELLS) for name in ("here", "there")]


def names(cells: Cells, line: str = ID) -> list[str]:
    return [it.name for it in Lines(cells.root).read(line).proposals]


@pytest.mark.slow
def test_a_line_comes_back_from_a_pack_and_answers_from_its_store(tmp_path, monkeypatch):
    """By real verdicts, on code; nothing in the pack says where the store was."""
    repository = TinyRepository(tmp_path / "project")
    start = repository.commit("start", START)
    (tmp_path / "start.diff").write_text(repository.git("diff", "main", start))
    asked = {"study": repository.folder / "own.yaml", "candidate": str(tmp_path / "start.diff"), "champion": "main"}
    request = asked | {"rule": "explore", "promote": True, "executor": "here", "device": "cpu"}
    found = judge(**request, store=tmp_path / "old")
    before = lineage(asked["study"], store=tmp_path / "old")

    packed = pack("own", tmp_path / "own.pack", store=tmp_path / "old")
    merge_into(packed.path, store=tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    again = judge(**request, store=tmp_path / "new")
    after = lineage(asked["study"], store=tmp_path / "new")

    assert found.line.id in packed.runs
    assert (again.is_repeated, again.num_cells, again.estimate) == (True, 0, found.estimate)
    assert after.steps == before.steps
    assert str(tmp_path) not in (tmp_path / "new" / "lines" / f"{found.line.id}.jsonl").read_text()
    assert not [it for it in check_store(tmp_path / "new") if it.is_wrong and "lines" in it.where]


@pytest.mark.parametrize("is_packed", [True, False], ids=["pack", "store"])
def test_one_line_is_one_line_and_the_longer_of_two_that_agree_stays(stores, tmp_path, is_packed):
    here, there = stores
    judged(there, "a")
    source = pack(MANIFEST.study, tmp_path / "it.pack", store=there.root).path if is_packed else there.root

    assert merge(here, source).runs == [ID]
    path = Lines(here.root).path(ID)
    text = path.read_bytes()
    assert merge(here, source).runs == []
    assert path.read_bytes() == text
    assert Lines(here.root).patch_path(next(iter(Lines(here.root).patches(ID)))).read_bytes() == b"a"
    judged(here, "b")
    assert merge(here, source).renamed == {}  # it went on here
    assert names(here) == ["a", "b"]
    assert merge(there, here.root).renamed == {}  # and is fetched there
    assert names(there) == ["a", "b"]


def test_two_lines_of_one_name_stand_side_by_side(stores):
    here, there = stores
    judged(here, "a", "b")
    judged(there, "c", seed=200)

    found = merge(here, there.root)
    (other,) = found.renamed.values()
    judged(there, "d")
    again = merge(here, there.root)

    assert (names(here), names(here, other)) == (["a", "b"], ["c", "d"])
    assert again.renamed == found.renamed
    assert here.manifest(other).belongs_to == MANIFEST.id
    assert set(Lines(here.root).names()) == {ID, other}
    assert f"line {ID} went another way there than here: it is {other} now" in call(
        "merge", there.root, "--store", here.root
    ).output.replace("\n", " ")


def test_a_line_that_is_judged_in_is_left_alone_and_the_rest_is_merged(stores):
    here, there = stores
    judged(here, "a")
    judged(there, "a", "b")
    with Lines(here.root).judging(ID):
        (refused,) = merge(here, there.root).refused
    assert "is judged in now" in refused
    assert names(here) == ["a"]
    assert merge(here, there.root).refused == []
    assert names(here) == ["a", "b"]


def test_a_pack_without_a_line_is_read_by_older_versions(stores, tmp_path):
    judged(stores[1], "a")
    formats = []
    for cells in stores:
        path = pack(MANIFEST.study, tmp_path / "it.pack", store=cells.root).path
        with tarfile.open(path) as tar:
            formats.append(json.load(tar.extractfile(INDEX))["format"])
    assert formats == [1, 2]
    for name in ("lines/a.lock", "lines/patches/a.diff", "lines/.a.jsonl", "lines/patches/x/0123456789abcdef.diff"):
        assert not may_be_packed(name)


@pytest.mark.slow
def test_gc_frees_patches_that_no_line_holds_and_delete_takes_the_line(stores):
    cells = stores[0]
    lines = judged(cells, "a")
    orphan = lines.keep_patch(b"of a request that was refused")
    (lines.folder / f".{orphan.name}.0123456789ab").touch()
    aged(cells.root, 86_400)
    assert kinds(cells)[PATCHES] == [orphan.name]
    assert f".{orphan.name}.0123456789ab" in [it.path.name for it in garbage(cells)]
    lines.path(ID).write_text('{"event": "judged"}\n')
    assert PATCHES not in kinds(cells)  # for it is not known which it holds

    delete(deletion(MANIFEST.study, store=cells.root))
    assert lines.names() == []


@pytest.mark.slow
def test_a_line_whose_study_run_was_never_written_goes_with_its_study(stores):
    cells = stores[0]
    judged(cells, "a")
    cells.remove_manifest(ID)  # the command died between the two
    delete(deletion(MANIFEST.study, store=cells.root))
    assert Lines(cells.root).names() == []


@pytest.mark.slow
def test_a_study_is_not_deleted_while_somebody_judges_in_its_line(stores):
    cells = stores[0]
    lines = judged(cells, "a")
    with lines.judging(ID), pytest.raises(StoreError, match="is judged in now"):
        delete(deletion(MANIFEST.study, store=cells.root))
    assert set(cells.manifests()) == {MANIFEST.id, ID}
    assert names(cells) == ["a"]


DAMAGES = {
    "cannot be read": lambda lines: (lines.path(ID).unlink(), lines.path(ID).mkdir()),
    "is no line of champions": lambda lines: lines.path(ID).write_text('{"event": "judged"}\n'),
    "1 line that is no event": lambda lines: lines.path(ID).write_text(lines.path(ID).read_text() + "{half\n"),
    "is gone: a proposal of line": lambda lines: shutil.rmtree(lines.folder / "patches"),
    "has no study run": lambda lines: (lines.folder.parent / "studies" / f"{ID}.json").unlink(),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_check_says_what_is_wrong_with_a_line(stores, said):
    from harness.store.check import check_lines

    lines = judged(stores[0], "a")
    assert list(check_lines(stores[0])) == []
    DAMAGES[said](lines)
    (finding,) = check_lines(stores[0])
    assert said in str(finding)
