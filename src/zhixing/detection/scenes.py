"""Scenes to train a detector on: bright shapes on a dark noisy ground, each with its box and class.

The articles on detection use these scenes, so that their detectors see the same images.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

CLASSES = ("rectangle", "ellipse", "triangle")
TRIES = 100  # places that are tried for an object before the scene goes without it


def draw_scenes(
    count: int,
    *,
    generator: Generator,
    size: int = 64,
    objects: tuple[int, int] = (1, 4),
    sides: tuple[int | float, int | float] = (10, 28),
    max_iou: int | float = 0.2,
    noise: int | float = 0.1,
) -> tuple[Float[Tensor, "b 3 s s"], list[dict[str, Any]]]:
    """Random images with rectangles, ellipses and triangles of random sizes, places and colours.

    Class and colour are independent. A shape lies behind smaller ones and equal later ones. An
    object is left out if its box overlaps all tried places too much, so a scene may hold too few.

    Args:
        count: The number of scenes, B.
        generator: Where the random numbers come from, on the CPU.
        size: The number of pixels on each side of an image, S.
        objects: The least and the greatest number of objects in a scene.
        sides: The least and the greatest width and height of a box, in pixels.
        max_iou: The greatest IoU of two boxes in a scene; 0 keeps all boxes apart.
        noise: Half the width of the uniform noise that is added to each value.

    Returns:
        Images (B, 3, S, S) with values from 0 to 1, and for each a target as in torchvision:
            `boxes` (N, 4), (x1, y1, x2, y2) in pixels, not rounded, and `labels` (N,), the
            positions in `CLASSES`.

    Raises:
        ValueError: A number is negative or not finite, a range is empty, or the boxes do not fit
            into the image.

    Examples:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> images, targets = draw_scenes(2, generator=generator, objects=(3, 3))
        >>> images.shape
        torch.Size([2, 3, 64, 64])
        >>> [tuple(target["boxes"].shape) for target in targets]
        [(3, 4), (3, 4)]
    """
    for name, (least, greatest) in {"objects": objects, "sides": sides}.items():
        if not 0 <= least <= greatest:
            raise ValueError(
                f"{name} must be a range of numbers from 0, but is {least} to {greatest}"
            )
    if not (sides[0] > 0 and sides[1] <= size):
        raise ValueError(f"boxes of {sides[0]} to {sides[1]} pixels do not fit into {size} pixels")
    if count < 0 or not (0 <= max_iou <= 1 and 0 <= noise <= 1):
        raise ValueError(f"count, max_iou and noise are {count}, {max_iou} and {noise}")
    scenes = [_draw(size, objects, sides, max_iou, generator) for _ in range(count)]
    images = (
        torch.stack([image for image, _ in scenes]) if scenes else torch.empty(0, 3, size, size)
    )
    images += noise * (2 * torch.rand(images.shape, generator=generator) - 1)
    return images.clamp(0, 1), [target for _, target in scenes]


def inside(box: Float[Tensor, "4"], label: int, size: int) -> Bool[Tensor, "s s"]:
    """Which pixels of an image belong to a shape that touches all four sides of its box.

    Args:
        box: (x1, y1, x2, y2) in pixels.
        label: The position of the shape in `CLASSES`.
        size: The number of pixels on each side of the image, S.

    Returns:
        (S, S), True where the centre of the pixel lies in the shape.

    Examples:
        A triangle stands on the lower side of its box.

        >>> import torch
        >>> inside(torch.tensor([0.0, 0.0, 4.0, 4.0]), 2, 4).int()
        tensor([[0, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)
    """
    centers = torch.arange(size, dtype=box.dtype) + 0.5
    x1, y1, x2, y2 = box
    # From -1 to 1 across the box.
    u = (2 * centers - x1 - x2) / (x2 - x1)
    v = ((2 * centers - y1 - y2) / (y2 - y1))[:, None]
    within = (u.abs() <= 1) & (v.abs() <= 1)
    if CLASSES[label] == "ellipse":
        return within & (u**2 + v**2 <= 1)
    if CLASSES[label] == "triangle":
        return within & (2 * u.abs() <= 1 + v)
    return within


def _draw(
    size: int,
    objects: tuple[int, int],
    sides: tuple[int | float, int | float],
    max_iou: int | float,
    generator: Generator,
) -> tuple[Float[Tensor, "3 s s"], dict[str, Any]]:
    """One image without noise, and its target."""

    def uniform(low: int | float, high: int | float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    wanted = int(torch.randint(objects[0], objects[1] + 1, (), generator=generator))
    boxes = torch.empty(0, 4)
    for _ in range(TRIES * wanted):
        if len(boxes) == wanted:
            break
        sizes = uniform(sides[0], sides[1], 2)
        corner = torch.rand(2, generator=generator) * (size - sizes)
        box = torch.cat([corner, corner + sizes])
        if (_iou(box, boxes) <= max_iou).all():
            boxes = torch.cat([boxes, box[None]])
    labels = torch.randint(len(CLASSES), (len(boxes),), generator=generator)

    image = uniform(0.0, 0.3, 3, 1, 1).expand(3, size, size).clone()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in areas.argsort(descending=True, stable=True).tolist():
        image[:, inside(boxes[i], int(labels[i]), size)] = uniform(0.4, 1.0, 3, 1)
    return image, {"boxes": boxes, "labels": labels}


def _iou(box: Float[Tensor, "4"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    sides = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])
    shared = sides.clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)
