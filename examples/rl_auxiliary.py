"""An agent with and without CPC as a second loss on its encoder, in a world that it sees a third of the time.

A target goes round a ring of 12 places, one place a step, in a direction of its own. At a third of the steps it is lit,
and the agent sees how far off it is. The agent stays or goes a place either way, and earns 1 at every step that it ends
beside or on the target. It is a recurrent advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783);
the second loss is that of van den Oord et al. 2018, section 3.4 (https://arxiv.org/abs/1807.03748), on the same cells
and context. Both curves are printed; so few seeds don't tell which loss is better.

    python examples/rl_auxiliary.py --updates 150 --seeds 2
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from nearfar import similarity
from nearfar.encoders.observations import Observations
from nearfar.encoders.recurrent import Recurrent
from nearfar.extract.predict import Predict, ZAndContext
from nearfar.losses import infonce
from nearfar.method import Batch

PLACES, MOVES, EPISODES, STEPS, DISCOUNT = 12, 3, 32, 16, 0.8
FEATURES = PLACES + MOVES + 1
PARTS = 10  # of training, for which the mean reward is printed
contrast = partial(infonce, temperature=1.0)


class Pursuit:
    """Episodes side by side. What is seen: how far the target is if lit, whether it is, and the last move."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.ahead, self.way = rng.integers(PLACES, size=EPISODES), rng.choice([-1, 1], EPISODES)
        self.moves = np.ones(EPISODES, np.int64)

    def observe(self) -> Tensor:
        """Noisy observations, `[EPISODES, FEATURES]`."""
        lit = self.rng.random((EPISODES, 1)) < 1 / 3
        seen = np.hstack([np.eye(PLACES)[self.ahead] * lit, lit, np.eye(MOVES)[self.moves]])
        return torch.from_numpy(seen + self.rng.normal(0, 0.1, seen.shape)).float()

    def step(self, moves: np.ndarray) -> np.ndarray:
        """Rewards of the moves 0, 1, 2 (back, stay, on), `[EPISODES]`."""
        self.moves, self.ahead = moves, (self.ahead + self.way - (moves - 1)) % PLACES
        return np.isin(self.ahead, (0, 1, PLACES - 1)).astype(np.float32)


class Agent(nn.Module):
    """Encoder, policy and value, and the predictions of CPC."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Recurrent(Observations(FEATURES, width=32), width=32, context=64)
        self.policy, self.value = nn.Linear(64, MOVES), nn.Linear(64, 1)
        self.predict, self.head = Predict(width=32, context=64, steps=3), ZAndContext()

    @torch.no_grad()
    def play(self, world: Pursuit, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Observations `[B, T, F]`, moves and rewards `[B, T]`. The state goes on from step to step."""
        state, seen, moves, rewards = None, [], [], []
        for _ in range(STEPS):
            seen.append(world.observe())
            z, _ = self.encoder.cells(seen[-1][:, None])
            context, state = self.encoder.recurrence(z, state)
            chances = self.policy(context[:, 0]).softmax(1)
            moves.append(torch.multinomial(chances, 1, generator=generator)[:, 0])
            rewards.append(torch.from_numpy(world.step(moves[-1].numpy())))
        return torch.stack(seen, 1), torch.stack(moves, 1), torch.stack(rewards, 1)

    def loss(self, seen: Tensor, moves: Tensor, rewards: Tensor, *, weight: float) -> Tensor:
        """Of the actor-critic, and `weight` times that of CPC."""
        maps = self.encoder(seen)
        logs, values = self.policy(maps[1]).log_softmax(-1), self.value(maps[1])[..., 0]
        advantage = discounted(rewards) - values
        scale = advantage.detach() / advantage.detach().std()
        chosen = logs.gather(2, moves[..., None])[..., 0]
        entropy = -(logs.exp() * logs).sum(-1).mean()
        own = -(scale * chosen).mean() + 0.5 * advantage.pow(2).mean() - 0.01 * entropy
        return own + weight * self.ahead(maps) if weight else own

    def ahead(self, maps: list[Tensor]) -> Tensor:
        """What CPC says of the steps ahead, among all steps of all episodes."""
        count = len(maps[0])
        batch = Batch(torch.empty(count, 0), torch.full((count, 1), STEPS), torch.arange(count))
        pairs = self.predict([self.head(maps)], [], batch, None)
        return torch.stack([pair.weight * contrast(pair, similarity.dot) for pair in pairs]).sum()


def discounted(rewards: Tensor) -> Tensor:
    """`G_t = r_t + DISCOUNT * G_t+1`, `[B, T]`."""
    found, after = torch.empty_like(rewards), torch.zeros(len(rewards))
    for step in reversed(range(rewards.shape[1])):
        after = rewards[:, step] + DISCOUNT * after
        found[:, step] = after
    return found


def train(seed: int, updates: int, weight: float) -> list[float]:
    """Mean reward a step, in each update."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    agent = Agent()
    optimizer, curve = torch.optim.Adam(agent.parameters(), lr=0.01), []
    for _ in range(updates):
        played = agent.play(Pursuit(rng), generator)
        optimizer.zero_grad()
        agent.loss(*played, weight=weight).backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
        optimizer.step()
        curve.append(float(played[2].mean()))
    return curve


def main() -> None:
    """Trains both agents from each seed and prints the mean reward a step over the parts of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=150, help=f"of {EPISODES} episodes of {STEPS} steps")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--weight", type=float, default=0.1, help="of the loss of CPC")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"mean reward a step, over {PARTS} parts of {given.updates} updates; one who moves by chance earns 0.25")
    for seed in range(given.seeds):
        for name, weight in (("without", 0.0), ("with CPC", given.weight)):
            began = time.perf_counter()
            parts = np.array_split(train(seed, given.updates, weight), min(PARTS, given.updates))
            told = " ".join(f"{part.mean():.2f}" for part in parts)
            print(f"seed {seed}  {name:8}  {told}  ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
