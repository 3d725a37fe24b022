"""What is read back from the trained objects is compared with what was asked for, and with nothing finer."""

import pytest
import torch
from planted import TINY, image_cell, planted_images, trained

from harness.trainers.images.arithmetic import environment
from harness.trainers.images.settings import Settings, with_overrides
from harness.trainers.images.train import build_parts


@pytest.mark.parametrize("num_images", [285, 95, 150, 155])
def test_a_held_out_share_that_ends_in_half_an_image_trains(tmp_path, num_images):
    """28.5, 9.5, 15.0 and 15.5 images: no number of images is exactly a tenth of three of them."""
    settings = with_overrides(Settings(), TINY | {"training.validation_fraction": 0.1, "training.max_epochs": 1})
    arrays, cpu = planted_images(train=num_images), torch.device("cpu")
    assert trained(image_cell(settings), tmp_path, arrays).final
    with environment(threads=1, device=cpu, precision="float32"):
        splits = build_parts(settings, arrays, seed=0, device=cpu).splits
    assert len(splits.validation) == round(num_images * 0.1)
