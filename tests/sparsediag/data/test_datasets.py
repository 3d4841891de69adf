"""Data sets: what is read, how it is split, and what is said when it cannot be."""

from __future__ import annotations

import os
import pickle
import urllib.error
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from sparsediag.core.device import with_index
from sparsediag.data import datasets as data
from sparsediag.data import images
from sparsediag.data.datasets import DATASETS, Images, home, load


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty home, nothing kept from other tests, and no network."""
    monkeypatch.setenv("SPARSEDIAG_DATA", str(tmp_path / "home"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    data._load.cache_clear()
    yield tmp_path / "home"
    data._load.cache_clear()


def no_network(*args, **kwargs):
    raise urllib.error.URLError("no network")


def no_decoder(path):
    raise AssertionError(f"{path} was decoded again")


def picture(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (8, 8), value=None) -> None:
    """One image file; without a value, noise that its name seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        noise = np.random.default_rng(list(path.name.encode()))
        value = noise.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(value).convert(mode).save(path)
    else:
        Image.new(mode, size, value).save(path)


def pictures(root: Path, count: int, classes=("cat", "dog"), **options) -> Path:
    for name in classes:
        for i in range(count):
            picture(root / name / f"{name}{i:03}.png", **options)
    return root


def rows(*parts: Images) -> set[bytes]:
    return {image.numpy().tobytes() for part in parts for image in part.pixels}


# home


def test_home_follows_the_environment(monkeypatch, tmp_path):
    assert home() == tmp_path / "home"
    monkeypatch.setenv("SPARSEDIAG_DATA", "~/sets")
    assert home() == Path.home() / "sets"
    monkeypatch.delenv("SPARSEDIAG_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "sparsediag"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path.home() / ".cache" / "sparsediag"


# digits, splits, batches


def test_digits():
    digits = load("digits")
    assert (digits.name, digits.classes, digits.channels, digits.size) == ("digits", 10, 1, 8)
    for split, count in (("train", 1170), ("validation", 130), ("test", 497)):
        part = digits.split(split)
        assert len(part) == count
        assert part.pixels.shape == (count, 1, 8, 8)
        assert part.pixels.dtype == torch.uint8
        assert part.labels.shape == (count,)
        assert part.labels.dtype == torch.int64
        assert part.labels.unique().tolist() == list(range(10))
    assert digits.train.pixels.max() == digits.scale == 16
    assert digits.test.labels[:8].tolist() == [6, 5, 5, 7, 9, 9, 8, 4]  # never to move


def test_digits_constants_are_those_of_the_training_pixels():
    digits = load("digits")
    std, mean = torch.std_mean(digits.train.pixels / 16)
    assert digits.mean.shape == digits.std.shape == (1, 1, 1)
    assert digits.mean.item() == pytest.approx(mean.item(), abs=5e-5)
    assert digits.std.item() == pytest.approx(std.item(), abs=5e-5)


def test_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    digits = load("digits")
    everything = {image.tobytes() for image in load_digits().data.astype(np.uint8)}
    assert rows(digits.train, digits.validation, digits.test) == everything
    assert len(everything) == 1797  # all different, so equal sizes mean disjoint splits


def test_split_stays_the_same_and_leaves_the_global_rng_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = load("digits")
    first.batches(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    data._load.cache_clear()
    torch.manual_seed(4)
    second = load("digits")
    assert second is not first
    for split in ("train", "validation", "test"):
        assert torch.equal(first.split(split).pixels, second.split(split).pixels)
        assert torch.equal(first.split(split).labels, second.split(split).labels)


def test_second_load_is_the_same_object():
    assert load("digits") is load("digits", device=torch.device("cpu"))


def test_a_gpu_is_the_same_with_its_number_and_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert with_index("cuda") == with_index("cuda:1") == torch.device("cuda:1")
    assert with_index("cuda:0") == torch.device("cuda:0")
    seen = []
    with monkeypatch.context() as spy:
        spy.setattr(data, "_load", lambda name, device, *_: seen.append(device))
        for device in ("cuda", "cuda:1", torch.device("cuda"), "cuda:0"):
            load("digits", device=device)
    assert seen == [torch.device("cuda:1")] * 3 + [torch.device("cuda:0")]


def test_normalise_closed_form():
    digits = load("digits")
    pixels = torch.tensor([0, 8, 16], dtype=torch.uint8).view(3, 1, 1, 1)
    mean, std = DATASETS["digits"].moments[0]
    want = torch.tensor([(v - mean) / std for v in (0, 0.5, 1)])
    got = digits.normalise(pixels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.flatten(), want)


def test_normalised_training_pixels_have_mean_0_and_spread_1():
    digits = load("digits")
    std, mean = torch.std_mean(digits.normalise(digits.train.pixels))
    assert abs(mean) < 1e-3
    assert abs(std - 1) < 1e-3


def test_batches_hold_normalised_training_images():
    digits = load("digits")
    batches = digits.batches(images=300)
    assert [len(x) for x, _ in batches] == [128, 128, 44]
    assert all(len(x) == len(y) for x, y in batches)
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    assert x.shape == (300, 1, 8, 8)
    assert x.dtype == torch.float32
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(
            digits.normalise(digits.train.pixels), digits.train.labels, strict=True
        )
    }
    assert [known[image.numpy().tobytes()] for image in x] == y.tolist()
    assert len({image.numpy().tobytes() for image in x}) == 300


def test_batches_of_fewer_images_are_the_first_of_more():
    digits = load("digits")
    few = torch.cat([y for _, y in digits.batches("test", images=100, batch=32)])
    everything = torch.cat([y for _, y in digits.batches("test", batch=50)])
    assert len(everything) == 497
    assert torch.equal(few, everything[:100])
    assert len(digits.batches("test", images=10_000, batch=497)) == 1


def test_batches_depend_on_their_seed_alone():
    digits = load("digits")
    torch.manual_seed(1)
    a, b = digits.batches(images=64, seed=1)[0]
    torch.manual_seed(2)
    c, d = digits.batches(images=64, seed=1)[0]
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, digits.batches(images=64, seed=2)[0][0])


