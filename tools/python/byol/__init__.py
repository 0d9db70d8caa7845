"""Batches of augmented views of image datasets: fast, reproducible bit for bit, without worker processes.

    import byol

    for batch in byol.Loader("photos.byol", recipe="byol", batch=256):
        view1, view2 = batch.views  # NumPy arrays of the loader's own memory
        batch.labels, batch.ids

A dataset is what `byol convert` makes. Threads of the C library decode and render beside Python, without its lock.
"""
from ._library import Error
from ._loader import IMAGENET_DEVIATION, IMAGENET_MEAN, Batch, Loader, Statistics
from ._dataset import Dataset
from ._recipe import describe_recipe, recipes
from ._version import __version__

__all__ = [
    "Batch", "Dataset", "Error", "IMAGENET_DEVIATION", "IMAGENET_MEAN", "Loader", "Statistics", "__version__",
    "describe_recipe", "recipes",
]  # fmt: skip
