import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from browser import chromium
from synthetic import Numbers, synthetic_plan, synthetic_store, synthetic_tables

from harness.errors import OutputError
from harness.report.exhibits import exhibits
from harness.report.html import page
from harness.report.look import DARK, LIGHT
from harness.report.summary import deviations, warnings
from harness.report.tables import TABLES
from harness.report.write import write_report

pytestmark = pytest.mark.slow

CHANGES = ("batch-norm", "optimizer-adamax", "kernel-7", "dropout-0.2", "model-1")
EVERYTHING = ("add-one", "combinations", "leave-one-out:model-1", "path", "pairs")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every section of the page: four seeds, one cell diverged, one on another device."""
    plan = synthetic_plan(designs=EVERYTHING, seeds=4, profile="standard", only=CHANGES)
    numbers = Numbers(
        outcomes={("kernel-7", 1): "diverged"}, overrides={("batch-norm", 0): {"device": "cuda: other", "dirty": True}}
    )
    return synthetic_tables(tmp_path_factory.mktemp("store"), plan, numbers)


@pytest.fixture(scope="module")
def written(tables, tmp_path_factory):
    return write_report(tables, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def text(written):
    return written[0].read_text()


def without_scripts(text):
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_report_is_a_page_with_its_tables_and_figures_beside_it(written, tables):
    root = written[0].parent
    names = {str(path.relative_to(root)) for path in written}

    assert written[0].name == "report.html"
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == names
    for table in set(TABLES) - {"shapley"}:  # no factorial was trained
        assert {f"tables/{table}{suffix}" for suffix in (".csv", ".parquet", ".md", ".tex")} <= names
    assert {f"figures/{name}.png" for exhibit in exhibits(tables).shown for name, _ in exhibit.ids()} <= names
    assert all(path.stat().st_size for path in written)


def test_the_page_needs_nothing_but_itself(text):
    html = without_scripts(text)
    assert not re.findall(r"""(?:src|srcset|poster|action|@import|url\()\s*=?\s*["']?(?:https?:)?//""", html)
    assert not re.findall(r"<(?:link|img|iframe|object|embed|script)\b(?![^>]*data:,)[^>]*(?:href|src)=", html)
    links = re.findall(r'href="([^"]+)"', html)
    assert all(link.startswith(("#", "tables/", "figures/", "data:,")) for link in links)
    assert text.count("* plotly.js v") == 1


def test_every_link_leads_to_a_file_or_to_a_part_of_the_page(text, written):
    html = without_scripts(text)
    links = [link for link in re.findall(r'href="([^"]+)"', html) if link != "data:,"]
    ids = re.findall(r'id="([^"]+)"', html)

    assert len(links) > 20
    assert len(ids) == len(set(ids))
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (written[0].parent / link).is_file(), link


def test_the_same_results_give_the_same_bytes(tables, text, written):
    beside = sorted(str(path.relative_to(written[0].parent)) for path in written[1:])
    assert page(tables, exhibits(tables), beside) == text


def test_the_page_begins_with_the_answer_and_then_with_what_to_beware_of(text):
    parts = ["<h1>", 'class="headline"', ">Before you read on</h2>", ">Effects</h2>", ">Methods and provenance</h2>"]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)


def test_warnings_name_missing_cells_and_mixed_conditions(tables):
    said = " ".join(warnings(tables))
    assert re.search(r"\b1 of \d+ cells have no number: kernel-7 \(1 diverged\)", said)
    assert "2 devices in one comparison: cpu: synthetic" in said
    assert "2 states of the checkout" in said


def test_a_run_without_anything_to_beware_of_has_no_warnings(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=2, profile="standard", only=("batch-norm",)))
    assert warnings(tables) == []
    assert "Before you read on" not in page(tables, exhibits(tables))


def test_a_small_profile_is_called_exploratory_and_says_how_it_differs_from_the_study(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=2, profile="quick", only=("batch-norm",)))
    html = page(tables, exhibits(tables))

    assert warnings(tables)[0].startswith("Exploratory: the profile 'quick'")
    assert "data.kind shapes instead of cifar10" in deviations(tables)
    assert "training.max_epochs 8 instead of 10" in html
    # 0.7422 of the study's own images says nothing about these.
    assert tables.published.empty
    assert "ublished" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)


def test_the_standard_profile_does_not_differ_from_the_study(tables):
    assert deviations(tables) == ""


def test_a_confirmation_comes_before_the_estimate_that_led_to_it(tmp_path):
    plan = synthetic_plan(seeds=2, only=("batch-norm",))
    tables = synthetic_tables(tmp_path, plan, confirmations=("Confirmed. batch-norm on 10 fresh seeds: +3.1 points.",))
    html = page(tables, exhibits(tables))

    assert '<p class="headline">Confirmed.</p>' in html
    assert html.index("10 fresh seeds") < html.index("cannot be named yet")


def test_figures_that_the_results_do_not_have_are_named_with_the_design_to_run(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=2, only=("batch-norm",)))
    html = page(tables, exhibits(tables))

    for title, design in (("waterfall of the path", "path"), ("add-one against leave-one-out", "leave-one-out")):
        assert f"<li><b>{title}</b>" in html
        assert f"--design {design}</code>" in html