def test_everything_goes_to_the_device():
    digits = load("digits", device="meta")
    parts = (digits.train, digits.validation, digits.test)
    for tensor in (digits.mean, digits.std, *(t for p in parts for t in (p.pixels, p.labels))):
        assert tensor.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_the_same_on_cuda():
    (here, labels), *_ = load("digits").batches(seed=7)
    there = load("digits", device="cuda")
    assert all(there.split(s).pixels.is_cuda for s in ("train", "validation", "test"))
    (x, y), *_ = there.batches(seed=7)
    torch.testing.assert_close(x.cpu(), here)
    assert torch.equal(y.cpu(), labels)


def test_unknown_split_and_empty_batches_are_refused():
    digits = load("digits")
    with pytest.raises(ValueError, match=r"unknown split 'tset'; did you mean 'test'\? Known: "):
        digits.split("tset")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        digits.batches("val")
    with pytest.raises(ValueError, match="images=0, batch=128: need 1 or more"):
        digits.batches(images=0)
    with pytest.raises(ValueError, match="images=None, batch=0: need 1 or more"):
        digits.batches(batch=0)


def test_unknown_name_says_what_there_is():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar'; did you mean 'cifar") as error:
        load("cifar")
    assert "tinyimagenet" in str(error.value)
    assert "folder:PATH" in str(error.value)
    assert "\n" not in str(error.value)


# the sets that torchvision reads, in their official files


