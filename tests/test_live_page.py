"""The live page: what it reads of a store, what it shows and must not show, who may ask, and that it is cheap."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from browser import chromium, wait_for_text
from own import write_study
from synthetic import Numbers, synthetic_plan, synthetic_store

from harness.live.application import application
from harness.live.effects import effects
from harness.live.time_left import time_left
from harness.live.view import Link, run_fragments
from harness.live.watch import StoreWatch
from harness.services import free_port, live_page, running
from harness.store.cells import Cells
from harness.store.load import results_table

HERE = {"host": "127.0.0.1:1"}


def study_run(root, seeds=3, unfinished=(), **outcomes):
    """A study run of a baseline and two changes; the cells, its id, and variant and seed to key."""
    plan = synthetic_plan(seeds=seeds, profile="standard", only=("batch-norm", "kernel-7"))
    cells = synthetic_store(root, plan, Numbers(missing=unfinished, outcomes=outcomes.get("outcomes", {})))
    return cells, plan.id, {(it.name, cell.seed): cell.key for it in plan.variants for cell in it.cells}


def begin(cells, key):
    """What a cell has on disk once it has been training for two steps."""
    cells.folder(key).mkdir()
    cells.append(key, {"event": "started", "step": 0})
    for step in (10, 20):
        cells.append(
            key, {"event": "validation", "step": step, "metrics": {"val/accuracy": step / 100}, "seconds": step / 10}
        )


# What is read of the store


def test_a_watch_tells_what_each_cell_does(tmp_path):
    unfinished = [("kernel-7", 0), ("kernel-7", 1), ("kernel-7", 2)]
    cells, name, keys = study_run(tmp_path, unfinished=unfinished, outcomes={("batch-norm", 1): "diverged"})
    for seed in (0, 1):
        begin(cells, keys["kernel-7", seed])

    with cells.hold(keys["kernel-7", 0]):
        now = StoreWatch(cells).run(name, seconds=60)

    states = {place: now.states[key].state for place, key in keys.items()}
    assert states == dict.fromkeys(keys, "finished") | {
        ("batch-norm", 1): "diverged", ("kernel-7", 0): "training", ("kernel-7", 1): "interrupted",
        ("kernel-7", 2): "waiting",
    }  # fmt: skip
    assert now.states[keys["batch-norm", 1]].reason == "planted: diverged"
    begun = now.started[keys["kernel-7", 0]]
    assert (begun.variant, begun.seed, begun.step, begun.clock) == ("kernel-7", 0, 20, "step")
    assert begun.points == ((10.0, 0.1), (20.0, 0.2))
    assert now.ended_seeds() == (0, 1, 2)  # batch-norm against the baseline: a diverged cell has ended


def test_a_watch_notices_what_ends_what_is_forgotten_and_what_is_refused(tmp_path):
    cells, name, keys = study_run(tmp_path, outcomes={("kernel-7", 0): "failed"})
    watch, kept = StoreWatch(cells), keys["kernel-7", 1]
    assert watch.run(name, seconds=60).count("finished") == 8
    text = (cells.folder(kept) / "result.json").read_text()

    cells.forget_result(keys["kernel-7", 0])
    assert watch.run(name).states[keys["kernel-7", 0]].state == "interrupted"
    (cells.folder(kept) / "result.json").write_text("{}")
    assert watch.run(name).states[kept].state == "refused"
    (cells.folder(kept) / "result.json").write_text(text)
    assert watch.run(name).states[kept].state == "finished"


def test_one_reading_of_a_store_that_nobody_has_read_takes_no_longer_than_it_may(tmp_path):
    cells, name, _ = study_run(tmp_path)
    watch = StoreWatch(cells)
    assert watch.run(name, seconds=-1.0).count("unread") == 9
    assert watch.run(name, seconds=60.0).count("finished") == 9


def test_study_runs_come_and_go(tmp_path):
    cells, name, _ = study_run(tmp_path)
    watch = StoreWatch(cells)
    assert watch.ids() == [name]
    cells.remove_manifest(name)
    assert watch.ids() == []
    assert watch.run(name) is None


def test_the_range_of_the_time_left_holds_what_is_left():
    """Cells of five variants of different length, on four workers, as they are handed out: what was said at half and at
    three quarters of them, against what came. At least nine in ten, though nothing is assumed of the distribution."""
    draws, held = np.random.default_rng(0), []
    for _ in range(200):
        usual = draws.uniform(5, 40, size=5)
        cells = [(v, usual[v] * draws.lognormal(0, 0.25)) for _ in range(10) for v in range(5)]
        free, ends = [0.0] * 4, []
        for variant, seconds in cells:
            worker = free.index(min(free))
            ends.append((free[worker], free[worker] + seconds, variant))
            free[worker] += seconds
        for share in (0.5, 0.75):
            moment = share * max(free)
            measured = {str(v): [end - start for start, end, of in ends if of == v and end <= moment] for v in range(5)}
            training = {
                f"{of}/{place}": moment - start for place, (start, end, of) in enumerate(ends) if start <= moment < end
            }
            waiting = [str(of) for start, _, of in ends if start > moment]
            low, high = time_left(waiting, training, measured, 4)
            held.append(low <= max(free) - moment <= high)
            assert high - low < 2 * max(free)  # says something
    assert np.mean(held) > 0.9


def test_nothing_is_said_of_the_time_left_before_two_cells_have_ended():
    assert time_left(["a"], {"a/1": 3.0}, {"a": [10.0]}, 1) is None
    assert time_left(["a"], {}, {"a": [10.0, 12.0]}, 0) is None
    assert time_left(["a"] * 3, {}, {"a": [10.0, 10.0]}, 1) == (30.0, 30.0)


# What is shown


def ask(app, path, method="GET", **headers):
    """Status and body of one request; of a stream, what has come within half a second."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
    }
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in (HERE | headers).items()]
    messages = []

    async def request():
        async def receive():
            await asyncio.sleep(60 if messages else 0)
            return {"type": "http.request", "body": b""}

        async def send(message):
            messages.append(message)

        try:
            await asyncio.wait_for(app(scope, receive, send), 2.0 if path.endswith("events") else 120)
        except TimeoutError:
            assert path.endswith("events")

    asyncio.run(request())
    return messages[0]["status"], b"".join(it.get("body", b"") for it in messages).decode()


