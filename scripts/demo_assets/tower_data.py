"""Images with labels for each patch, from which the tiny vision tower learns what things are, and where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from blip2_train.data.emoji_scenes.concepts import STYLES, load_concepts
from blip2_train.data.emoji_scenes.render import render, sprite
from blip2_train.data.emoji_scenes.scenes import GROUNDS, SCENE_SIZE, Scene, draw_concepts, draw_scene

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation, which BLIP-2 uses for both of its towers."""
SIZE_SHARES = (0.10, 0.25, 0.30, 0.35)
"""How many of the tower's training scenes show one, two, three, four images."""
FOREGROUND = 0.30
"""Share of a patch from which an image names it."""
BACKGROUND = 0.08
"""Share of a patch up to which images leave it to the ground; patches between the two have no label."""
NO_LABEL = -100
CROP_SHARE = 0.5
"""Share of training scenes that are cropped, resized and flipped as stage 1 does."""
TWIN_SHARE = 0.2
"""Share of the scenes of several images in which the last one is of the same concept as the first."""


def label_map(scene: Scene) -> Image.Image:
    """For each pixel the number of its image in the scene, or 255 for the ground; mode `L`, 96 x 96."""
    canvas = Image.new("L", (SCENE_SIZE, SCENE_SIZE), 255)
    for number, item in enumerate(scene.items):
        mask = sprite(STYLES[scene.style], item.concept, item.size).getchannel("A").point(lambda a: 255 * (a > 127))
        canvas.paste(number, (item.left, item.top), mask)
    return canvas


def patch_labels(labels: np.ndarray, scene: Scene, patch_size: int, num_concepts: int) -> np.ndarray:
    """What each patch shows, and where the middle of it is.

    Args:
        labels: Of each pixel, as `label_map` draws them.
        scene: What is shown.
        patch_size: Pixels per side of a patch.
        num_concepts: Of the world.

    Returns:
        `(3, patches)`, int64, patches in row order. First the class: a concept, `num_concepts` + ground, or -100. Then
        the column and the row of the patch in which the middle of the patch's image lies, -100 for other patches.
    """
    side = SCENE_SIZE // patch_size
    pixels = labels[None] == np.arange(len(scene.items))[:, None, None]
    shares = pixels.reshape(-1, side, patch_size, side, patch_size).mean(axis=(2, 4)).reshape(len(pixels), -1)
    per_patch = np.full((3, side * side), NO_LABEL, dtype=np.int64)
    per_patch[0, shares.sum(axis=0) <= BACKGROUND] = num_concepts + GROUNDS.index(scene.ground)
    concepts = np.array([item.concept for item in scene.items])
    seen = np.maximum(pixels.sum(axis=(1, 2)), 1)
    middles = [(pixels.sum(axis=axis) @ np.arange(SCENE_SIZE) / seen).astype(np.int64) for axis in (1, 2)]
    named, nearest = shares.max(axis=0) >= FOREGROUND, shares.argmax(axis=0)
    for row, values in enumerate((concepts, *(middle // patch_size for middle in middles))):
        per_patch[row, named] = values[nearest][named]
    return per_patch


def crop_and_flip(
    image: Image.Image, labels: Image.Image, generator: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The same random part of image and labels, 50 to 100 % of the area, stretched to full size, mirrored or not."""
    area = SCENE_SIZE**2 * generator.uniform(0.5, 1.0)
    ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
    width, height = min(np.sqrt(area * ratio), SCENE_SIZE), min(np.sqrt(area / ratio), SCENE_SIZE)
    left, top = generator.uniform(0, SCENE_SIZE - width), generator.uniform(0, SCENE_SIZE - height)
    box = (left, top, left + width, top + height)
    image = image.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BICUBIC, box=box)
    labels = labels.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.NEAREST, box=box)
    if generator.random() < 0.5:
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        image, labels = image.transpose(flip), labels.transpose(flip)
    return image, labels


class PatchBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of `(B, 3, 96, 96)` normalised images and `(B, 3, patches)` labels, a function of the seed."""

    def __init__(self, *, batch_size: int, patch_size: int, seed: int, augment: bool) -> None:
        self.batch_size, self.patch_size, self.seed, self.augment = batch_size, patch_size, seed, augment
        self.num_concepts = len(load_concepts())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = np.random.default_rng(self.seed)
        while True:
            samples = [self._draw(generator) for _ in range(self.batch_size)]
            pixels = torch.from_numpy(np.stack([pixels for pixels, _ in samples])).permute(0, 3, 1, 2).float() / 255
            if self.augment:
                pixels = self._disturb(pixels, generator)
            pixels = (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)
            yield pixels.contiguous(), torch.from_numpy(np.stack([labels for _, labels in samples]))

    def _draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        number = int(generator.choice(len(SIZE_SHARES), p=SIZE_SHARES)) + 1
        concepts = draw_concepts((1,) * number, range(self.num_concepts), generator)
        if generator.random() < TWIN_SHARE:
            concepts[-1] = concepts[0]
        scene = draw_scene(concepts, generator)
        image, labels = render(scene), label_map(scene)
        if self.augment and generator.random() < CROP_SHARE:
            image, labels = crop_and_flip(image, labels, generator)
        return np.asarray(image), patch_labels(np.asarray(labels), scene, self.patch_size, self.num_concepts)

    def _disturb(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        size = (len(pixels), 3, 1, 1)
        gain = torch.from_numpy(generator.uniform(0.92, 1.08, size=size)).float()
        shift = torch.from_numpy(generator.uniform(-0.04, 0.04, size=size)).float()
        level = torch.from_numpy(generator.uniform(0, 0.03, size=(len(pixels), 1, 1, 1))).float()
        noise = torch.from_numpy(generator.standard_normal(pixels.shape, dtype=np.float32))
        return (pixels * gain + shift + level * noise).clamp(0, 1)
