import itertools

import numpy as np
import pytest
import torch
from planted import batches_between, planted_images

from harness.errors import StudyError
from harness.trainers.images.augment import Cutout, Mixup, make_edits
from harness.trainers.images.data.batches import (
    Preprocess,
    Split,
    TrainingBatches,
    evaluation_batches,
    make_splits,
    split_rows,
)
from harness.trainers.images.schedule import make_schedule
from harness.trainers.images.settings import Augmentation, Preprocessing, Training

CPU = torch.device("cpu")
SPLITS = make_splits(planted_images(), fraction=0.2, seed=0, device=CPU)
PREPROCESS = Preprocess(Preprocessing(), width=8, device=CPU, dtype=torch.float32)


def batches(seed: int = 0, augmentation: Augmentation | None = None, batch_size: int = 15) -> TrainingBatches:
    edits = make_edits(augmentation or Augmentation(), height=8, width=8)
    return TrainingBatches(SPLITS.train, batch_size=batch_size, edits=edits, preprocess=PREPROCESS, seed=seed)


def test_the_split_takes_each_row_once_and_depends_on_its_own_seed_alone():
    train, validation = split_rows(50_000, fraction=0.1, seed=0)
    assert (len(train), len(validation)) == (45_000, 5_000)
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(50_000))
    assert torch.equal(split_rows(50_000, fraction=0.1, seed=0)[1], validation)
    assert not torch.equal(split_rows(50_000, fraction=0.1, seed=1)[1], validation)


def test_the_validation_share_is_rounded_not_truncated():
    # 0.29 * 100 is 28.999999999999996 in floating point
    assert len(split_rows(100, fraction=0.29, seed=0)[1]) == 29


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_an_empty_split_is_an_error_of_the_user(fraction):
    with pytest.raises(StudyError, match="both need at least one"):
        split_rows(100, fraction=fraction, seed=0)


def test_read_only_arrays_are_used_in_place():
    arrays = planted_images()
    arrays.train_images.flags.writeable = False
    splits = make_splits(arrays, fraction=0.2, seed=0, device=CPU)
    assert splits.train.images.pixels.data_ptr() == arrays.train_images.ctypes.data


def test_an_epoch_sees_each_image_at_most_once_and_drops_the_short_batch():
    order = batches().order(0)
    assert len(order) == 150  # ten batches of 15 out of 160 training images
    assert len(order.unique()) == 150
    assert set(order.tolist()) <= set(SPLITS.train.rows.tolist())


