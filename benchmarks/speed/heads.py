"""Few-shot heads: the contenders of `benchmarks.few_shot_heads`, here with the range of each ratio."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks import few_shot_heads as contenders
from benchmarks.speed.harness import OURS, Row, Settings, Turn, there
from nearfar.episodes import Episodes, EpisodeSampler

BARS = {1: 13.0, 5: 10.0}
"""Shots -> times as fast as scikit-learn's default, for logistic regression."""
NEAREST = 3.0
SAME = 0.02
"""Share of answers that may differ: scikit-learn's default tolerance turns some; at 1e-9 none may."""
PROTOCOL = contenders.PROTOCOL
SHOWN = ("logistic regression, C = 1", "nearest mean")


def rows(settings: Settings) -> Iterator[Row]:
    """A row a head and number of shots."""
    bank = contenders.features()
    table = contenders.against_scikit_learn(bank)
    if there("easyfsl"):
        table |= contenders.against_easyfsl(bank)
    sampler = partial(EpisodeSampler, np.arange(contenders.CLASSES).repeat(contenders.EACH), ways=5, queries=15)
    for shots in (1, 5):
        episodes = sampler(shots=shots).draw(0, 4 if settings.smoke else 200)
        for name in (name for name in SHOWN if name in table):
            yield row(name, shots, table[name], episodes, settings)


def row(name: str, shots: int, answers: dict[str, contenders.Answer], episodes: Episodes, settings: Settings) -> Row:
    """Milliseconds an episode."""
    turn = {"units": len(episodes), "clock": settings.clock, "scale": 1e3}
    return Row(
        name=f"{name}, 5-way {shots}-shot",
        unit="ms an episode",
        costs={who: Turn(partial(answer, episodes), **turn) for who, answer in answers.items()},
        measured=settings.measured,
        agreement=lambda: agreement(answers, episodes),
        targets={"scikit-learn": BARS[shots]} if "scikit-learn" in answers else {"easyfsl": NEAREST},
        work={"bytes": 4 * contenders.WIDTH * 5 * (shots + 15)},
    )


def agreement(answers: dict[str, contenders.Answer], episodes: Episodes) -> dict[str, tuple[float, float]]:
    """Share of answers that differ from nearfar's."""
    ours = answers[OURS](episodes)
    allowed = {"scikit-learn, 1e-9": 0.0}
    others = {name: answer(episodes) for name, answer in answers.items() if name != OURS}
    return {name: (float((theirs != ours).mean()), allowed.get(name, SAME)) for name, theirs in others.items()}