def test_texts_of_the_study_cannot_become_markup_or_end_a_script(tmp_path):
    tables = synthetic_tables(tmp_path, synthetic_plan(seeds=2, only=("batch-norm",)))
    evil = "</script><script>alert(1)</script>"
    known = tables.manifest
    variants = (known.variants[0], replace(known.variants[1], summary=evil))
    edited = replace(known, title=evil, variants=variants, command=evil, notes=(*known.notes, evil))
    tables.results.attrs["manifest"] = edited

    html = page(tables, exhibits(tables))

    assert html.count("alert(1)") == html.count("&lt;script&gt;alert(1)&lt;/script&gt;")
    assert html.count("alert(1)") >= 4
    (data,) = re.findall(r'<script type="application/json" id="figure-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["figures"]


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")

    class Untouchable:
        def __getattr__(self, name):
            pytest.fail(f"computed {name}")

    with pytest.raises(OutputError, match=r"file/report: cannot be written"):
        write_report(Untouchable(), tmp_path / "file" / "report")


def test_a_report_of_nothing_finished_is_a_page_that_says_so(tmp_path):
    plan = synthetic_plan(seeds=2, only=("batch-norm",))
    unfinished = [(variant.name, cell.seed) for variant in plan.variants for cell in variant.cells]
    tables = synthetic_tables(tmp_path / "store", plan, Numbers(missing=unfinished))

    html = write_report(tables, tmp_path / "report")[0].read_text()

    assert "no seed has finished" in html
    assert 'class="panel"' not in html


@pytest.mark.ordeal
def test_every_figure_is_drawn_without_network_at_two_widths_in_light_and_dark(written):
    with chromium() as driver:
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        for width, theme, mode in ((1400, LIGHT, "light"), (400, DARK, "dark")):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            set_mode(driver, mode)
            driver.get(written[0].as_uri())
            wait_until_drawn(driver)
            panels = driver.execute_script(PANELS)
            assert len(panels) == len([path for path in written if path.suffix == ".png"])
            assert all(panel["traces"] > 0 and panel["marks"] > 0 for panel in panels), panels
            assert all(panel["width"] <= width and panel["height"] > 100 for panel in panels), panels
            assert {panel["ink"] for panel in panels} == {rgb(theme.ink)}
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.execute_script("return performance.getEntriesByType('resource').map(it => it.name)") == []
        set_mode(driver, "light")  # without loading the page again
        assert {panel["ink"] for panel in driver.execute_script(PANELS)} == {rgb(LIGHT.ink)}
        assert [it for it in driver.get_log("browser") if it["level"] == "SEVERE"] == []


PANELS = """return [...document.querySelectorAll(".panel")].map(panel => ({
  traces: panel.data.length,
  marks: panel.querySelectorAll(".point path, .points path, .lines path, .js-line, .hm image, .hm path").length,
  width: panel.getBoundingClientRect().width,
  height: panel.querySelector(".main-svg").getBoundingClientRect().height,
  ink: getComputedStyle(panel.querySelector(".ytick text, .xtitle")).fill,
}))"""


def set_mode(driver, mode):
    features = [{"name": "prefers-color-scheme", "value": mode}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.execute_script("return new Promise(done => requestAnimationFrame(() => setTimeout(done, 500)))")


def wait_until_drawn(driver):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(
        lambda it: it.execute_script("return document.documentElement.dataset.figures") == "drawn"
    )


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


@pytest.mark.ordeal
def test_5000_cells_take_a_few_times_what_64_take_and_under_a_gigabyte(tmp_path):
    few = synthetic_plan(designs=("add-one",), seeds=4, profile="standard")
    many = synthetic_plan(designs=("pairs", "add-one", "leave-one-out", "path"), seeds=41, profile="standard")
    assert len(few.cells) == 64
    assert len(many.cells) > 5_000
    for plan, name in ((few, "few"), (many, "many")):
        synthetic_store(tmp_path / name, plan)

    for command in (
        ["results"],
        ["export", "--format", "parquet", "--output", str(tmp_path / "cells.parquet")],
        ["export", "--table", "effects", "--format", "latex", "--output", str(tmp_path / "effects.tex")],
        ["report", "--output", str(tmp_path / "report")],
    ):
        # The same command on a small store is the clock: processor time itself varies by half with what runs beside.
        unit, _ = run_measured([*command, "--study", "task3", "--store", str(tmp_path / "few")])
        seconds, peak_bytes = run_measured([*command, "--study", "task3", "--store", str(tmp_path / "many")])
        assert seconds < 7 * unit, (command, seconds, unit)
        assert peak_bytes < 1e9, command
    assert (tmp_path / "report" / "report.html").stat().st_size < 12e6


# The kernel's account of a child begins with the peak of the process that forked it; the process itself knows better.
MEASURED = """
import atexit, sys, time
from harness.hardware import peak_memory_bytes
atexit.register(lambda: print(time.process_time(), peak_memory_bytes(), file=sys.stderr))
from harness.cli import main
main()
"""


def run_measured(arguments):
    """Processor time and peak memory of `harness` with these arguments: other processes must not count."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True)
    seconds, peak_bytes = done.stderr.split()[-2:]
    return float(seconds), int(peak_bytes)
