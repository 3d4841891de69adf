"""Crops against all crops there are, and the batches of an epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediag.core.rng import stream
from sparsediag.data import datasets
from training.config import Run
from training.loader import crop_flip, draw_crops, epoch_indices, load_batch


def _coordinates(n: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Images whose two channels say the row and the column of a pixel, from 1 on."""
    rows, columns = torch.arange(1, height + 1), torch.arange(1, width + 1)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(dtype).repeat(n, 1, 1, 1)


def _draw(pixels: Tensor, seed: int = 0, padding: int = 4) -> Tensor:
    crops = draw_crops([len(pixels)], torch.Generator().manual_seed(seed), padding)
    return crop_flip(pixels, crops.to(pixels.device), padding)


def _windows(image: Tensor, padding: int) -> Tensor:
    """Every crop of one image, unmirrored and then mirrored: (2, places, C, H, W)."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    crops = padded.unfold(1, height, 1).unfold(2, width, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return torch.stack([crops, crops.flip(-1)])


@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 2), (6, 9, 2), (5, 5, 0)])
def test_every_image_is_one_crop_and_all_crops_come(height: int, width: int, padding: int) -> None:
    pixels = _coordinates(1000, height, width)
    windows = _windows(pixels[0], padding).flatten(2)
    same = (_draw(pixels, padding=padding).flatten(1)[:, None, None] == windows).all(-1)
    assert (same.sum((1, 2)) == 1).all()
    assert same.any(0).all()
    mirrored = same.any(2)[:, 1].float().mean()
    assert abs(mirrored - 0.5) < 4 * 0.5 / 1000**0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_same_crops_in_every_type(dtype: torch.dtype) -> None:
    pixels = _coordinates(20, 8, 8)
    crops = _draw(pixels.to(dtype))
    assert crops.dtype == dtype
    assert crops.shape == pixels.shape
    assert torch.equal(crops, _draw(pixels).to(dtype))


def test_the_generator_alone_decides() -> None:
    pixels = _coordinates(20, 8, 8)
    before, state = pixels.clone(), torch.get_rng_state()
    crops = _draw(pixels, seed=1)
    torch.manual_seed(5)
    assert torch.equal(crops, _draw(pixels, seed=1))
    assert not torch.equal(crops, _draw(pixels, seed=2))
    torch.set_rng_state(state)
    _draw(pixels)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("batch", [1170, 500, 167, 7, 1])  # 1170 = 7 * 167 + 1
def test_crops_are_drawn_batch_by_batch_behind_the_order(batch: int) -> None:
    run = Run.of(
        {"data": "digits", "augment": "crop_flip", "optim": {"batch_size": batch}, "seed": 3}
    )
    data = datasets.load("digits")
    chance = stream("epoch", 3, 5)
    order = torch.randperm(1170, generator=chance).split(batch)
    batches = [load_batch(data, *indices) for indices in epoch_indices(run, data, 5)]
    assert len(batches) == len(order) - (len(order[-1]) == 1 < batch)
    for (x, y), chosen in list(zip(batches, order, strict=False))[:200]:
        n = len(chosen)
        top, left = torch.randint(0, 9, (2, n, 1), generator=chance)
        flips = torch.randint(0, 2, (n, 1), generator=chance)
        padded = F.pad(data.train.pixels[chosen], (4,) * 4)
        crops = torch.stack(
            [image[:, i : i + 8, j : j + 8] for image, i, j in zip(padded, top, left, strict=True)]
        )
        turned = torch.where(flips[..., None, None] > 0, crops.flip(-1), crops)
        assert torch.equal(x, data.normalise(turned))
        assert torch.equal(y, data.train.labels[chosen])


def test_images_are_cropped_if_asked_or_in_colour() -> None:
    grey = datasets.load("digits")
    colour = datasets.Images(grey.train.pixels.expand(-1, 3, -1, -1), grey.train.labels)
    for data, auto in ((grey, 1), (replace(grey, train=colour), 2)):
        for augment, tensors in {"none": 1, "crop_flip": 2, "auto": auto}.items():
            run = Run.of({"data": "digits", "augment": augment})
            assert len(next(epoch_indices(run, data, 0))) == tensors


def test_every_epoch_and_seed_has_another_order() -> None:
    data, orders = datasets.load("digits"), set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        batches = epoch_indices(Run(data="digits", seed=seed), data, epoch)
        orders.add(tuple(torch.cat([order for (order,) in batches]).tolist()))
    assert all(sorted(order) == list(range(1170)) for order in orders)
    assert len(orders) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_crops_on_every_device() -> None:
    pixels = _coordinates(100, 8, 8)
    crops = _draw(pixels.cuda())
    assert crops.is_cuda
    assert torch.equal(crops.cpu(), _draw(pixels))
