"""NVIDIA DALI on the processor alone: one decode, both views in its graph."""
import numpy as np
import nvidia.dali as dali
from nvidia.dali import fn, pipeline_def, types

import protocol


def uniform(low, high):
    return fn.random.uniform(range=[low, high])


def chance(probability):
    return fn.cast(fn.random.coin_flip(probability=probability), dtype=types.FLOAT)


def blurred(image):
    return fn.gaussian_blur(image, sigma=uniform(*protocol.SIGMA), window_size=protocol.TAPS)


def jittered(image):
    on, grey = chance(protocol.JITTER), chance(protocol.GREY)

    def factor(reach):
        return on * uniform(1 - reach, 1 + reach) + (1.0 - on)

    return fn.color_twist(
        image,
        brightness=factor(protocol.BRIGHTNESS),
        contrast=factor(protocol.CONTRAST),
        saturation=factor(protocol.SATURATION) * (1.0 - grey),
        hue=on * uniform(-360 * protocol.HUE, 360 * protocol.HUE),
    )


def solarized(image):
    bright = fn.cast(image >= 128, dtype=types.UINT8)
    inverted = types.Constant(np.uint8(255)) - image
    return fn.cast(bright * inverted + (types.Constant(np.uint8(1)) - bright) * image, dtype=types.UINT8)


def view(image, recipe, which):
    image = fn.random_resized_crop(
        image, size=[recipe.size] * 2, random_area=protocol.AREA, random_aspect_ratio=protocol.ASPECT, interp_type=types.INTERP_CUBIC
    )
    image = jittered(image)
    # DALI turns an `if` on a drawn value into a branch of its graph.
    if recipe.blur[which] >= 1:
        image = blurred(image)
    elif recipe.blur[which] > 0:
        if fn.random.coin_flip(probability=recipe.blur[which], dtype=types.BOOL):
            image = blurred(image)
    if recipe.solarize[which] > 0:
        if fn.random.coin_flip(probability=recipe.solarize[which], dtype=types.BOOL):
            image = solarized(image)
    return fn.crop_mirror_normalize(
        image,
        dtype=types.FLOAT,
        output_layout="CHW",
        mirror=fn.random.coin_flip(probability=protocol.FLIP),
        mean=[255 * value for value in protocol.MEAN],
        std=[255 * value for value in protocol.DEVIATION],
    )


def main():
    given = protocol.arguments()

    @pipeline_def(
        batch_size=protocol.BATCH, num_threads=given.cores, device_id=None, enable_conditionals=True, prefetch_queue_depth=2, seed=1
    )
    def pairs():
        encoded, _ = fn.readers.file(files=given.files, random_shuffle=True, initial_fill=512)
        image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        return view(image, given.recipe, 0), view(image, given.recipe, 1)

    pipeline = pairs()
    pipeline.build()
    note = f"cubic with antialiasing, 8 bits after each step, linear hue and saturation, jitter in a fixed order; DALI {dali.__version__}"
    batches = iter(pipeline.run, None)
    protocol.serve(batches, given.recipe.size, note, lambda batch: [part.as_array() for part in batch])


if __name__ == "__main__":
    main()
