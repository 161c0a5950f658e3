"""Sequences from an environment: what an agent sees, step by step, for `load_sequences`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import UsageError
from ..randomness import address


def collect(
    environment: Any, policy: Callable[[np.ndarray], Any] | None = None, *, steps: int, seed: int
) -> dict[str, np.ndarray]:
    """Plays episodes until `steps` observations are there; the last episode is cut off.

    Args:
        environment: With Gymnasium's interface (https://gymnasium.farama.org/api/env): `reset(seed=)` gives an
            observation and more, `step(action)` an observation, reward, terminated, truncated and more. Any object
            with these will do.
        policy: Observation -> action. None: `environment.action_space.sample()`, seeded.
        steps: Observations in all, >= 1. The first of an episode counts too.
        seed: Episode n starts from a seed made of this and n.

    Returns:
        `observations` `[steps, ...]` and `lengths` of the episodes, for `np.savez(path, **collect(...))`.

    Raises:
        UsageError: `steps` < 1, or an environment with another interface or changing observations.

    Example:
        >>> class Count:
        ...     def reset(self, *, seed):
        ...         self.at = 0
        ...         return np.float32([0]), {}
        ...     def step(self, action):
        ...         self.at += action
        ...         return np.float32([self.at]), 0.0, self.at >= 4, False, {}
        >>> found = collect(Count(), lambda observation: 2, steps=5, seed=0)
        >>> found["observations"].ravel().tolist(), found["lengths"].tolist()
        ([0.0, 2.0, 4.0, 0.0, 2.0], [3, 2])
    """
    if steps < 1:
        raise UsageError(f"{steps} steps", where="steps", mend="1 or more observations")
    if policy is None:
        environment.action_space.seed(address(seed, 1) % 2**31)
    seen: list[np.ndarray] = []
    lengths: list[int] = []
    over = True
    while len(seen) < steps:
        if over:
            observation = _parts(environment.reset(seed=address(seed, 0, len(lengths)) % 2**31), 2, "reset")[0]
            lengths.append(0)
            over = False
        else:
            action = environment.action_space.sample() if policy is None else policy(seen[-1])
            observation, _, terminated, truncated, _ = _parts(environment.step(action), 5, "step")
            over = bool(terminated or truncated)
        seen.append(_observation(observation, seen))
        lengths[-1] += 1
    return {"observations": np.stack(seen), "lengths": np.array(lengths)}


def _parts(result: Any, count: int, name: str) -> tuple[Any, ...]:
    """What a call of the environment gave."""
    if not isinstance(result, tuple) or len(result) != count:
        told = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise UsageError(f"{name} gave {told}", where="environment", mend=f"{count} values, as Gymnasium's {name} does")
    return result


def _observation(observation: Any, seen: list[np.ndarray]) -> np.ndarray:
    """A copy, for environments that write into the same array again."""
    copied = np.array(observation)
    if copied.dtype.kind not in "biuf" or (seen and copied.shape != seen[0].shape):
        raise UsageError(
            f"an observation of type {copied.dtype} and shape {list(copied.shape)}",
            where="environment",
            mend="numbers of one shape; flatten dictionaries first",
        )
    return copied
