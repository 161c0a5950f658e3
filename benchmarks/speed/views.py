"""Two SimCLR views of an image that is in memory: microseconds a view, drawing included."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.speed.harness import OURS, Row, Settings, Turn, installed_of, there
from benchmarks.speed.photographs import photographs, pixels
from nearfar import methods
from nearfar.method import Batch
from nearfar.views import View
from nearfar.views.draw import Draw
from nearfar.views.render import IMAGENET_MEAN, IMAGENET_STD

CASES = {32: (32, 45.0), 96: (96, 10.0), 224: (256, 5.0)}
"""Side of the view -> side of the image, and how many times as fast as lightly is asked for."""
SCALING = 0.9
"""Of a thread, in what each further one is to add."""
SAME_DRAW, MOMENTS = 1e-4, 0.2
"""Largest differences of normalised values: of one draw carried out twice, and of mean and deviation over many."""
PROTOCOL = (
    "SimCLR's two views (crop 0.08 to 1, mirror, jitter, grey; 32 px: strength 0.5 and no blur; else strength 1, blur "
    "0.5) of photographs in memory: as PIL images for lightly, as uint8 tensors for torchvision v2 (one by one), "
    "kornia (as a batch) and nearfar (as a batch); normalised float32 tensors come out. On several threads what works "
    "image by image runs in a DataLoader with a worker a thread, an epoch or several a turn. Checked: nearfar's draw "
    "carried out by torchvision's functions in float64; mean and deviation of lightly's views."
)


@dataclass(frozen=True)
class Task:
    """What is made of which images: `pictures`, of which views of `size` px are made, in all `count`."""

    pictures: list[Image.Image]
    size: int

    @property
    def small(self) -> bool:
        """Whether the views are as SimCLR has them for CIFAR-10."""
        return self.size < 64

    @property
    def count(self) -> int:
        """Views of all pictures."""
        return 2 * len(self.pictures)

    @property
    def batch(self) -> Batch:
        """The pictures as nearfar's loader hands them over."""
        images = torch.from_numpy(pixels(self.pictures))
        sizes = torch.tensor(images.shape[2:]).repeat(len(images), 1)
        return Batch(inputs=images, sizes=sizes, ids=torch.arange(len(images)))


