"""The paper's views for a whole batch of images of one size, as tensor operations: what is drawn, then what it makes of the images.

Reference definitions (float32, no rounding to bytes between operations): one crop drawn and clamped, never again; bicubic (a = -0.5)
without antialiasing, in the crop alone; flip; brightness added, contrast about each channel's mean, saturation and hue through HSV, in a
random order with a clip after each; grey; solarize. Blur is left out: the recipes for small images have none.
"""
import math

import torch

GREY = (0.2989, 0.5870, 0.1140)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def draw(count, side, recipe, generator):
    """Parameters of `count` views of square images; `recipe` holds a view's settings by name."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, generator=generator)

    def chance(name):
        return torch.rand(count, generator=generator) < recipe[name]

    def offset(length):
        return (torch.rand(count, generator=generator) * (side - length + 1)).floor().clamp(max=side - length)

    if recipe["blur"] > 0:
        raise ValueError("the peer has no blur; use a recipe without")
    area = uniform(recipe["area_min"], recipe["area_max"]) * side * side
    aspect = uniform(math.log(recipe["aspect_min"]), math.log(recipe["aspect_max"])).exp()
    width = (area * aspect).sqrt().round().clamp(1, side)
    height = (area / aspect).sqrt().round().clamp(1, side)
    return {
        "width": width,
        "height": height,
        "x": offset(width),
        "y": offset(height),
        "flip": chance("flip"),
        "jitter": chance("jitter"),
        "order": torch.rand(count, 4, generator=generator).argsort(1),
        "brightness": uniform(-recipe["brightness"], recipe["brightness"]),
        "contrast": uniform(1 - recipe["contrast"], 1 + recipe["contrast"]),
        "saturation": uniform(1 - recipe["saturation"], 1 + recipe["saturation"]),
        "hue": uniform(-recipe["hue"], recipe["hue"]),
        "grayscale": chance("grayscale"),
        "solarize": chance("solarize"),
    }


def _taps(start, length, side, size):
    """Bicubic weights of `side` pixels for each of `size` outputs; pixels outside the window weigh nothing."""
    start, length = start[:, None, None], length[:, None, None]
    at = (torch.arange(size)[None, :, None] + 0.5) * (length / size) - 0.5 + start
    pixel = torch.arange(side)[None, None, :].float()
    far = (at - pixel).abs()
    near = (1.5 * far - 2.5) * far * far + 1
    outer = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weights = torch.where(far < 1, near, torch.where(far < 2, outer, torch.zeros(())))
    weights = weights * ((pixel >= start) & (pixel < start + length))
    return weights / weights.sum(2, keepdim=True)


def _resize(images, params, size):
    side = images.shape[-1]
    rows = _taps(params["y"], params["height"], side, size)
    columns = _taps(params["x"], params["width"], side, size)
    columns = torch.where(params["flip"][:, None, None], columns.flip(1), columns)
    return torch.einsum("nyi,ncij,nxj->ncyx", rows, images, columns).clamp(0, 255).div(255)


def _to_hsv(rgb):
    red, green, blue = rgb.unbind(1)
    value, least = rgb.amax(1), rgb.amin(1)
    span = value - least
    safe = torch.where(span > 0, span, torch.ones_like(span))
    sector = torch.where(value == red, (green - blue) / safe, torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe))
    hue = torch.where(span > 0, sector / 6, torch.zeros_like(span)) % 1
    return hue, torch.where(value > 0, span / value.clamp_min(1e-30), torch.zeros_like(span)), value


def _to_rgb(hue, saturation, value):
    def channel(start):
        turn = (start + hue * 6) % 6
        return value - value * saturation * torch.minimum(turn, 4 - turn).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def _brightness(images, params):
    return images + params["brightness"]


def _contrast(images, params):
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * params["contrast"] + mean


def _saturation(images, params):
    hue, saturation, value = _to_hsv(images)
    return _to_rgb(hue, (saturation * params["saturation"][:, 0]).clamp(0, 1), value)


def _hue(images, params):
    hue, saturation, value = _to_hsv(images)
    return _to_rgb((hue + params["hue"][:, 0]) % 1, saturation, value)


_OPERATIONS = {BRIGHTNESS: _brightness, CONTRAST: _contrast, SATURATION: _saturation, HUE: _hue}


def _jitter(images, params):
    strengths = {name: params[name].view(-1, 1, 1, 1) for name in ("brightness", "contrast", "saturation", "hue")}
    for place in range(4):
        for which, operation in _OPERATIONS.items():
            chosen = (params["jitter"] & (params["order"][:, place] == which)).nonzero().squeeze(1)
            if len(chosen):
                some = {name: strength[chosen] for name, strength in strengths.items()}
                images[chosen] = operation(images[chosen], some).clamp(0, 1)
    return images


def render(images, params, size, threshold=0.5):
    """Views in [0, 1] of images with values in 0 to 255."""
    views = _jitter(_resize(images.float(), params, size), params)
    grey = (views * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    views = torch.where(params["grayscale"].view(-1, 1, 1, 1), grey, views).clamp(0, 1)
    inverted = torch.where(views < threshold, views, 1 - views)
    return torch.where(params["solarize"].view(-1, 1, 1, 1), inverted, views).clamp(0, 1)


def normalise(views):
    """As networks take them."""
    return (views - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
