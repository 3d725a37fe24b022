"""Files of a cell's folder that travel while training writes them."""

import json

from harness.execution import parcels
from harness.execution.parcels import Followed, put_down


def test_what_a_script_tells_is_never_older_than_what_rests_on_it(tmp_path, monkeypatch):
    """The script goes on before each file is read; and who puts the files down may die after any of them."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    (there / "metrics.jsonl").touch()
    step = 0

    def go_on():
        nonlocal step
        step += 1
        with (there / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step}) + "\n")
        (there / "new").write_text(str(step))
        (there / "new").replace(there / "state.json")

    def open_late(path, flags):
        go_on()
        return opened(path, flags)

    followed, opened = Followed(there), parcels._unseen
    go_on()
    monkeypatch.setattr(parcels, "_unseen", open_late)
    news = followed.news(first=["metrics.jsonl"])

    assert [it.name for it in news] == ["metrics.jsonl", "state.json"]
    put_down(here, news)
    told = [json.loads(line)["step"] for line in (here / "metrics.jsonl").read_text().splitlines()]
    assert told == list(range(1, step + 1))
    assert int((here / "state.json").read_text()) == step - 1