def app_on(root, *links):
    return application(StoreWatch(Cells(root)), links, ("127.0.0.1",))


def listing(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.slow
def test_watching_writes_nothing_and_shows_no_effect_and_no_number_that_is_reported(tmp_path):
    """Whoever watches must not spend from the error budget without knowing."""
    cells, name, keys = study_run(tmp_path, unfinished=[("kernel-7", 2)])
    before, app = listing(tmp_path), app_on(tmp_path)
    paths = ["/", f"/runs/{name}/", "/events", f"/runs/{name}/events"]
    answers = [ask(app, path) for path in paths]

    assert [status for status, _ in answers] == [200] * 4
    assert listing(tmp_path) == before
    assert ask(app, f"/runs/{name}/report")[0] == 409
    results = [cells.result(key) for place, key in keys.items() if place != ("kernel-7", 2)]
    numbers = {f"{100 * it.metrics['test/accuracy']:.2f}" for it in results}
    assert len(numbers) > 4
    for _, body in answers:
        visible = re.sub(r"<style>.*?</style>", "", body, flags=re.DOTALL)
        assert not [number for number in numbers if number in visible]
    assert "Look at the effects of 3 seeds" in answers[1][1]


@pytest.mark.slow
def test_a_look_is_written_down_once_and_shows_the_report(tmp_path):
    cells, name, _ = study_run(tmp_path)
    app = app_on(tmp_path)

    assert ask(app, f"/runs/{name}/look", "POST") == (200, '{"looks":1}')
    (look,) = cells.manifest(name).looks
    assert (look.seeds, look.command) == ((0, 1, 2), "harness ui (asked for on its page)")
    status, body = ask(app, f"/runs/{name}/look", "POST")
    assert (status, json.loads(body)["reason"]) == (409, "no seed has ended that an earlier look has not seen.")
    report = json.loads(ask(app, f"/runs/{name}/report")[1])
    assert report["effects"].keys() == {"batch-norm", "kernel-7"}
    assert '<section id="effects">' in report["html"]
    assert any(name.startswith("figure-") for name in report["figures"]["figures"])
    assert report["effects"]["kernel-7"]["effect"] in ask(app, f"/runs/{name}/")[1].replace("−", "-")


@pytest.mark.slow
def test_a_seed_that_no_look_has_seen_does_not_move_what_is_shown(tmp_path):
    """The seeds of the look are shown, and not those that ended since."""
    late = [("baseline", 2), ("batch-norm", 2), ("kernel-7", 2)]
    cells, name, _ = study_run(tmp_path / "two", unfinished=late)
    effects(cells, cells.manifest(name), look=True)
    looked = (tmp_path / "two" / "studies" / f"{name}.json").read_text()
    before = effects(cells, cells.manifest(name), look=False)

    more, _, _ = study_run(tmp_path / "three")
    (tmp_path / "three" / "studies" / f"{name}.json").write_text(looked)
    after = effects(more, more.manifest(name), look=False)

    assert len(results_table(more, more.manifest(name))) == 9
    assert after["effects"] == before["effects"]
    assert after["figures"] == before["figures"]
    now = StoreWatch(more).run(name, seconds=60)
    looks = run_fragments(now, after["effects"], 0.0)["looks"]
    assert "Looked at once, with 2 seeds of 10 declared; 1 more has ended since." in looks


def test_texts_of_a_study_cannot_become_markup(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    cells, name, keys = study_run(tmp_path, outcomes={("kernel-7", 1): "failed"})
    path = tmp_path / "studies" / f"{name}.json"
    path.write_text(path.read_text().replace("Which changes improve", evil).replace("convolutions 7x7", '\\"' + evil))
    result = cells.folder(keys["kernel-7", 1]) / "result.json"
    result.write_text(result.read_text().replace("planted: failed", f"\\u001b[31m{evil}"))

    _, body = ask(app_on(tmp_path, Link("MLflow", "http://127.0.0.1:2")), f"/runs/{name}/")

    assert body.count("alert(1)") >= 6
    assert "<script>alert" not in body
    assert "<img" not in body
    assert "\x1b" not in body


def test_what_a_cell_said_is_shown_as_text_and_of_this_study_run_only(tmp_path):
    cells, name, keys = study_run(tmp_path, outcomes={("kernel-7", 1): "failed"})
    key = keys["kernel-7", 1]
    cells.append(key, {"event": "failed", "reason": "it", "traceback": "Traceback: \x1b[31mline 7"})
    app = app_on(tmp_path)

    status, text = ask(app, f"/runs/{name}/cells/{key}/log")
    assert status == 200
    assert "== traceback of the last failure\nTraceback: \\x1b[31mline 7" in text
    assert ask(app, f"/runs/{name}/cells/{'0' * len(key)}/log")[0] == 404
    assert ask(app, f"/runs/{name}/cells/..%2f..%2fstudies/log")[0] == 404
    assert ask(app, "/runs/..%2fstudies/")[0] == 404
    assert ask(app, "/files/watch.py")[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8800"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "null"},
    ],
)
def test_no_other_host_and_no_page_of_another_origin_can_take_a_look(tmp_path, headers):
    cells, name, _ = study_run(tmp_path)
    app = app_on(tmp_path)

    assert ask(app, f"/runs/{name}/look", "POST", **headers)[0] == 403
    assert cells.manifest(name).looks == ()
    if "host" in headers:
        assert ask(app, "/", **headers)[0] == 403
    assert ask(app, f"/runs/{name}/look")[0] == 405  # a link or a picture of another page is a GET


def test_a_store_without_studies_says_how_to_begin(tmp_path):
    status, body = ask(app_on(tmp_path / "none"), "/")
    assert status == 200
    assert "There is no study in this store yet." in body
    assert not (tmp_path / "none").exists()


# The real server


TRAINING = """
import math, random, time
import harness
def train(run: harness.Run) -> None:
    s, draw = run.settings, random.Random(run.seed)
    for step in range(1, s.steps + 1):
        run.log(step, **{"val/score": 1 - 0.9**step + 0.01 * draw.random()})
        if s.explodes and step == 3:
            raise harness.errors.DivergedError(f"loss is not finite at step {step}")
        if s.width > 8 and run.seed == 1 and step == 3:
            raise ValueError(f"cannot multiply {s.width} columns")
        time.sleep(PAUSE)
    run.finish(**{"test/score": s.rate * 0.1 + 0.01 * draw.random()})
"""
STUDY = {
    "title": "Do width and rate help?",
    "baseline": {"rate": 0.5, "steps": 12, "width": 8, "explodes": False},
    "changes": [
        {"name": "wide", "overrides": {"width": 16}},
        {"name": "fast", "overrides": {"rate": 0.9}},
        {"name": "explosive", "overrides": {"explodes": True}},
    ],
    "profiles": {"standard": {"seeds": 3}},
}


@contextmanager
def served(root, *links):
    service = live_page(root, free_port(0), links)
    with running([service]) as started:
        yield service.address, psutil.Process(started.started[0].process.pid)


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_study_is_followed_in_a_browser_from_its_first_cell_to_its_effects(tmp_path):
    """A running study with a cell that fails and cells that diverge; a server that is held up; a look."""
    path, store = write_study(tmp_path / "own", function=TRAINING, pause=0.5, **STUDY), tmp_path / "store"
    command = [sys.executable, "-m", "harness", "ablate", "--study", str(path), "--store", str(store), "--jobs", "2"]
    with served(store, ("MLflow", "http://127.0.0.1:1")) as (address, server), chromium() as page:
        page.get(address)
        wait_for_text(page, "There is no study in this store yet.", "MLflow")
        study = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_text(page, "own standard", "train now", seconds=120)
            page.find_element("css selector", "a.run").click()
            wait_for_text(page, "Do width and rate help?", "Trains now", "validation score", "seed 0", seconds=60)
            assert page.execute_script("return document.querySelectorAll('.curves path').length")
            wait_for_text(page, "explosive diverged: loss is not finite at step 3", " left", seconds=120)
            wait_for_text(page, "wide failed: ValueError: cannot multiply 16 columns", seconds=120)
            assert study.wait(timeout=300) == 1
        finally:
            study.kill()
            study.wait()
        wait_for_text(page, "12 of 12 cells ended", "4 without a number", "Looked at")  # ablate has looked
        wait_for_text(page, "Methods and provenance", "reference", seconds=120)
        page.find_element("css selector", "[data-log]").click()
        wait_for_text(page, "== traceback of the last failure", "ValueError: cannot multiply 16 columns")
        page.find_element("css selector", "dialog.log button").click()
        server.suspend()
        wait_for_text(page, "No word from harness ui for", seconds=40)
        server.resume()
        page.execute_script("window.same = true")
        wait_until(page, "return document.querySelector('.lost').hidden && window.same")
        for width, mode in ((1400, "light"), (400, "dark"), (1400, "dark"), (400, "light")):
            look_at(page, width, mode)
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
        problems = [it for it in page.get_log("browser") if it["level"] == "SEVERE" and "favicon" not in it["message"]]
        assert problems == []


@pytest.mark.ordeal
@pytest.mark.slow
def test_a_look_is_asked_for_in_the_browser_and_figures_are_drawn(tmp_path):
    cells, name, _ = study_run(tmp_path)
    with served(tmp_path) as (address, _), chromium() as page:
        page.get(f"{address}runs/{name}/")
        text = wait_for_text(page, "Nobody has looked at the effects yet; 3 seeds have ended.")
        assert "exploratory" not in text
        page.find_element("css selector", "[data-look]").click()
        wait_for_text(page, "Looked at once, with 3 seeds of 10 declared", "Methods and provenance", seconds=120)
        wait_until(page, "return document.documentElement.dataset.figures === 'drawn'", seconds=60)
        assert page.execute_script("return document.querySelectorAll('.main-svg').length") > 2
        assert [it for it in page.get_log("browser") if it["level"] == "SEVERE"] == []
    assert len(cells.manifest(name).looks) == 1


def look_at(page, width, mode):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": mode}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.execute_script("return new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")


def wait_until(page, script, seconds=30):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, seconds).until(lambda it: it.execute_script(script))


