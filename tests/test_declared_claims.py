"""Claims that a study declares: which are confirmed, which are not, and what is wrong with how they are written."""

import pytest
from click.testing import CliRunner
from own import write_study
from schemas import fitting

from harness.api.ablation import ablate
from harness.api.candidates import Asked
from harness.api.claiming import study_claims
from harness.cli import cli
from harness.errors import StudyError
from harness.store.cells import Cells
from harness.study.load import load_study
from harness.study.resolved import resolved_study
from harness.study.yaml_file import write_yaml

PLANTED = """
import random
import harness

def train(run):
    value = 10 + run.settings.effect + random.Random(f"{run.seed} {run.settings.draw}").gauss(0, 0.1)
    run.log(1, **{"val/value": value})
    run.finish(**{"test/value": value})
"""
SIZES = {"large": 2.0, "small": 1.0, "useless": 0.0, "harmful": -1.0}
CLAIMS = {  # name -> (says, of, more, what comes out with eight seeds)
    "it-helps": ("improves", "small", {}, "confirmed"),
    "it-does-not-help": ("improves", "useless", {}, "not reproduced"),
    "it-harms": ("hurts", "harmful", {}, "confirmed"),
    "no-gain": ("no improvement", "harmful", {}, "confirmed"),
    "some-gain": ("no improvement", "large", {}, "not reproduced"),
    "no-matter": ("no difference", "useless", {"noticeable": 0.5}, "confirmed"),
    "the-most": ("biggest", "large", {}, "confirmed"),
    "not-the-most": ("biggest", "small", {}, "not reproduced"),
    "both-beat-none": ("better", "both", {"than": "baseline"}, "confirmed"),
    "both-beat-one": ("better", "both", {"than": "large"}, "confirmed"),
    "one-beats-both": ("better", "large", {"than": "both"}, "not reproduced"),
    "on-top": ("improves", "more", {}, "confirmed"),
    "on-top-to": ("number", "more", {"value": 13.0}, "confirmed"),
    "printed-gain": ("gain", "small", {"value": 1.0}, "confirmed"),
    "wrong-gain": ("gain", "small", {"value": 3.0}, "not reproduced"),
    "printed": ("number", "baseline", {"value": 10.05}, "confirmed"),
    "wrong-number": ("number", "baseline", {"value": 11.0}, "not reproduced"),
}


def planted(folder, goal, claims=None, **more):
    """A study whose changes do what SIZES says; claims are those of a metric that is to be as large, or as small, as
    it can be."""
    sign = 1 if goal == "maximize" else -1
    effects = {name: sign * it for name, it in SIZES.items()}
    changes = [
        {"name": name, "overrides": {"effect": it, "draw": number}} for number, (name, it) in enumerate(effects.items())
    ]
    changes.append({"name": "more", "needs": "large", "overrides": {"extra": 1}})
    if claims is None:
        claims = [{"name": name, "says": says, "of": of, **rest} for name, (says, of, rest, _) in CLAIMS.items()]
        for it in claims:  # 10 and what was planted
            it |= {"value": 10 + sign * (it["value"] - 10)} if it["says"] == "number" else {}
    return write_study(
        folder,
        function=PLANTED.replace("effect +", f"effect + {sign} * run.settings.extra +"),
        baseline={"effect": 0.0, "draw": 9, "extra": 0},
        metrics={"val/value": {"goal": goal}, "test/value": {"goal": goal}},
        select="val/value",
        report="test/value",
        changes=changes,
        combinations=[{"name": "both", "changes": ["large", "more"]}],
        designs=["add-one", "combinations"],
        profiles={"standard": {"seeds": 8}, "quick": {"seeds": 2, "exploratory": True}},
        claims=claims,
        **more,
    )


def ablated(path, store, **request):
    ablate(path, store=store, executor="here", device="cpu", **request)


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_what_is_true_is_confirmed_and_what_is_not_is_not_whatever_is_better(tmp_path, goal):
    path, store = planted(tmp_path / "own", goal), tmp_path / "mlruns"
    before = study_claims(path, store=store)
    ablated(path, store)

    found = study_claims(path, store=store)

    (manifest,) = Cells(store).manifests().values()
    assert (before.run, found.run) == ("", manifest.id)
    assert {it.status for _, it in before.checked} == {"not run"}
    assert {it.how for _, it in before.checked} == {f"`harness ablate --study {path}` makes what this takes."}
    assert {claim.name: it.status for claim, it in found.checked} == {name: it[-1] for name, it in CLAIMS.items()}
    assert all(it.n == 8 for _, it in found.checked)
    assert len(manifest.looks) == 1  # `ablate` looked; the claims show what was seen


@pytest.mark.slow
def test_an_exploratory_run_and_too_few_seeds_decide_nothing(tmp_path):
    path = planted(tmp_path / "own", "maximize", [{"name": "it-helps", "says": "improves", "of": "small"}])
    ablated(path, tmp_path / "quick", profile="quick")
    ablated(path, tmp_path / "few", seeds=(0, 1, 2))

    ((_, quick),) = study_claims(path, store=tmp_path / "quick").checked
    ((_, few),) = study_claims(path, store=tmp_path / "few").checked

    assert (quick.status, few.status) == ("not run", "not run")
    assert "makes what this takes. Exploratory, or of another baseline than the file's: own-quick-" in quick.how
    assert "cannot reach significance" in few.how


