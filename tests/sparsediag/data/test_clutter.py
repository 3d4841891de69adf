"""Cluttered digits: the same ones each time, of different scans in training and test."""

from __future__ import annotations

import pytest
import torch

import sparsediag as sd
from sparsediag.data.clutter import clutter
from sparsediag.data.images import Images


@pytest.fixture
def scans() -> Images:
    digits = sd.data.load("digits").test
    return Images(digits.pixels[:40], digits.labels[:40])


def test_the_data_set_is_normalised_and_has_ten_thousand_test_images() -> None:
    data = sd.data.load("clutter")
    assert (len(data.train), len(data.validation), len(data.test)) == (5400, 600, 10_000)
    assert (data.channels, data.size, data.classes) == (1, 12, 10)
    x = data.normalise(data.train.pixels)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01
    assert int(data.test.labels.bincount().min()) > 800


def test_images_are_the_same_each_time(scans: Images) -> None:
    state = torch.random.get_rng_state()
    one, again, other = (clutter(scans, 50, name) for name in ("train", "train", "test"))
    assert torch.equal(one.pixels, again.pixels)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.pixels, other.pixels)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_image_has_the_class_of_its_scan() -> None:
    """Scans of one bright pixel, at a place of its own for each class, stay apart when warped."""
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    pixels[0, 0, 1:3], pixels[1, 0, 5:7] = 16, 16
    made = clutter(Images(pixels, torch.tensor([0, 1])), 200, "train")
    ink = (made.pixels.double() / 255 - 0.3).clamp(min=0).squeeze(1)
    rows = (ink.sum(2) * torch.arange(12)).sum(1) / ink.sum((1, 2))
    assert float((rows > 5.5).eq(made.labels == 1).double().mean()) > 0.9
