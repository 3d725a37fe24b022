"""The benchmark of Task 4 measures the same work on both sides."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.figures import FIGURES  # noqa: E402
from benchmarks.task4 import settings_of, train_harness  # noqa: E402
from benchmarks.task4_textbook import build_network, train_textbook  # noqa: E402
from benchmarks.workload import Workload, write_images  # noqa: E402
from harness.study.load import load_study  # noqa: E402
from harness.trainers.images.model_summary import variant_settings  # noqa: E402
from harness.trainers.images.models import build_model  # noqa: E402


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    workload = Workload(tmp_path_factory.mktemp("scratch"), 80, 1, "cpu")
    write_images(workload)
    return workload


def test_the_figure_can_be_asked_for():
    assert "task4" in FIGURES


def test_the_settings_are_the_studys_but_for_weights_and_epochs():
    settings, study = settings_of("float32", 1, 224), variant_settings(load_study("task4"), "baseline")
    assert settings.preprocessing == study.preprocessing
    assert settings.optimizer == study.optimizer
    assert settings.model.trained_layers == study.model.trained_layers
    assert settings.training.batch_size == study.training.batch_size


def test_both_train_the_same_parameters():
    ours = build_model(settings_of("float32", 1, 224).model, 10, image_size=(224, 224), seed=0)
    theirs = build_network()
    assert {name: (it.shape, it.requires_grad) for name, it in ours.named_parameters()} == {
        name: (it.shape, it.requires_grad) for name, it in theirs.named_parameters()
    }


@pytest.mark.parametrize(
    "train", [lambda *rest: train_harness(*rest, "float32", 1, 32), lambda *rest: train_textbook(*rest, 32)]
)
def test_an_epoch_is_timed_after_the_preparation_and_counts_the_images_that_were_trained(workload, train):
    calls = []
    facts = train(lambda: calls.append("ready"), workload)
    assert calls == ["ready"]
    assert facts["images"] == 64  # 72 of 80 images train, in whole batches of 32
    assert facts["epoch_seconds"] > 0
    assert facts["epoch_cpu_seconds"] > 0.1
