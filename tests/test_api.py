"""The Python surface: it does what the commands do, and tells whoever watches."""

import re
import subprocess
import sys

import pytest
from own import write_study

import harness
from harness import api
from harness.errors import ResultsError, StoreError, StudyError
from harness.services import free_port
from harness.trainers.trainer import Trainer

pytestmark = pytest.mark.slow


def test_everything_that_the_commands_do_can_be_done_from_python(tmp_path):
    path, store = write_study(tmp_path / "study"), tmp_path / "store"
    seen = []
    watch = api.Watch(on_progress=lambda it: seen.append(it.kind))
    request = {"store": store, "device": "cpu", "executor": "here"}

    found = harness.ablate(path, skip=["ignored"], watch=watch, **request)

    assert found.results["status"].eq("finished").all()
    assert list(found.effects["variant"])[:1] == ["flagged"]
    assert found.headline.variant == "flagged"
    assert not found.failed
    assert not found.placebos
    shown = found._repr_html_()
    assert shown.startswith(f"<p><b>{found.headline.sentence}</b></p>")
    assert shown.count('<th scope="row">') == 3  # the baseline and two changes
    assert seen.count("ended") == 6
    again = harness.ablate(path, skip=["ignored"], watch=watch, **request)
    assert again.results["key"].tolist() == found.results["key"].tolist()
    assert seen.count("ended") == 6  # nothing was trained again

    answer = api.search(path, trials=4, skip=["ignored"], **request)
    assert answer.best.changes == ("wide", "flagged")
    confirmed = api.confirm(path, skip=["ignored"], seeds=7, store=store, device="cpu")
    assert confirmed.winner in ("flagged", "wide+flagged")
    assert api.plan(path, store=store).plan.study.name == "own"
    assert api.try_study(path, store=store, device="cpu").is_sound


def test_a_study_run_that_is_deleted_before_its_table_is_read_is_said_in_a_sentence(tmp_path):
    path = write_study(tmp_path / "study")
    found = api.ablate(path, skip=["ignored"], store=tmp_path / "store", device="cpu", executor="here")
    found.work.cells.remove_manifest(found.work.plan.id)

    with pytest.raises(StoreError, match="was deleted meanwhile; the same command makes it again"):
        _ = found.results


def test_a_placebo_is_refused_and_the_others_are_kept(tmp_path):
    path = write_study(tmp_path / "study")

    found = api.ablate(path, store=tmp_path / "store", device="cpu", executor="here")

    assert list(found.placebos) == ["ignored"]
    assert "training never reads never, so its effect would be zero by construction" in found.placebos["ignored"]
    rows = found.results.set_index("variant")["status"]
    assert (rows["ignored"] == "missing").any()  # its other seeds were not trained
    assert (rows.drop("ignored") == "finished").all()


def test_a_command_whose_settings_it_may_not_see_is_doubted_not_refused(tmp_path):
    path, said = write_study(tmp_path / "study", "script"), []

    found = api.ablate(
        path, store=tmp_path / "store", device="cpu", executor="here", watch=api.Watch(on_problem=said.append)
    )

    assert not found.placebos
    assert [it for it in said if "change 'ignored' may be a placebo" in it]
    assert found.results["status"].eq("finished").all()


def test_wrong_requests_are_errors_of_the_package(tmp_path):
    path = write_study(tmp_path / "study")

    with pytest.raises(StudyError, match=r"--only wid: study 'own' has no such change\. Did you mean 'wide'\?"):
        api.ablate(path, only=["wid"], store=tmp_path)
    with pytest.raises(ResultsError):
        api.confirm(path, store=tmp_path / "empty", device="cpu")
    with pytest.raises(AttributeError, match="it has Watch, ablate"):
        _ = api.serach


def test_advice_names_the_study_as_it_was_asked_for(tmp_path):
    path = write_study(tmp_path / "study")

    found = api.ablate(path, only=["wide"], store=tmp_path / "store", device="cpu", executor="here")

    with pytest.raises(ResultsError, match=f"harness ablate --study {re.escape(str(path))} --design path"):
        harness.figures.waterfall(found.results)


def test_what_would_make_training_faster_is_told_before_it_begins(tmp_path, monkeypatch):
    path, said = write_study(tmp_path / "study"), []
    monkeypatch.setattr(Trainer, "device_advice", lambda self, device: f"slow on {device}")
    request = {"only": ["wide"], "store": tmp_path / "store", "device": "cpu"}

    for _ in range(2):  # the second time nothing is trained
        api.ablate(path, executor="here", watch=api.Watch(on_problem=said.append), **request)

    assert said == ["slow on cpu"]


def test_a_tracking_server_that_is_away_from_the_start_costs_no_training(tmp_path, monkeypatch):
    path, said = write_study(tmp_path / "study"), []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port(0)}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    request = {"only": ["wide"], "store": tmp_path / "store", "device": "cpu", "executor": "here"}

    found = api.ablate(path, watch=api.Watch(on_problem=said.append), **request)

    assert found.results["status"].eq("finished").all()
    assert "does not answer" in said[0]
    assert re.search(r"\d+ events wait for the tracking server .*`harness sync` delivers them", said[-1])


def test_a_note_of_deliveries_that_cannot_be_used_costs_no_training(tmp_path):
    path, said, store = write_study(tmp_path / "study"), [], tmp_path / "store"
    (store / "tracking" / "ledger.db").mkdir(parents=True)
    request = {"only": ["wide"], "store": store, "device": "cpu", "watch": api.Watch(on_problem=said.append)}

    found = api.ablate(path, executor="here", **request)
    answer = api.search(path, trials=2, executor="here", **request)

    assert found.results["status"].eq("finished").all()
    assert answer.best.changes == ("wide",)
    assert "ledger.db: cannot be used" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("is_guarded", [False, True])
def test_a_script_without_a_main_block_is_told_so_before_anything_is_recorded(tmp_path, is_guarded):
    """Each worker imports it, and would call again: its cells were recorded as failed, for good."""
    study, store = write_study(tmp_path / "own", "function"), tmp_path / "mlruns"
    call = f"harness.ablate({str(study)!r}, store={str(store)!r}, device='cpu', jobs=1, seeds=1, only=['wide'])\n"
    script = tmp_path / "study.py"
    script.write_text("import harness\n" + ("if __name__ == '__main__':\n    " if is_guarded else "") + call)

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)

    assert len(list(store.glob("cells/*/result.json"))) == 2 * is_guarded
    if is_guarded:
        assert done.returncode == 0, done.stderr
    else:
        assert "study.py, line 2: this starts worker processes" in done.stderr
        assert "below `if __name__ == '__main__':`" in done.stderr
