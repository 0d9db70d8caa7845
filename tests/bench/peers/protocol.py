"""What every peer has in common: its arguments, the recipe, and how it is driven.

A peer runs as   PYTHON NAME.py --images DIR --work DIR --cores N --recipe byol|small [--variant V]
It makes batches of pairs of views for ever, warms up, and prints {"ready": true, "note": "…"}. Each line "go SECONDS" on its
standard input is then answered with one window, {"pairs": P, "seconds": S}. A window begins and ends at a batch and has at least
four of them. A peer that is stopped (SIGSTOP) as soon as it has answered, and continued before the next "go", goes on where it
was: it has no time to make batches ahead, and takes no processor time while others are measured.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

BATCH = 64
WARM_UP = 3.0  # seconds
LEAST_BATCHES = 4  # of a window
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EXTENSIONS = {".jpg", ".jpeg"}

# The paper's views (augment/recipe.c has the same numbers), as far as each library can express them.
AREA, ASPECT, FLIP = (0.08, 1.0), (3 / 4, 4 / 3), 0.5
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.8, 0.4, 0.4, 0.2, 0.1
GREY, SIGMA, TAPS = 0.2, (0.1, 2.0), 23


class Recipe(NamedTuple):
    size: int
    blur: tuple  # probability for the first and the second view
    solarize: tuple


RECIPES = {"byol": Recipe(224, (1.0, 0.1), (0.0, 0.2)), "small": Recipe(32, (0.0, 0.0), (0.0, 0.2))}

# Libraries print on standard output; the answers keep it for themselves.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def images(folder):
    return sorted(str(p) for p in Path(folder).rglob("*") if p.suffix.lower() in EXTENSIONS)


def arguments(variants=("",)):
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True, help="folder with JPEG files, at any depth")
    parser.add_argument("--work", required=True, help="folder for what a peer must write first")
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--reference", help="folder of the original implementation")
    given = parser.parse_args()
    given.files = images(given.images)
    given.recipe_name, given.recipe = given.recipe, RECIPES[given.recipe]
    return given


def _check(view, size):
    """Timing something else than float32 views of the right size would mean nothing."""
    import numpy as np

    view = np.asarray(view)
    assert view.dtype == np.float32 and view.size == BATCH * 3 * size * size, (view.dtype, view.shape)
    assert np.isfinite(view).all() and 0.3 < view.std() < 3, "these are no normalised views"


def say(answer):
    print(json.dumps(answer), file=_answers, flush=True)


def _window(batches, seconds):
    start, count = time.monotonic(), 0
    while count < LEAST_BATCHES or time.monotonic() - start < seconds:
        next(batches)
        count += 1
    return {"pairs": count * BATCH, "seconds": time.monotonic() - start}


def serve(batches, size, note, views=lambda batch: (batch[0], batch[1])):
    """Speaks the protocol; `views` gives the two arrays of a batch."""
    batches = iter(batches)
    for view in views(next(batches)):
        _check(view, size)
    _window(batches, WARM_UP)
    say({"ready": True, "note": note})
    for line in sys.stdin:
        say(_window(batches, float(line.split()[1])))
    os._exit(0)  # worker processes and threads need not end in good order
