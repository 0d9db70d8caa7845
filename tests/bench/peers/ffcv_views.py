"""FFCV has no hue, grey, blur or solarize, so the views are rendered by these numba functions: a whole view in one go, in float32.

They are written for speed (fused passes, planes, fastmath), so FFCV's rows are more than its users get out of the box.
"""
import numba
import numpy as np

import protocol

F32 = np.float32
MEAN = np.array(protocol.MEAN, F32)
SCALE = (1 / np.array(protocol.DEVIATION)).astype(F32)
JITTER, GREY, TAPS = protocol.JITTER, protocol.GREY, protocol.TAPS
REACH = TAPS // 2
BRIGHTNESS, CONTRAST, SATURATION, HUE = protocol.BRIGHTNESS, protocol.CONTRAST, protocol.SATURATION, protocol.HUE
LEAST_SIGMA, LARGEST_SIGMA = protocol.SIGMA


@numba.njit(fastmath=True, cache=True, inline="always")
def clip(x):
    return min(max(x, F32(0)), F32(1))


@numba.njit(fastmath=True, cache=True, inline="always")
def grey_of(red, green, blue):
    return F32(0.299) * red + F32(0.587) * green + F32(0.114) * blue


@numba.njit(fastmath=True, cache=True)
def around_one(reach):
    return F32(np.random.uniform(1 - reach, 1 + reach))


@numba.njit(fastmath=True, cache=True)
def brightness_and_contrast(x, brightness, contrast):
    mean = F32(0)
    for i in range(x.shape[1]):
        for c in range(3):
            x[c, i] = clip(x[c, i] * brightness)
        mean += grey_of(x[0, i], x[1, i], x[2, i])
    shift = mean / F32(x.shape[1]) * (F32(1) - contrast)
    for c in range(3):
        for i in range(x.shape[1]):
            x[c, i] = clip(x[c, i] * contrast + shift)


@numba.njit(fastmath=True, cache=True)
def saturation_and_hue(x, saturation, hue):
    """Blends with grey, then one trip to HSV and back without branches on the way back."""
    for i in range(x.shape[1]):
        rest = grey_of(x[0, i], x[1, i], x[2, i]) * (F32(1) - saturation)
        r, g, b = clip(x[0, i] * saturation + rest), clip(x[1, i] * saturation + rest), clip(x[2, i] * saturation + rest)
        value = max(r, max(g, b))
        chroma = value - min(r, min(g, b))
        inverse = F32(1) / max(chroma, F32(1e-20))
        if r == value:
            sector = (g - b) * inverse
        elif g == value:
            sector = (b - r) * inverse + F32(2)
        else:
            sector = (r - g) * inverse + F32(4)
        turned = (sector if chroma > F32(0) else F32(0)) + hue * F32(6) + F32(6)
        for c in range(3):
            k = F32(5 - 2 * c) + turned
            k = k - F32(6) * np.floor(k * F32(1 / 6))
            x[c, i] = value - chroma * max(F32(0), min(k, min(F32(4) - k, F32(1))))


@numba.njit(fastmath=True, cache=True)
def turn_grey(x):
    for i in range(x.shape[1]):
        level = grey_of(x[0, i], x[1, i], x[2, i])
        for c in range(3):
            x[c, i] = level


@numba.njit(fastmath=True, cache=True)
def gaussian():
    sigma, total = F32(np.random.uniform(LEAST_SIGMA, LARGEST_SIGMA)), F32(0)
    weights = np.empty(TAPS, F32)
    for t in range(TAPS):
        weights[t] = np.exp(-F32((t - REACH) * (t - REACH)) / (F32(2) * sigma * sigma))
        total += weights[t]
    return weights / total


@numba.njit(fastmath=True, cache=True)
def blur(plane, rows, padded, weights):
    """Along rows into `rows`, then along columns back; zeros outside, as the reference pads."""
    height, width = plane.shape
    for y in range(height):
        for i in range(width):
            padded[i + REACH] = plane[y, i]
        for i in range(width):
            rows[y, i] = weights[0] * padded[i]
        for t in range(1, TAPS):
            for i in range(width):
                rows[y, i] += weights[t] * padded[i + t]
    for y in range(height):
        for i in range(width):
            plane[y, i] = F32(0)
        for t in range(max(0, REACH - y), min(TAPS, height + REACH - y)):
            for i in range(width):
                plane[y, i] += weights[t] * rows[y + t - REACH, i]


@numba.njit(fastmath=True, cache=True)
def solarize(x):
    for c in range(3):
        for i in range(x.shape[1]):
            x[c, i] = x[c, i] if x[c, i] < F32(0.5) else F32(1) - x[c, i]


@numba.njit(fastmath=True, cache=True)
def load(pixels, x, flip):
    height, width = pixels.shape[0], pixels.shape[1]
    for y in range(height):
        for i in range(width):
            at = y * width + (width - 1 - i if flip else i)
            for c in range(3):
                x[c, at] = pixels[y, i, c] * F32(1 / 255)


@numba.njit(fastmath=True, cache=True)
def store(x, out):
    for c in range(3):
        plane = out[c].reshape(x.shape[1])
        for i in range(x.shape[1]):
            plane[i] = (x[c, i] - MEAN[c]) * SCALE[c]


@numba.njit(fastmath=True, cache=True)
def render(pixels, out, blurred, solarized):
    """uint8 [S][S][3] to normalised float32 [3][S][S]; the last two are probabilities."""
    size = pixels.shape[0]
    x = np.empty((3, size * size), F32)
    load(pixels, x, np.random.rand() < 0.5)
    if np.random.rand() < JITTER:
        brightness_and_contrast(x, around_one(BRIGHTNESS), around_one(CONTRAST))
        saturation_and_hue(x, around_one(SATURATION), F32(np.random.uniform(-HUE, HUE)))
    if np.random.rand() < GREY:
        turn_grey(x)
    if np.random.rand() < blurred:
        weights, rows, padded = gaussian(), np.empty((size, size), F32), np.zeros(size + TAPS - 1, F32)
        for c in range(3):
            blur(x[c].reshape(size, size), rows, padded, weights)
    if np.random.rand() < solarized:
        solarize(x)
    store(x, out)
