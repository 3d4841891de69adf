"""Data sets: what is read, how it is split, and what is said when it cannot be."""

from __future__ import annotations

import pickle
import urllib.error
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from sparsediag.core.device import with_index
from sparsediag.data import datasets as data
from sparsediag.data.datasets import DATASETS, Images, home, load
from tests.pictures import picture


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
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        digits.batches("dev")
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


def test_other_words_for_validation_and_for_normalise():
    digits = load("digits", normalize="none")
    assert digits.split("val") is digits.split("valid") is digits.split("validation")
    assert digits.batches("val")[0][0].max() == 1
    with pytest.raises(ValueError, match=r"normalise 'imagnet'; did you mean 'imagenet'"):
        load("digits", normalise="imagnet")


def test_grey_images_normalised_as_imagenet_are_in_three_channels():
    digits = load("digits", normalise="imagenet")
    assert (digits.channels, digits.train.shape) == (3, (1, 8, 8))
    x, _ = digits.batches(images=2)[0]
    plain = load("digits", normalise="none").batches(images=2)[0][0]
    torch.testing.assert_close(x * digits.std + digits.mean, plain.expand(-1, 3, -1, -1))


def test_only_folders_are_resized():
    with pytest.raises(ValueError, match=r"size 16: digits has one size"):
        load("digits", size=16)


def test_a_folder_without_its_word(tmp_path):
    with pytest.raises(ValueError, match=rf"unknown data set '{tmp_path}'.*folder:{tmp_path}"):
        load(str(tmp_path))


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
