"""Folders of images: their layout, what is done to their pixels, and what is said about them."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from sparsediag.data import datasets, folders, images
from sparsediag.data.datasets import load
from sparsediag.data.images import AnyImages
from tests.pictures import picture, pictures


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty home, and nothing kept from other tests."""
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "home"))
    datasets._load.cache_clear()
    yield tmp_path / "home"
    datasets._load.cache_clear()


def no_decoder(path, channels, size):
    raise AssertionError(f"{path} was decoded again")


def rows(*parts: AnyImages) -> set[bytes]:
    return {image.numpy().tobytes() for part in parts for image in part.pixels}


# layouts


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_train_and_validation(tmp_path, name):
    root = tmp_path / "pets"
    pictures(root / "train", 20)
    pictures(root / name, 3)
    picture(root / "test" / "without-a-class.png")
    pets = load(f"folder:{root}")
    assert (len(pets.train), len(pets.validation), len(pets.test)) == (36, 6, 4)
    files = rows(pets.train, pets.test)
    assert len(files) == 40
    first = np.asarray(Image.open(root / name / "cat" / "cat000.png")).transpose(2, 0, 1)
    assert np.array_equal(pets.validation.pixels[0].numpy(), first)
    assert pets.validation.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(pets.notes) == ["test"]
    assert str(root) in pets.notes["test"]


def test_all_three_splits(tmp_path):
    for split, count in (("train", 11), ("val", 2), ("test", 3)):
        pictures(tmp_path / "pets" / split, count)
    pets = load(f"folder:{tmp_path / 'pets'}")
    assert (len(pets.train), len(pets.validation), len(pets.test)) == (22, 4, 6)
    assert not pets.notes


def test_two_folders_for_validation(tmp_path):
    for split in ("train", "val", "valid"):
        pictures(tmp_path / "pets" / split, 11)
    with pytest.raises(ValueError, match="both val/ and valid/"):
        load(f"folder:{tmp_path / 'pets'}")


def test_classes_are_numbered_by_the_folders_in_train(tmp_path):
    root = tmp_path / "pets"
    pictures(root / "train", 6, ("ant", "cat", "dog"))
    pictures(root / "val", 2, ("dog", "cat"))
    pets = load(f"folder:{root}")
    assert pets.validation.labels.tolist() == [1, 1, 2, 2]
    assert "ant" in pets.notes["validation"]
    pictures(root / "val", 2, ("bird",))
    with pytest.raises(ValueError, match=r"pets' has class 'bird' in its validation images only"):
        load(f"folder:{root}")


def test_a_folder_for_validation_only(tmp_path):
    pictures(tmp_path / "pets" / "val", 3)
    name = f"folder:{tmp_path / 'pets'}"
    with pytest.raises(ValueError, match="no training images to normalise by"):
        load(name)
    pets = load(name, normalise="imagenet")
    assert len(pets.split("val")) == 6
    with pytest.raises(ValueError, match=r"pets has no train images; use the split validation"):
        pets.batches("train")


def test_a_folder_for_validation_beside_the_others_makes_another_run(tmp_path):
    """It was not read once, and a finished training without it is another one."""
    for split in ("train", "test"):
        pictures(tmp_path / "pets" / split, 11)
    before = folders.folder_digest(tmp_path / "pets")
    pictures(tmp_path / "pets" / "val", 1)
    assert folders.folder_digest(tmp_path / "pets").endswith("+validation")
    assert not before.endswith("+validation")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder_of_train_and_test(tmp_path, mode, channels):
    root = tmp_path / "sets" / "pets"
    pictures(root / "train", 20, ("dog", "cat"), mode=mode)
    pictures(root / "test", 3, ("cat", "dog", "cat"), mode=mode)
    picture(root / "train" / "cat" / "deep" / "er" / "new.PNG", mode=mode)
    picture(root / "train" / "cat" / ".hidden.png", mode=mode)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    pets = load(f"folder:{root}")
    assert (pets.name, pets.classes, pets.channels) == (f"folder:{root}", 2, channels)
    assert (pets.size, pets.scale) == (8, 255)
    assert (len(pets.train), len(pets.validation), len(pets.test)) == (37, 4, 6)
    assert pets.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = np.asarray(Image.open(root / "test" / "cat" / "cat000.png")).reshape(8, 8, channels)
    assert np.array_equal(pets.test.pixels[0].permute(1, 2, 0).numpy(), first)
    labels = torch.cat([pets.train.labels, pets.validation.labels])
    assert labels.bincount().tolist() == [21, 20]


