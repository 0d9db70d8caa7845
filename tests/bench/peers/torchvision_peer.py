"""torchvision on PIL images in a DataLoader, the way most training repositories do it."""
import random

import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

import dataloader
import protocol


def blur(image):
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*protocol.SIGMA)))


def view(recipe, which):
    jitter = T.ColorJitter(protocol.BRIGHTNESS, protocol.CONTRAST, protocol.SATURATION, protocol.HUE)
    return T.Compose(
        [
            T.RandomResizedCrop(recipe.size, protocol.AREA, protocol.ASPECT, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(protocol.FLIP),
            T.RandomApply([jitter], p=protocol.JITTER),
            T.RandomGrayscale(p=protocol.GREY),
            T.RandomApply([blur], p=recipe.blur[which]),
            T.RandomApply([ImageOps.solarize], p=recipe.solarize[which]),
            T.ToTensor(),
            T.Normalize(protocol.MEAN, protocol.DEVIATION),
        ]
    )


def pairs(recipe):
    """What makes both views of a file."""
    first, second = view(recipe, 0), view(recipe, 1)

    def pair(path):
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        return first(image), second(image)

    return pair


def main():
    given = protocol.arguments()
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
    note = f"bicubic with antialiasing, 8 bits after each step, blur approximated by three box filters; {versions}"
    protocol.serve(dataloader.batches(given.files, pairs(given.recipe), given.cores), given.recipe.size, note)


if __name__ == "__main__":
    main()