@pytest.mark.ordeal
@pytest.mark.slow
def test_5000_cells_are_answered_in_a_fifth_of_a_second_and_watched_for_three_percent_of_a_core(tmp_path):
    """Processor time: other processes of a busy machine must not count. One cell ends a second, for a busy study."""
    plan = synthetic_plan(designs=("pairs", "add-one", "leave-one-out", "path"), seeds=41, profile="standard")
    late = [(it.name, cell.seed) for it in plan.variants for cell in it.cells if cell.seed == 40]
    cells = synthetic_store(tmp_path, plan, Numbers(missing=late))
    assert len(plan.cells) > 5_000
    for variant in plan.variants[:12]:
        begin(cells, variant.cells[40].key)
    with served(tmp_path) as (address, server):
        page = f"{address}runs/{plan.id}/"
        before = server.cpu_times()
        fetched(page)
        after = server.cpu_times()
        first = after.user + after.system - before.user - before.system
        stream = urllib.request.urlopen(f"{address}runs/{plan.id}/events", timeout=60)
        threading.Thread(target=lambda: all(stream), daemon=True).start()
        deadline = time.monotonic() + 60
        while b"reading results" in fetched(page) and time.monotonic() < deadline:
            time.sleep(0.5)
        spent = []
        for _ in range(5):
            before = server.cpu_times()
            fetched(page)
            after = server.cpu_times()
            spent.append(after.user + after.system - before.user - before.system)
        before, started = server.cpu_times(), time.monotonic()
        for number in range(10):
            cells.append(plan.variants[number].cells[40].key, {"event": "validation", "step": 30, "metrics": {}})
            time.sleep(1)
        after = server.cpu_times()
        share = (after.user + after.system - before.user - before.system) / (time.monotonic() - started)
    assert first < 0.2
    assert sorted(spent)[2] < 0.2
    assert share < 0.03


def fetched(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()