def idx(path: Path, array: np.ndarray) -> None:
    """A file as Yann LeCun's page describes it."""
    head = [0x0800 + array.ndim, *array.shape]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(n.to_bytes(4, "big") for n in head) + array.tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_files(place, capsys, name, folder):
    noise, want = np.random.default_rng(0), {}
    for part, count in (("train", 40), ("t10k", 7)):
        pixels = noise.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        want[part] = {image.tobytes() for image in pixels}
        idx(place / folder / "raw" / f"{part}-images-idx3-ubyte", pixels)
        idx(place / folder / "raw" / f"{part}-labels-idx1-ubyte", pixels[:, 0, 0] % 10)
    mnist = load(name)
    assert (mnist.classes, mnist.channels, mnist.size, mnist.scale) == (10, 1, 28, 255)
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (36, 4, 7)
    assert rows(mnist.train, mnist.validation) == want["train"]
    assert rows(mnist.test) == want["t10k"]
    for part in (mnist.train, mnist.validation, mnist.test):
        assert torch.equal(part.labels, part.pixels[:, 0, 0, 0].long() % 10)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_files(place, monkeypatch, capsys, name, classes):
    kind = getattr(datasets, name.upper())
    files = [file for file, _ in kind.train_list + kind.test_list]
    monkeypatch.setattr(kind, "train_list", [(file, None) for file in files[:-1]])
    monkeypatch.setattr(kind, "test_list", [(files[-1], None)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})
    folder = place / kind.base_folder
    folder.mkdir(parents=True)
    noise, want = np.random.default_rng(0), set()
    for file in files:
        flat = noise.integers(0, 256, (20, 3072), dtype=np.uint8)
        if file != files[-1]:
            want |= {image.tobytes() for image in flat}
        labels = [int(image[0]) % classes for image in flat]
        key = "labels" if classes == 10 else "fine_labels"
        # Python 2 wrote 0 and 1 for the flags of a dtype
        packed = pickle.dumps({"data": flat, key: labels}, protocol=2)
        packed = packed.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
        (folder / file).write_bytes(packed)
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: []}))
    cifar = load(name)
    count = 20 * (len(files) - 1)
    assert (cifar.classes, cifar.channels, cifar.size) == (classes, 3, 32)
    assert (len(cifar.train), len(cifar.validation)) == (count - count // 10, count // 10)
    assert rows(cifar.train, cifar.validation) == want
    for part in (cifar.train, cifar.validation, cifar.test):
        assert torch.equal(part.labels, part.pixels[:, 0, 0, 0].long() % classes)
    assert cifar.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert cifar.std.flatten().tolist() == pytest.approx([0.2023, 0.1994, 0.2010])
    assert capsys.readouterr().out == ""


def test_torchvision_is_kept_quiet(monkeypatch, capsys):
    class Loud:
        def __init__(self, root, *, train, download):
            print("Downloading")
            warnings.warn("an old pickle", stacklevel=1)
            self.data = torch.zeros(20, 28, 28, dtype=torch.uint8)
            self.targets = [0] * 20

    monkeypatch.setattr(datasets, "MNIST", Loud)
    assert len(load("mnist").train) == 18
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("tinyimagenet", "tiny-imagenet-200.zip"),
    ],
)
def test_without_files_or_network_one_line_says_what_to_do(place, capsys, name, file):
    with pytest.raises(OSError, match=f"no {name} in ") as error:
        load(name)
    said = str(error.value)
    assert str(place) in said
    assert file in said
    assert "SPARSEDIAG_DATA" in said
    assert "\n" not in said
    assert capsys.readouterr().out == ""


# Tiny ImageNet


def tiny(root: Path) -> Path:
    """Three classes of the official layout, one image of them grey, and the unlabelled test."""
    root = root / "tiny-imagenet-200"
    for wnid in ("n02", "n01", "n03"):
        for i in range(10):
            mode = "L" if (wnid, i) == ("n01", 0) else "RGB"
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", mode=mode)
    lines = []
    for i, wnid in enumerate(("n03", "n01", "n02", "n01")):
        value = (50 * int(wnid[-1]), 0, 0)
        picture(root / "val" / "images" / f"val_{i}.JPEG", value=value)
        picture(root / "test" / "images" / f"test_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n02\nn01\nn03\n")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_tinyimagenet(place, tmp_path, packed):
    if packed:
        root = tiny(tmp_path / "elsewhere")
        place.mkdir()
        with zipfile.ZipFile(place / "tiny-imagenet-200.zip", "w") as archive:
            for path in root.rglob("*"):
                archive.write(path, path.relative_to(root.parent))
    else:
        tiny(place)
    found = load("tinyimagenet")
    assert (found.classes, found.channels, found.size) == (200, 3, 8)
    assert (len(found.train), len(found.validation), len(found.test)) == (27, 3, 4)
    assert found.test.labels.tolist() == [0, 0, 1, 2]
    red = found.test.pixels[:, 0].float().mean((1, 2)) / 50
    assert red.round().long().tolist() == [1, 1, 2, 3]
    labels = torch.cat([found.train.labels, found.validation.labels])
    assert labels.bincount().tolist() == [10, 10, 10]
    assert found.mean.flatten().tolist() == pytest.approx([0.4802, 0.4481, 0.3975])
    assert found.std.flatten().tolist() == pytest.approx([0.2770, 0.2691, 0.2821])
    assert sorted(p.name for p in place.iterdir() if p.is_dir()) == ["decoded", "tiny-imagenet-200"]