def test_folder_constants_come_from_its_training_pixels(tmp_path):
    pets = load(f"folder:{pictures(tmp_path / 'pets', 20)}")
    pixels = pets.train.pixels.double() / 255
    assert pets.mean.shape == pets.std.shape == (3, 1, 1)
    torch.testing.assert_close(pets.mean.double().flatten(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(pets.std.double().flatten(), pixels.std((0, 2, 3)))


def test_folder_of_classes_holds_a_tenth_out(tmp_path):
    root = pictures(tmp_path / "pets", 20)
    pets = load(f"folder:{root}")
    assert (len(pets.train), len(pets.validation), len(pets.test)) == (33, 3, 4)
    parts = [rows(pets.train), rows(pets.validation), rows(pets.test)]
    files = {np.asarray(Image.open(p)).transpose(2, 0, 1).tobytes() for p in root.rglob("*.png")}
    assert set.union(*parts) == files
    assert len(files) == sum(map(len, parts)) == 40
    datasets._load.cache_clear()
    again = load(f"folder:{root}")
    assert torch.equal(again.test.pixels, pets.test.pixels)
    assert torch.equal(again.train.labels, pets.train.labels)


def test_folder_below_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    pictures(tmp_path / "pets", 6)
    assert load("folder:~/pets").classes == 2


def test_grey_among_colour_is_spread_over_the_channels(tmp_path):
    root = pictures(tmp_path / "pets", 6)
    picture(root / "cat" / "grey.png", mode="L", value=77)
    picture(root / "cat" / "palette.png", mode="P")
    picture(root / "cat" / "clear.png", mode="RGBA", value=(1, 2, 3, 4))
    picture(root / "cat" / "cmyk.jpg", mode="CMYK")
    glass = Image.open(root / "cat" / "palette.png")
    glass.save(root / "cat" / "glass.png", transparency=bytes(range(200)))  # PIL warns of these
    pets = load(f"folder:{root}")
    found = rows(pets.train, pets.validation, pets.test)
    assert pets.channels == 3
    assert bytes([77]) * 192 in found
    assert b"\x01" * 64 + b"\x02" * 64 + b"\x03" * 64 in found


def test_one_level_gives_zeros_and_not_nan(tmp_path):
    root = pictures(tmp_path / "pets", 6, value=(9, 9, 9))
    pets = load(f"folder:{root}")
    assert pets.normalise(pets.train.pixels).abs().max() < 1e-5


def test_folder_is_decoded_once(place, tmp_path, monkeypatch):
    name = f"folder:{pictures(tmp_path / 'pets', 6)}"
    first = load(name)
    assert len(first.train.pixels) == len(first.train)
    assert [p.suffix for p in (place / "decoded").iterdir()] == [".npy"]
    monkeypatch.setattr(images, "read_image", no_decoder)
    assert load(name) is first
    datasets._load.cache_clear()
    second = load(name)
    assert second is not first
    assert torch.equal(second.train.pixels, first.train.pixels)
    assert torch.equal(second.train.labels, first.train.labels)


def test_touched_file_is_decoded_again(tmp_path, monkeypatch):
    root = pictures(tmp_path / "pets", 6)
    load(f"folder:{root}")
    for file in root.rglob("*.png"):
        os.utime(file, ns=(0, 1))
    monkeypatch.setattr(images, "read_image", no_decoder)
    with pytest.raises(AssertionError, match="was decoded again"):
        load(f"folder:{root}")


def test_changed_folder_is_decoded_again(tmp_path):
    root = pictures(tmp_path / "pets", 6)
    before = load(f"folder:{root}")
    old = rows(before.train, before.validation, before.test)
    picture(root / "cat" / "cat000.png", value=(1, 2, 3))
    after = load(f"folder:{root}")
    new = b"\x01" * 64 + b"\x02" * 64 + b"\x03" * 64
    assert new not in old
    assert new in rows(after.train, after.validation, after.test)
    picture(root / "cat" / "one-more.png")
    assert len(load(f"folder:{root}").train) == len(after.train) + 1


def test_an_image_that_changes_before_it_is_decoded_is_refused(tmp_path):
    pets = load(f"folder:{pictures(tmp_path / 'pets', 6)}")
    picture(pets.test.root / pets.test.files[0][0], value=(1, 2, 3))
    with pytest.raises(ValueError, match=r"\.png' has changed since"):
        pets.batches("test")


@pytest.mark.parametrize("left", [b"", b"not a tensor", None])
def test_broken_cache_is_decoded_again(place, tmp_path, left):
    name = f"folder:{pictures(tmp_path / 'pets', 6)}"
    first = load(name).train.pixels.clone()
    (cache,) = (place / "decoded").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if left is None else left)
    datasets._load.cache_clear()
    assert torch.equal(load(name).train.pixels, first)
    assert len(cache.read_bytes()) == len(whole)
    assert [p.name for p in (place / "decoded").iterdir()] == [cache.name]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; need one with train/<class>"):
        load(f"folder:{tmp_path / 'nowhere'}")


def test_folder_with_too_little(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds 0 training images of 0 classes; need 11 or more"):
        load(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match="holds 20 training images of 1 classes"):
        load(f"folder:{pictures(tmp_path / 'cats', 20, ('cat',))}")
    with pytest.raises(ValueError, match="holds 10 training images of 2 classes"):
        load(f"folder:{pictures(tmp_path / 'few', 5)}")
    pictures(tmp_path / "above" / "pets" / "train", 11)
    with pytest.raises(ValueError, match=rf"did you mean folder:{tmp_path / 'above' / 'pets'}"):
        load(f"folder:{tmp_path / 'above'}")


def test_images_of_two_sizes(tmp_path):
    root = pictures(tmp_path / "pets", 6)
    picture(root / "dog" / "odd.png", size=(6, 9))
    with pytest.raises(ValueError, match=r"odd\.png' is 6 x 9 pixels; need 8 x 8"):
        load(f"folder:{root}")


def test_images_that_are_not_square(tmp_path):
    root = pictures(tmp_path / "pets", 6, size=(8, 6))
    with pytest.raises(ValueError, match=r"png' is 8 x 6 pixels; need 8 x 8, as the first has"):
        load(f"folder:{root}")


def test_image_that_cannot_be_read(place, tmp_path):
    root = pictures(tmp_path / "pets", 6)
    whole = (root / "cat" / "cat000.png").read_bytes()
    (root / "dog" / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"torn\.png' is no image to use: .* Convert or remove it"):
        load(f"folder:{root}")
    (root / "dog" / "torn.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"torn\.png' is no image to use"):
        load(f"folder:{root}")
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(root / "dog" / "torn.png")
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        load(f"folder:{root}")
    assert not (place / "moments").exists()


# what is done to pixels


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (9, 9), (12, 40)])
def test_resized_as_by_torchvision(tmp_path, mode, shape):
    picture(tmp_path / "a.png", mode=mode, size=shape)
    expected = transforms.Compose([transforms.Resize(12), transforms.CenterCrop(12)])(
        Image.open(tmp_path / "a.png").convert("RGB")
    )
    found = images.read_image(tmp_path / "a.png", 3, 12)
    assert np.array_equal(found, np.asarray(expected))


def test_images_of_unequal_size_in_one_size(place, tmp_path, monkeypatch):
    root = tmp_path / "pets"
    for i in range(24):
        picture(root / "ab"[i % 2] / f"{i}.png", size=(9 + i, 30 - i))
    name = f"folder:{root}"
    first, second = load(name, size=8), load(name, size=12)
    assert (first.train.shape, second.train.shape) == ((3, 8, 8), (3, 12, 12))
    assert first.batches("val")[0][0].shape == (2, 3, 8, 8)
    monkeypatch.setattr(images, "MOMENTS_OF", 5)
    shutil.rmtree(place / "moments")
    datasets._load.cache_clear()
    few = load(name, size=8)  # other constants, but not by much
    assert 0 < (few.mean - first.mean).abs().max() < 0.05
    monkeypatch.setattr(images, "read_image", no_decoder)
    datasets._load.cache_clear()
    assert torch.equal(load(name, size=8).mean, few.mean)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"size {size}: need 1 or more"):
            load(name, size=size)


def test_only_the_images_that_are_asked_for_are_decoded(tmp_path, monkeypatch):
    pets = load(f"folder:{pictures(tmp_path / 'pets', 20)}", normalise="imagenet")
    decoded, decode = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda *a: decoded.append(a[0]) or decode(*a))
    (x, _), *_ = pets.batches("train", images=5, batch=5)
    assert len(decoded) == len({*decoded}) == 5
    monkeypatch.undo()
    everything = torch.cat([x for x, _ in pets.batches("train")])
    assert torch.equal(everything[:5], x)
    pixels = x * pets.std + pets.mean
    assert torch.equal(pets.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert {image.numpy().tobytes() for image in (pixels * 255).round().to(torch.uint8)} <= {
        np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in decoded
    }


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    pets = load(f"folder:{pictures(tmp_path / 'pets', 6)}", normalise="imagenet")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"0\.0 GB in .*home', .*SPARSEDIAG_DATA"):
        _ = pets.train.pixels