@dataclass(frozen=True)
class Each:
    """A transform of one image that makes its two views, over all images; also a data set for torch's loader."""

    images: list[Any]
    transform: Callable[[Any], list[Tensor]]

    def __call__(self) -> None:
        """One image after the other."""
        for image in self.images:
            self.transform(image)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> list[Tensor]:
        return self.transform(self.images[place])

    def loader(self, batch: int, workers: int, **options: Any) -> DataLoader:
        """torch's loader."""
        images: Any = self
        return DataLoader(images, batch, num_workers=workers, **options)

    def loaded(self, workers: int) -> Callable[[], object]:
        """An epoch of a loader whose workers stay."""
        loader = self.loader(max(len(self) // (4 * workers), 1), workers, persistent_workers=True)
        return lambda: [None for _ in loader]


def rows(settings: Settings) -> Iterator[Row]:
    """A row a size of view; on several threads also one that says how much faster they are than one."""
    for size, (side, target) in CASES.items():
        count = 4 if settings.smoke else 512 if size < 64 else 64
        task = Task(photographs(count, side, side), size)
        name = f"{side} px to {size} px"
        turns = contenders(task, settings)
        yield Row(
            name=f"views, {name}",
            unit="us a view",
            costs=turns,
            measured=settings.measured,
            agreement=lambda task=task: agreement(task),
            targets={"lightly": target},
            work={"bytes": 3 * side**2 + 4 * 3 * size**2},
        )
        if settings.threads > 1:
            turn: dict[str, Any] = {"units": task.count, "clock": settings.clock, "scale": 1e6}
            work = nearfar(task)
            counts = {f"{OURS}, 1 thread": 1, OURS: settings.threads}
            yield Row(
                name=f"views, {name}: {settings.threads} threads against one",
                unit="us a view",
                costs={who: Turn(with_threads(work, threads), **turn) for who, threads in counts.items()},
                measured=settings.measured,
                targets={f"{OURS}, 1 thread": SCALING * settings.threads},
            )
            torch.set_num_threads(settings.threads)


def contenders(task: Task, settings: Settings) -> dict[str, Callable[[], float]]:
    """Those that are installed."""
    one_by_one = installed_of(
        {
            "lightly": ("lightly", lambda: lightly(task)),
            "torchvision v2": ("torchvision", lambda: torchvision(task)),
        }
    )
    works: dict[str, Callable[[], object]] = {OURS: nearfar(task)}
    for name, each in one_by_one.items():
        works[name] = each if settings.threads == 1 else each.loaded(settings.threads)
    works |= installed_of({"kornia": ("kornia", lambda: kornia(task))})
    return {name: Turn(work, units=task.count, clock=settings.clock, scale=1e6) for name, work in works.items()}


def with_threads(work: Callable[[], object], threads: int) -> Callable[[], object]:
    """The same on so many threads."""

    def call() -> None:
        torch.set_num_threads(threads)
        work()

    return call


def view_of(task: Task) -> View:
    """What `methods.simclr` does to an image."""
    (view, _) = methods.simclr(encoder="small", size=task.size).views.views  # pyright: ignore[reportFunctionMemberAccess]
    return view


def nearfar(task: Task) -> Callable[[], list[Tensor]]:
    """Both views of the batch."""
    views, batch = methods.simclr(encoder="small", size=task.size).views, task.batch
    return lambda: views(batch)


def lightly(task: Task) -> Each:
    """Its SimCLR transform, from PIL images."""
    from lightly.transforms import SimCLRTransform

    small = {"cj_strength": 0.5, "gaussian_blur": 0.0} if task.small else {}
    return Each(task.pictures, SimCLRTransform(input_size=task.size, **small))


def torchvision(task: Task) -> Each:
    """The same of its second transforms, from uint8 tensors."""
    from torchvision.transforms import v2

    strength = 0.5 if task.small else 1.0
    jitter = v2.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    steps = [
        v2.RandomResizedCrop(task.size, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([jitter], p=0.8),
        v2.RandomGrayscale(p=0.2),
        *([] if task.small else [v2.RandomApply([v2.GaussianBlur(task.size // 20 * 2 + 1, (0.1, 2.0))], p=0.5)]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    transform = v2.Compose(steps)
    return Each(list(task.batch.inputs), lambda image: [transform(image), transform(image)])


def kornia(task: Task, device: str = "cpu") -> Callable[[], object]:
    """The same of its batched modules, from a uint8 batch on a device."""
    from kornia import augmentation as K

    strength, images = 0.5 if task.small else 1.0, task.batch.inputs.to(device)
    side = task.size // 20 * 2 + 1
    transform = torch.nn.Sequential(
        K.RandomResizedCrop((task.size, task.size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8),
        K.RandomGrayscale(p=0.2),
        *([] if task.small else [K.RandomGaussianBlur((side, side), (0.1, 2.0), p=0.5)]),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    ).to(device)

    def call() -> None:
        floats = images.float() / 255
        for _ in range(2):
            transform(floats)

    return call


def agreement(task: Task) -> dict[str, tuple[float, float]]:
    """Differences of normalised values to torchvision's and lightly's views."""
    found = {}
    if there("torchvision"):
        found["one draw, torchvision in float64"] = (same_draw(task), SAME_DRAW)
    if there("lightly"):
        several = Task((task.pictures * 128)[:128], task.size)
        ours = torch.cat(nearfar(several)())
        theirs = torch.stack([view for place in range(128) for view in lightly(several)[place]])
        found["mean, lightly"] = (float((ours.mean() - theirs.mean()).abs()), MOMENTS)
        found["deviation, lightly"] = (float((ours.std() - theirs.std()).abs()), MOMENTS)
    return found


def same_draw(task: Task) -> float:
    """Largest difference between our view and torchvision's functions in float64, both of our draw; 8 images."""
    batch, view = task.batch.head(8), view_of(task)
    draw = view.draw(batch.ids, batch.sizes, seed=0, epoch=0, view=0)
    ours = view.apply(batch.inputs, draw).double()
    theirs = torch.stack([by_torchvision(image, draw, row, view) for row, image in enumerate(batch.inputs)])
    return float((ours - theirs).abs().max())


def by_torchvision(image: Tensor, draw: Draw, row: int, view: View) -> Tensor:
    """One view, operation by operation."""
    from torchvision.transforms.v2 import functional as F

    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    seen = F.resized_crop(image.double() / 255, *map(int, draw.boxes[row]), [view.size] * 2, antialias=True)
    seen = F.horizontal_flip(seen) if draw.flip[row] else seen
    for number in draw.order[row]:
        seen = changes[number](seen, float(draw.factors[row, number]))
    seen = F.rgb_to_grayscale(seen, 3) if draw.grey[row] else seen
    if draw.sigma[row] > 0:
        seen = F.gaussian_blur(seen, [2 * view.blur_radius + 1] * 2, [float(draw.sigma[row])] * 2)
    return F.normalize(seen, list(IMAGENET_MEAN), list(IMAGENET_STD))
