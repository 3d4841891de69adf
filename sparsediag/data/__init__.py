"""Image data sets as tensors on a device."""

from sparsediag.data.datasets import CIFAR, DATASETS, Data, Source, load
from sparsediag.data.images import ImageFiles, Images, home

__all__ = ["CIFAR", "DATASETS", "Data", "ImageFiles", "Images", "Source", "home", "load"]
