"""`nearfar few-shot`: how well an encoder tells new classes apart from a handful of examples, over many episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..data.scan import cache_folder
from ..episodes import Episodes, EpisodeSampler, Split, open_split, stored
from ..errors import DataError, UsageError
from ..evaluation.protocol import Score
from ..few_shot.card import Card, FewShotEvaluation
from ..few_shot.evaluate import PRIORS, check_heads, evaluate_episodes, with_views
from ..few_shot.heads import HEADS
from ..few_shot.pace import Pace
from ..few_shot.record import with_earlier, with_earlier_draws
from ..runs import Run
from ..runs.atomic import disk_errors, read_json
from ..runs.versions import refuse_newer
from ..signatures import unknown
from ..views import Views
from .encoder import Encoder, load_encoder, stored_method
from .summary import pixels

TRAINED, UNTRAINED, PIXELS = "trained encoder", "untrained encoder", "raw pixels"
RESULTS, DRAWS, FORMAT = "few_shot.json", "few_shot", 1
VIEW_EPOCH = 2**31  # stands where training has its epoch, so that no augmented copy was ever trained on

Table = dict[int, dict[str, Score]]


def evaluate_few_shot(
    run: str | Path,
    data: str | Path,
    *,
    split: str | Path | None = None,
    part: str = "test",
    label: str | None = None,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 15,
    episodes: int = 10_000,
    heads: Sequence[str] = ("lr", "ncm"),
    seed: int = 0,
    query_prior: str = "unknown",
    dirichlet: float | None = None,
    against: Sequence[str | Path] = (),
    support_views: int = 0,
    query_views: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> FewShotEvaluation:
    """Accuracy of few-shot heads on frozen features, over one stored list of episodes, with intervals and protocol.

    Raw pixels and the untrained encoder are measured beside it. All get the same episodes, so differences are paired.
    Where a run was trained on classes that it is asked about, the result has a warning.

    Args:
        run: Run folder.
        data: Labelled images, as for `evaluate`.
        split: Name of a published split or a JSON file, see `nearfar.episodes.open_split`; None: all classes of `data`
            are taken for new ones, which is right only where training has not seen them.
        part: `train`, `val` or `test`, of the split.
        label: Column that holds the labels, where it is not called label.
        ways: Classes of an episode.
        shots: Labelled images a class; a list of episodes for each.
        queries: Images a class that are asked for.
        episodes: Number of episodes; 10,000 give ± 0.2 points.
        heads: Names of `nearfar.few_shot.HEADS`.
        seed: Of the episodes and of augmented copies.
        query_prior: What transductive heads are told of the classes of the queries: "unknown" or "uniform".
        dirichlet: None: as many queries of each class. A number: unbalanced, see `nearfar.episodes.EpisodeSampler`.
        against: Other run folders to compare with.
        support_views: n > 0: n augmented copies in place of each support, by the run's own first training view.
        query_views: n > 0: the features of a query are averaged with those of n augmented copies.
        device: As in `train`.
        say: Called with messages.

    Returns:
        Scores and card, also in `few_shot.json` of the run folder; the accuracy in each episode in `few_shot/HASH.npz`.
        In `scores` the run is "trained encoder", the others have the names that were given.

    Raises:
        UsageError: An unknown head, part, split or prior, or a number out of range.
        DataError: No labels, too few classes or images for the episodes, or an encoder that gives NaN.
        IntegrityError: A damaged record of earlier evaluations.
    """
    _check(heads, shots, query_prior, max(support_views, query_views), min(support_views, query_views))
    check_heads(heads, centre=split is not None)
    known = None if split is None else open_split(split)
    encoder = load_encoder(run, device=device).of_images()
    rivals = {str(path): load_encoder(path, device=device) for path in against}
    material = Material.of(encoder, encoder.load(data, labels=True, label=label), known, part, heads)
    runs = {name: Run.open(one.run) for name, one in {TRAINED: encoder, **rivals}.items()}
    found = {name: about_seen_classes(one, material.asked, split=known) for name, one in runs.items()}
    warnings = {name: told for name, told in found.items() if told}
    for told in warnings.values():
        say(f"warning: {told}")
    lists = _lists(material.asked, shots, ways=ways, queries=queries, seed=seed, dirichlet=dirichlet, many=episodes)
    card = Card(
        data=str(data), fingerprint=material.asked.fingerprint, split=known and known.name,
        split_fingerprint=known and known.fingerprint, part=part if known else None,
        classes=len(material.asked.classes or ()), images=len(material.asked), ways=ways, shots=tuple(lists),
        queries=queries, episodes=episodes, lists={str(count): one.fingerprint for count, one in lists.items()},
        seed=seed, dirichlet=dirichlet, heads={name: HEADS[name].about for name in heads}, query_prior=query_prior,
        support_views=support_views, query_views=query_views,
    )  # fmt: skip
    say(f"{card.images:,} images of {card.classes} classes, {episodes:,} episodes for each number of shots: {PIXELS}")
    scores = {}
    if not (support_views or query_views):
        scores[PIXELS] = _scores(material, lists, card, PIXELS, say, by_pixels=True)
    say(f"{UNTRAINED}, then {', '.join([*rivals, TRAINED])}")
    scores[UNTRAINED] = _scores(material.by(encoder.untrained()), lists, card, UNTRAINED, say)
    for name, rival in rivals.items():
        other = rival.load(data, labels=True, label=label)
        same = _same(Material.of(rival, other, known, part, heads), material, name)
        scores[name] = _scores(same, lists, card, name, say)
    scores[TRAINED] = _scores(material, lists, card, TRAINED, say)
    about = {name: _about(one) for name, one in {**rivals, TRAINED: encoder}.items()}
    evaluation = FewShotEvaluation(card, scores, about, main=TRAINED, warnings=warnings)
    say(evaluation.as_text())
    say(f"\nwrote {' and '.join(map(str, _write(runs[TRAINED], evaluation)))}")
    return evaluation


@dataclass(frozen=True)
class Material:
    """An encoder with the images that it is asked about.

    Args:
        encoder: The encoder.
        asked: Images that episodes are drawn from.
        base: Images of the training classes, where a head needs their mean feature.
    """

    encoder: Encoder
    asked: Dataset
    base: Dataset | None

    @classmethod
    def of(cls, encoder: Encoder, whole: Dataset, split: Split | None, part: str, heads: Sequence[str]) -> Material:
        """The part of the data that is asked about, as this encoder wants it."""
        needed = split is not None and any(HEADS[name].needs_centre for name in heads)
        base = split.part(whole, "train") if split is not None and needed else None
        return cls(encoder, whole if split is None else split.part(whole, part), base)

    def by(self, encoder: Encoder) -> Material:
        """The same images for an encoder that reads them in the same way."""
        return Material(encoder, self.asked, self.base)

    def bank(self, views: int, *, seed: int) -> Tensor:
        """Features of the images and of `views` augmented copies of each, `[views + 1, N, D]`."""
        return torch.stack([self.encoder(self.asked), *(self._augmented(n, seed) for n in range(views))])

    @torch.no_grad()
    def _augmented(self, number: int, seed: int) -> Tensor:
        draw, parts = first_view(self.encoder), []
        for first in range(0, len(self.asked), 256):
            places = np.arange(first, min(first + 256, len(self.asked)))
            batch = self.asked.batch(places, seed=seed, epoch=VIEW_EPOCH + number)
            parts.append(self.encoder.vectors(draw(batch)[0].to(self.encoder.device.device)).float().cpu())
        return torch.cat(parts)


def first_view(encoder: Encoder) -> Views:
    """The first view that the encoder was trained on.

    Raises:
        UsageError: Its method draws views in a way of its own.
    """
    run = Run.open(encoder.run)
    drawn = getattr(stored_method(run).views, "views", None)
    if drawn is None:
        raise UsageError(
            f"the views of {run.settings['method']} are its own",
            where="views",
            mend="leave out support and query views",
        )
    return Views(drawn[0])


def about_seen_classes(run: Run, asked: Dataset, *, split: Split | None) -> str | None:
    """Why the classes are not new to an encoder, or may not be; None where nothing speaks against it."""
    theirs = run.info.get("seen", run.info["classes"])
    shared = sorted(set(theirs or run.info["classes"] or ()) & set(asked.classes or ()))
    if run.info["fingerprint"] == asked.fingerprint:
        return f"{run.path} was trained on these very images; few-shot accuracy is about classes it has not seen"
    if shared:
        return (
            f"{len(shared)} of {len(asked.classes or ())} classes have the names of classes that {run.path} was "
            f"trained on ({', '.join(shared[:5])}{', ...' if len(shared) > 5 else ''}); if they are the same, they are "
            "not new"
        )
    if theirs is None and split is not None:
        return (
            f"{run.path} was trained without labels: it can't be told whether it has seen the classes of {split.name}"
        )
    return None


def _check(heads: Sequence[str], shots: Sequence[int], query_prior: str, most: int, least: int) -> None:
    if isinstance(heads, str) or isinstance(shots, str | int):
        raise UsageError("heads and shots are lists", where="evaluate_few_shot", mend='heads=["lr"], shots=[1]')
    if query_prior not in PRIORS:
        raise unknown("query prior", query_prior, PRIORS, where="query_prior")
    if not shots or len(set(shots)) < len(shots):
        raise UsageError(f"shots {list(shots)}", where="shots", mend="one or more numbers, all different")
    if least < 0 or most > 100:
        raise UsageError("a number of views out of range", where="views", mend="0 to 100")


def _lists(
    asked: Dataset, shots: Sequence[int], *, queries: int, seed: int, dirichlet: float | None, ways: int, many: int
) -> dict[int, Episodes]:
    """Shots -> stored list of episodes, the same for every run: it depends on images, labels and settings alone."""
    assert asked.labels is not None
    if many < 2:
        raise UsageError(f"{many} episodes", where="episodes", mend="two or more; 10,000 give ± 0.2 points")
    samplers = {
        count: EpisodeSampler(
            asked.labels, ways=ways, shots=count, queries=queries, seed=seed, dirichlet=dirichlet, names=asked.classes
        )
        for count in sorted(shots, reverse=True)  # where images are too few, the error is about the most shots
    }
    folder = cache_folder(None) / "episodes"
    return {count: stored(folder, samplers[count], many, data=asked.fingerprint) for count in shots}


def _same(other: Material, material: Material, name: str) -> Material:
    if other.asked.fingerprint != material.asked.fingerprint:
        raise DataError("this encoder can read other images than the first", where=name, mend="leave that run out")
    return other


def _scores(
    material: Material,
    lists: dict[int, Episodes],
    card: Card,
    name: str,
    say: Callable[[str], None],
    *,
    by_pixels: bool = False,
) -> Table:
    """Shots -> head -> score."""

    def encode(dataset: Dataset) -> Tensor:
        return pixels(material.encoder, dataset) if by_pixels else material.encoder(dataset)

    centre = None if material.base is None else encode(material.base).mean(dim=0)
    views = max(card.support_views, card.query_views)
    bank = encode(material.asked)[None] if by_pixels else material.bank(views, seed=card.seed)
    table = {}
    for shots, episodes in lists.items():
        rows, seen = with_views(bank, episodes, support=card.support_views, query=card.query_views)
        pace = Pace(f"{name}, {shots} shot{'s' * (shots > 1)}", say)
        table[shots] = evaluate_episodes(
            rows, seen, list(card.heads), query_prior=card.query_prior, centre=centre, progress=pace
        )
    return table


def _about(encoder: Encoder) -> str:
    """Encoder and input, in words."""
    settings, crop = Run.open(encoder.run).settings, encoder.crop
    net = getattr(encoder.net, "describe", lambda: settings["encoder"])()
    return (
        f"{encoder.run}: {settings['method']}; {net}; its last map is averaged over what places "
        f"it has; centre crop of {crop.size} px, mean {crop.mean}, std {crop.std}"
    )


def _write(run: Run, evaluation: FewShotEvaluation) -> list[Path]:
    """`few_shot.json` and the accuracies of all episodes, with what they held of other protocols and of other runs."""
    name, draws = evaluation.card.hash, run.path / DRAWS
    known = read_json(run.path / RESULTS) if (run.path / RESULTS).exists() else {"format": FORMAT, "results": {}}
    refuse_newer(known, FORMAT, run.path / RESULTS)
    earlier, file = known["results"].get(name, {}), draws / f"{name}.npz"
    accuracies = with_earlier_draws(evaluation.draws(), file)

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **accuracies)

    with disk_errors(draws):
        draws.mkdir(exist_ok=True)
    written = run.replace(f"{DRAWS}/{name}.npz", write)
    results = {**known["results"], name: with_earlier(evaluation.as_dict(), earlier)}
    return [run.write_json(RESULTS, {"format": FORMAT, "results": results}), written]