def test_orders_differ_between_epochs_and_seeds_and_are_repeatable():
    orders = [batches(seed).order(epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(orders, 2))
    assert torch.equal(batches().order(1), orders[1])


def test_batches_hold_the_images_of_the_order_with_their_labels():
    rows = batches().order(0)[:15]
    inputs, labels = next(iter(batches_between(batches(), 0, 1)))
    arrays = planted_images()
    expected = (arrays.train_images[rows].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(inputs.numpy(), expected, atol=1e-6)
    assert np.array_equal(labels.numpy(), arrays.train_labels[rows])


def test_batches_from_the_middle_are_those_of_the_whole_run():
    """Over the end of an epoch (after 10 steps), with augmentation: a resumed cell sees what it would have seen."""
    source = batches(augmentation=Augmentation(crop_padding=2, horizontal_flip=0.5))
    whole = [inputs for inputs, _ in batches_between(source, 0, 25)]
    parts = [
        inputs for first, last in [(0, 7), (7, 13), (13, 25)] for inputs, _ in batches_between(source, first, last)
    ]
    assert len(whole) == 25
    assert all(map(torch.equal, whole, parts))


def test_augmentation_leaves_the_order_of_batches_alone():
    plain = [labels for _, labels in batches_between(batches(), 0, 20)]
    augmented = [
        labels for _, labels in batches_between(batches(augmentation=Augmentation(horizontal_flip=0.5)), 0, 20)
    ]
    assert all(map(torch.equal, plain, augmented))


def test_one_edit_more_leaves_the_draws_of_the_others_alone():
    # Pixel values times 1 +- 0 are the same pixels, so that only the draws could differ.
    flips = [inputs for inputs, _ in batches_between(batches(augmentation=Augmentation(horizontal_flip=0.5)), 0, 10)]
    more = Augmentation(horizontal_flip=0.5, brightness=1e-9)
    assert all(map(torch.equal, flips, [inputs for inputs, _ in batches_between(batches(augmentation=more), 0, 10)]))


def test_cutout_and_mixup_leave_the_draws_of_the_others_alone():
    """No square is cut where it has no side, and shares of one are no mixture."""
    flip = {"augmentation": Augmentation(horizontal_flip=0.5)}
    plain = list(batches_between(batches(**flip), 0, 10))
    source = batches(**flip)
    edits = (*source.edits, Cutout(0, (0.5, 0.5, 0.5)))
    more = TrainingBatches(SPLITS.train, batch_size=15, edits=edits, preprocess=PREPROCESS, seed=0)
    assert all(
        torch.equal(*pair) for pair in zip(inputs_of(plain), inputs_of(batches_between(more, 0, 10)), strict=True)
    )

    class Alone(Mixup):
        def draw(self, count, *, seed, epoch):
            return torch.ones_like(super().draw(count, seed=seed, epoch=epoch))

    mixed = TrainingBatches(
        SPLITS.train,
        batch_size=15,
        edits=source.edits,
        preprocess=PREPROCESS,
        seed=0,
        mixup=Alone(0.4),
        num_classes=3,
    )
    for (inputs, labels), (ours, shares) in zip(plain, batches_between(mixed, 0, 10), strict=True):
        assert torch.equal(inputs, ours)
        assert torch.equal(labels, shares.argmax(1))


def inputs_of(found):
    return [inputs for inputs, _ in found]


def test_mixup_mixes_images_and_labels_by_the_same_shares():
    def source(mixup):
        return TrainingBatches(
            SPLITS.train, batch_size=15, edits=(), preprocess=PREPROCESS, seed=3, mixup=mixup, num_classes=3
        )

    plain = list(batches_between(source(None), 0, 20))
    mixed = list(batches_between(source(Mixup(0.4)), 0, 20))
    again = list(batches_between(source(Mixup(0.4)), 10, 20))
    for epoch in (0, 1):
        shares = Mixup(0.4).draw(150, seed=3, epoch=epoch)
        for batch in range(10):
            (inputs, labels), (ours, found) = plain[10 * epoch + batch], mixed[10 * epoch + batch]
            for n in range(15):  # image n with image 14 - n
                share = shares[15 * batch + n]
                torch.testing.assert_close(ours[n], share * inputs[n] + (1 - share) * inputs[14 - n])
                expected = torch.zeros(3)
                expected[labels[n]] += share
                expected[labels[14 - n]] += 1 - share
                torch.testing.assert_close(found[n], expected)
    assert all(torch.equal(ours, later) for (ours, _), (later, _) in zip(mixed[10:], again, strict=True))


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1.0, 8.0])
def test_shares_of_mixup_are_beta_s(alpha):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)); also where almost every share is 0 or 1."""
    shares = Mixup(alpha).draw(40_000, seed=0, epoch=0)
    assert ((shares >= 0) & (shares <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    if alpha > 0.01:
        assert shares.mean().item() == pytest.approx(0.5, abs=5 * (variance / 40_000) ** 0.5)
    assert (shares - 0.5).square().mean().item() == pytest.approx(variance, rel=0.02)
    assert not torch.equal(shares, Mixup(alpha).draw(40_000, seed=1, epoch=0))


def test_more_images_a_batch_than_there_are_is_an_error_of_the_user():
    with pytest.raises(StudyError, match=r"training\.batch_size: 161 is more than the 160 training images"):
        batches(batch_size=161)


def test_evaluation_sees_every_image_once_in_order_with_a_short_last_batch():
    split = SPLITS.validation
    found = list(evaluation_batches(split, batch_size=16, preprocess=PREPROCESS))
    assert [len(labels) for _, labels in found] == [16, 16, 8]
    assert torch.equal(torch.cat([labels for _, labels in found]), split.images.labels[split.rows])
    everything = PREPROCESS(split.images.pixels[split.rows])
    assert torch.equal(torch.cat([inputs for inputs, _ in found]), everything)


def test_preprocessing_takes_its_own_mean_and_deviation_for_each_channel():
    settings = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = SPLITS.test.images.pixels
    found = Preprocess(settings, width=8, device=CPU, dtype=torch.float32)(pixels)
    expected = (pixels.double() / 255 - torch.tensor(settings.mean).double()) / torch.tensor(settings.std).double()
    # Two float32 operations on values up to 3: errors of 4e-7 at most.
    torch.testing.assert_close(found.double(), expected.permute(0, 3, 1, 2), atol=1e-6, rtol=0)


def test_inputs_are_channels_last_in_the_network_s_precision():
    for resize in (None, 12):
        preprocess = Preprocess(Preprocessing(resize=resize), width=8, device=CPU, dtype=torch.bfloat16)
        inputs = preprocess(SPLITS.test.images.pixels)
        assert inputs.dtype == torch.bfloat16
        assert inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [5, 8, 20])
def test_resizing_is_torchvision_s_antialiased_bilinear(side):
    from torchvision.transforms.v2 import functional as reference

    pixels = SPLITS.test.images.pixels
    found = Preprocess(Preprocessing(resize=side), width=8, device=CPU, dtype=torch.float32)(pixels)
    floats = pixels.permute(0, 3, 1, 2) / 255
    expected = reference.normalize(reference.resize(floats, [side, side], antialias=True), [0.5] * 3, [0.25] * 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # the order of two float32 operations


def test_the_protocol_validates_every_351_steps_over_epochs_of_703():
    schedule = make_schedule(Training(), 45_000 // 64)
    assert schedule.steps_per_epoch == 703
    steps = [schedule.next_validation(0)]
    while steps[-1] < schedule.last_step:
        steps.append(schedule.next_validation(steps[-1]))
    assert steps[:4] == [351, 702, 1053, 1404]
    assert len(steps) == 20
    assert steps[-1] == 7020  # the ten steps to 7030 could change no number


@pytest.mark.parametrize(
    ("losses", "is_over"),
    [
        ([3.0, 2.0, 1.0], False),  # fewer than four
        ([1.0, 2.0, 3.0, 4.0], True),  # the oldest of four is the smallest
        ([1.0, 1.0, 1.0, 1.0], True),  # a tie counts as no improvement
        ([2.0, 1.0, 3.0, 3.0], False),
        ([2.0, 1.0, 3.0, 3.0, 3.0], True),
        ([1.0, 9.0, 2.0, 3.0, 1.9], False),  # only the last four count
    ],
)
def test_training_stops_when_of_the_last_four_losses_the_oldest_is_the_smallest(losses, is_over):
    assert make_schedule(Training(), 10).is_over(5 * len(losses), losses) == is_over


def test_training_ends_with_the_last_epoch():
    schedule = make_schedule(Training(max_epochs=2), 10)
    falling = [5.0, 4.0, 3.0, 2.0]
    assert not schedule.is_over(15, falling[:3])
    assert schedule.is_over(20, falling)


def test_fewer_steps_than_validations_is_an_error_of_the_user():
    with pytest.raises(StudyError, match=r"training\.validations_per_epoch: 2, but an epoch has 1 steps"):
        make_schedule(Training(), 1)


def test_the_length_of_a_split_is_that_of_its_rows():
    assert len(Split(SPLITS.test.images, torch.tensor([3, 4]))) == 2