@pytest.mark.slow
def test_a_later_run_of_something_else_says_nothing_about_what_the_file_declares(tmp_path):
    claims = [{"name": "printed", "says": "number", "of": "baseline", "value": 10.0}]
    path, store = planted(tmp_path / "own", "maximize", claims), tmp_path / "mlruns"
    ablated(path, store, only=("small",), seeds=range(6))
    expected = study_claims(path, store=store)
    ablated(path, store, only=("small",), seeds=range(6), settings={"effect": 5.0})
    ablated(path, store, only=("small",), profile="quick")

    assert study_claims(path, store=store) == expected
    assert expected.checked[0][1].status == "confirmed"


@pytest.mark.slow
def test_a_pair_that_no_design_compares_is_tested_once_when_all_seeds_are_there(tmp_path):
    claims = [{"name": "x", "says": "better", "of": "large", "than": "harmful"}]
    path, store = planted(tmp_path / "own", "maximize", claims), tmp_path / "mlruns"
    ablated(path, store, only=("large", "harmful"), seeds=range(6), horizon=8)
    ((_, early),) = study_claims(path, store=store).checked
    ablated(path, store, only=("large", "harmful"), seeds=range(8), horizon=8)
    ((_, late),) = study_claims(path, store=store).checked

    assert (early.status, late.status) == ("not run", "confirmed")
    assert "tested once, when all 8 seeds are there" in early.how


def test_a_judge_and_a_study_of_commits_ask_nothing_of_the_claims(tmp_path):
    path = planted(tmp_path / "own", "maximize")
    assert Asked(path, "standard", tmp_path / "mlruns", {}).declared({}).claims == ()


@pytest.mark.slow
def test_bounds_are_claims_of_either_side(tmp_path):
    claims = [
        {"name": name, "says": side, "of": "baseline", "value": bound, "source": "Table 1", "metric": "val/value"}
        for name, side, bound in [("a", "above", 9.0), ("b", "below", 9.0), ("c", "below", 11.0), ("d", "above", 10.0)]
    ]
    path, store = planted(tmp_path / "own", "maximize", claims), tmp_path / "mlruns"
    ablated(path, store, only=("small",), seeds=(0, 1, 2))

    done = CliRunner().invoke(cli, ["claims", "--study", str(path), "--store", str(store), "--json"])

    assert done.exit_code == 0, done.output
    told = {it["name"]: it for it in fitting("claims", done.stdout)["claims"]}
    expected = {"a": "confirmed", "b": "not reproduced", "c": "confirmed", "d": "not reproduced"}
    assert {name: it["status"] for name, it in told.items()} == expected
    assert (told["a"]["text"], told["a"]["source"]) == ("baseline lies above 9 in val/value", "Table 1")


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        ({"says": "improves", "of": "smal"}, "claims: x: unknown change 'smal'. Did you mean 'small'?"),
        ({"says": "improves", "of": "both"}, "claims: x: unknown change 'both'."),
        ({"says": "better", "of": "both"}, "'better' needs than: another variant, such as baseline"),
        ({"says": "better", "of": "both", "than": "bot"}, "claims: x: unknown variant 'bot'. Did you mean 'both'?"),
        ({"says": "better", "of": "both", "than": "both"}, "claims: x: 'both' is compared with itself."),
        ({"says": "number", "of": "both"}, "'number' needs value: the number that was printed"),
        ({"says": "no difference", "of": "small"}, "'no difference' needs noticeable: the least difference"),
        ({"says": "biggest", "of": "small", "value": 2.0}, "'biggest' takes no value"),
        ({"says": "biggest", "of": "more"}, "claims: x: 'more' needs 'large', so it is compared with no other change"),
        ({"says": "the best", "of": "small"}, "claims[0].says: input should be "),
        (
            {"says": "above", "of": "both", "value": 1.0, "metric": "test/loss"},
            "claims: x: unknown metric 'test/loss'.",
        ),
    ],
)
def test_a_claim_that_is_written_wrongly_is_named(tmp_path, claim, problem):
    path = planted(tmp_path, "maximize", [{"name": "x", **claim}])
    with pytest.raises(StudyError) as raised:
        load_study(path)
    assert problem in str(raised.value)


def test_two_claims_of_one_name_and_a_study_without_claims_are_named(tmp_path):
    twice = [{"name": "x", "says": "improves", "of": "small"}] * 2
    with pytest.raises(StudyError, match="claims: the name 'x' stands more than once"):
        load_study(planted(tmp_path / "twice", "maximize", twice))
    with pytest.raises(StudyError, match=r"declares no claims\. Write, in its file, such as"):
        study_claims(planted(tmp_path / "none", "maximize", []))


def test_claims_are_shown_as_they_were_written(tmp_path):
    path = planted(tmp_path / "own", "maximize")
    shown = tmp_path / "own" / "shown.yaml"
    shown.write_text(write_yaml(resolved_study(path)))
    assert load_study(shown).claims == load_study(path).claims