def test_broken_tinyimagenet_archive(place):
    place.mkdir()
    (place / "tiny-imagenet-200.zip").write_bytes(b"half a file")
    with pytest.raises(OSError, match=r"tiny-imagenet-200\.zip is not a zip file"):
        load("tinyimagenet")
    assert [p.name for p in place.iterdir()] == ["tiny-imagenet-200.zip"]


# folders


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder_of_train_and_test(tmp_path, mode, channels):
    root = tmp_path / "sets" / "pets"
    pictures(root / "train", 20, ("dog", "cat"), mode=mode)
    pictures(root / "test", 3, ("cat", "dog", "cat"), mode=mode)
    pictures(root / "val", 3, ("bird",), mode=mode)
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
    data._load.cache_clear()
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
    assert [p.suffix for p in (place / "decoded").iterdir()] == [".pt"]
    monkeypatch.setattr(images, "_read_image", no_decoder)
    assert load(name) is first
    data._load.cache_clear()
    second = load(name)
    assert second is not first
    assert torch.equal(second.train.pixels, first.train.pixels)
    assert torch.equal(second.train.labels, first.train.labels)


def test_touched_file_is_decoded_again(tmp_path, monkeypatch):
    root = pictures(tmp_path / "pets", 6)
    load(f"folder:{root}")
    os.utime(root / "cat" / "cat000.png", ns=(0, 1))
    monkeypatch.setattr(images, "_read_image", no_decoder)
    with pytest.raises(AssertionError, match="was decoded again"):
        load(f"folder:{root}")


def test_changed_folder_is_decoded_again(tmp_path):
    root = pictures(tmp_path / "pets", 6)
    before = load(f"folder:{root}")
    picture(root / "cat" / "cat000.png", value=(1, 2, 3))
    after = load(f"folder:{root}")
    new = b"\x01" * 64 + b"\x02" * 64 + b"\x03" * 64
    assert new not in rows(before.train, before.validation, before.test)
    assert new in rows(after.train, after.validation, after.test)
    picture(root / "cat" / "one-more.png")
    assert len(load(f"folder:{root}").train) == len(after.train) + 1


@pytest.mark.parametrize("left", [b"", b"not a tensor", None])
def test_broken_cache_is_decoded_again(place, tmp_path, left):
    name = f"folder:{pictures(tmp_path / 'pets', 6)}"
    first = load(name)
    (cache,) = (place / "decoded").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if left is None else left)
    data._load.cache_clear()
    assert torch.equal(load(name).train.pixels, first.train.pixels)
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


def test_lone_train_folder_is_no_class(tmp_path):
    pictures(tmp_path / "pets" / "train", 6)
    pictures(tmp_path / "pets" / "val", 6)
    with pytest.raises(ValueError, match="has class 'cat' in only one of train and test"):
        load(f"folder:{tmp_path / 'pets'}")
    pictures(tmp_path / "pets" / "test", 2, ("cat",))
    with pytest.raises(ValueError, match="has class 'dog' in only one of train and test"):
        load(f"folder:{tmp_path / 'pets'}")


def test_images_of_two_sizes(tmp_path):
    root = pictures(tmp_path / "pets", 6)
    picture(root / "dog" / "odd.png", size=(6, 9))
    with pytest.raises(ValueError, match=r"odd\.png' is 6 x 9 pixels; need 8 x 8"):
        load(f"folder:{root}")


def test_images_that_are_not_square(tmp_path):
    root = pictures(tmp_path / "pets", 6, size=(8, 6))
    with pytest.raises(ValueError, match=r"png' is 8 x 6 pixels; need 8 x 8, so resize"):
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
    assert not (place / "decoded").exists()
