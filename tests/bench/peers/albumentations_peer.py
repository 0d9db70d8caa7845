"""albumentations and OpenCV in a DataLoader."""
import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2

import dataloader
import protocol
from protocol import BRIGHTNESS, CONTRAST, HUE, SATURATION


def view(recipe, which):
    steps = [
        A.RandomResizedCrop(size=(recipe.size,) * 2, scale=protocol.AREA, ratio=protocol.ASPECT, interpolation=cv2.INTER_CUBIC),
        A.HorizontalFlip(p=protocol.FLIP),
        A.ColorJitter(
            brightness=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
            contrast=(1 - CONTRAST, 1 + CONTRAST),
            saturation=(1 - SATURATION, 1 + SATURATION),
            hue=(-HUE, HUE),
            p=protocol.JITTER,
        ),
        A.ToGray(p=protocol.GREY),
    ]
    if recipe.blur[which]:
        steps.append(A.GaussianBlur(blur_limit=(protocol.TAPS,) * 2, sigma_limit=protocol.SIGMA, p=recipe.blur[which]))
    if recipe.solarize[which]:
        steps.append(A.Solarize(threshold_range=(0.5, 0.5), p=recipe.solarize[which]))
    return A.Compose(steps + [A.Normalize(protocol.MEAN, protocol.DEVIATION), ToTensorV2()])


def main():
    given = protocol.arguments()
    first, second = view(given.recipe, 0), view(given.recipe, 1)

    def pair(path):
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
        return first(image=image)["image"], second(image=image)["image"]

    batches = dataloader.batches(given.files, pair, given.cores, lambda: cv2.setNumThreads(0))
    versions = f"albumentations {A.__version__}, OpenCV {cv2.__version__}"
    protocol.serve(batches, given.recipe.size, f"cubic without antialiasing, 8 bits after each step, reflected borders; {versions}")


if __name__ == "__main__":
    main()
