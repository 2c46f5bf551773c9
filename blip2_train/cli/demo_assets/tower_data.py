"""Pictures with a label for each patch, from which the tiny vision tower learns what things look like."""

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
"""How many of the tower's training scenes show one, two, three, four pictures."""
FOREGROUND = 0.30
"""Share of a patch from which a picture names it."""
BACKGROUND = 0.08
"""Share of a patch up to which pictures leave it to the ground; patches between the two have no label."""
NO_LABEL = -100
CROP_SHARE = 0.5
"""Share of training scenes that are cropped, resized and flipped as stage 1 does."""


def label_map(scene: Scene) -> Image.Image:
    """For each pixel the index of its concept, or 255 for the ground; mode `L`, 96 x 96."""
    canvas = Image.new("L", (SCENE_SIZE, SCENE_SIZE), 255)
    for item in scene.items:
        mask = sprite(STYLES[scene.style], item.concept, item.size).getchannel("A").point(lambda a: 255 * (a > 127))
        canvas.paste(item.concept, (item.left, item.top), mask)
    return canvas


def patch_labels(labels: np.ndarray, scene: Scene, patch_size: int, num_concepts: int) -> np.ndarray:
    """One class per patch, `(patches,)` int64 in row order: a concept, `num_concepts` + ground, or -100."""
    side = SCENE_SIZE // patch_size
    kinds = np.array(sorted(scene.counts))
    shares = (labels[None] == kinds[:, None, None]).reshape(len(kinds), side, patch_size, side, patch_size)
    shares = shares.mean(axis=(2, 4)).reshape(len(kinds), -1)
    covered = shares.sum(axis=0)
    classes = np.full(side * side, NO_LABEL, dtype=np.int64)
    classes[covered <= BACKGROUND] = num_concepts + GROUNDS.index(scene.ground)
    named = shares.max(axis=0) >= FOREGROUND
    classes[named] = kinds[shares.argmax(axis=0)][named]
    return classes


def crop_and_flip(
    image: Image.Image, labels: Image.Image, generator: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The same random part of picture and labels, 50 to 100 % of the area, stretched to full size, mirrored or not."""
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
    """Endless batches of `(B, 3, 96, 96)` normalised pictures and `(B, patches)` classes, a function of the seed."""

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
            yield pixels.contiguous(), torch.from_numpy(np.stack([classes for _, classes in samples]))

    def _draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        number = int(generator.choice(len(SIZE_SHARES), p=SIZE_SHARES)) + 1
        scene = draw_scene(draw_concepts((1,) * number, range(self.num_concepts), generator), generator)
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
