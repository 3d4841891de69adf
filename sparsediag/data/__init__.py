"""Image data sets as tensors on a device."""

from sparsediag.data.datasets import CIFAR, DATASETS, Data, Source, load
from sparsediag.data.images import Images, home

__all__ = ["CIFAR", "DATASETS", "Data", "Images", "Source", "home", "load"]
