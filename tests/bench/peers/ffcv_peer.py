"""FFCV: its stores, reader, threads, decoder and resize; each image decoded once, both views rendered by ffcv_views.

  original   the JPEG files' bytes, untouched
  raw        FFCV's decode-free store: pixels, reduced to at most 500 a side
"""
import os
import sys
from dataclasses import replace
from pathlib import Path

import protocol

given = protocol.arguments(["original", "raw"])
os.environ["NUMBA_NUM_THREADS"] = str(max(2, given.cores))  # before numba is imported

import numba
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES, RandomResizedCropRGBImageDecoder, get_random_crop
from ffcv.libffcv import imdecode, resize_crop
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from PIL import Image

import ffcv_views

PASSES = 64  # over the images in one of FFCV's epochs, whose ends cost it time


class JpegFile:
    def __init__(self, path):
        self.path = path


class OriginalField(RGBImageField):
    """Stores a JPEG file's bytes instead of coding its pixels again."""

    def encode(self, destination, image, malloc):
        data = np.fromfile(image.path, np.uint8)
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["width"], destination["height"] = Image.open(image.path).size
        destination["data_ptr"], storage = malloc(len(data))
        storage[:] = data


class Images:
    def __len__(self):
        return len(given.files)

    def __getitem__(self, index):
        path = given.files[index]
        if given.variant == "original":
            return JpegFile(path), 0
        return np.asarray(Image.open(path).convert("RGB")), 0


def written_store():
    path = Path(given.work) / f"ffcv-{given.recipe_name}-{given.variant}.beton"
    if not path.exists():
        field = OriginalField() if given.variant == "original" else RGBImageField(write_mode="raw", max_resolution=500)
        partial = path.with_suffix(".partial")
        DatasetWriter(str(partial), {"image": field, "label": IntField()}, num_workers=1).from_indexed_dataset(Images())
        partial.rename(path)
    return str(path)


class Pairs(RandomResizedCropRGBImageDecoder):
    """In place of FFCV's decoder, which makes one uint8 crop of an image: decodes once, crops and renders both views."""

    def declare_state_and_memory(self, state):
        size = given.recipe.size
        pixels = np.uint64(self.metadata["width"].max()) * np.uint64(self.metadata["height"].max())
        shape, float32, uint8 = (2, 3, size, size), np.dtype("<f4"), np.dtype("<u1")
        memory = (
            AllocationQuery(shape, float32),
            AllocationQuery((size, size, 3), uint8),
            AllocationQuery((pixels * np.uint64(3),), uint8),
        )
        return replace(state, jit_mode=True, shape=shape, dtype=float32), memory

    def generate_code(self):
        is_jpeg, read, each = IMAGE_MODES["jpg"], self.memory_read, Compiler.get_iterator()
        decode_jpeg, crop_and_resize, draw_crop = map(Compiler.compile, (imdecode, resize_crop, get_random_crop))
        render, area, aspect = ffcv_views.render, np.array(protocol.AREA), np.array(protocol.ASPECT)
        blur, solarize = np.array(given.recipe.blur), np.array(given.recipe.solarize)

        def decode(indices, storage, metadata, storage_state):
            views, crops, images = storage
            for at in each(len(indices)):
                record = metadata[indices[at]]
                data = read(record["data_ptr"], storage_state)
                height, width = np.uint32(record["height"]), np.uint32(record["width"])
                if record["mode"] == is_jpeg:
                    decode_jpeg(data, images[at], height, width, height, width, 0, 0, 1, 1, False, False)
                    image = images[at].reshape(-1)[: 3 * height * width].reshape(height, width, 3)
                else:
                    image = data.reshape(height, width, 3)
                for view in range(2):
                    y, x, h, w = draw_crop(height, width, area, aspect)
                    crop_and_resize(image, y, y + h, x, x + w, crops[at])
                    render(crops[at], views[at, view], blur[view], solarize[view])
            return views[: len(indices)]

        decode.is_parallel = True
        return decode


def main():
    loader = Loader(
        written_store(),
        batch_size=protocol.BATCH,
        num_workers=given.cores,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={"image": [Pairs((given.recipe.size,) * 2), ToTensor()], "label": None},
        custom_fields={"image": OriginalField} if given.variant == "original" else {},
        indices=np.tile(np.arange(len(given.files), dtype=np.uint64), PASSES),
        seed=1,
        drop_last=True,
        batches_ahead=2,
    )

    def batches():
        while True:
            yield from loader

    what = {"original": "the same JPEG files", "raw": "pixels, at most 500 a side"}[given.variant]
    how = "area and bilinear resize to 8 bits, then fused float operations of our own, jitter in a fixed order"
    note = f"{what}; {how}; numba {numba.__version__}"
    protocol.serve(batches(), given.recipe.size, note, lambda batch: (batch[0][:, 0], batch[0][:, 1]))


if __name__ == "__main__":
    main()
