"""The same loss and the same gradient in 1, 2 and 4 processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from nearfar import similarity
from nearfar.distributed import gather, mean_value, rank, total, world
from nearfar.losses import infonce
from nearfar.method import Pairs

B, WIDTH = 12, 6
"""Images of the global batch, width of an input and of an embedding."""


def _case(name: str, rows: slice, weight: nn.ParameterDict) -> list[tuple[Pairs, similarity.Similarity, dict]]:
    """Comparisons of the images `rows` of the batch, with embeddings that depend on learned weights."""
    draw = torch.Generator().manual_seed(5)
    first, second = (torch.randn(B, WIDTH, generator=draw, dtype=torch.float64)[rows] @ weight["map"] for _ in range(2))
    queue = torch.randn(10, WIDTH, generator=draw, dtype=torch.float64)
    ids = torch.arange(B)[rows]
    both, slot = torch.cat([first, second]), torch.cat([2 * ids, 2 * ids + 1])
    degrees = {"temperature": weight["temperature"]}
    if name == "nt_xent":
        key = ids.repeat(2)
        return [(Pairs(both, both, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine, degrees)]
    if name == "supcon_some_without_positive":
        key = torch.tensor([0, 1, 0, 2, 1, 0, 3, 3, 0, 4, 1, 5])[rows]
        pairs = Pairs(first, first, key, key, anchor_slot=ids, other_slot=ids)
        return [(pairs, similarity.dot, {"denominator": d} | degrees) for d in ("all", "negatives")]
    if name == "moco":
        return [(Pairs(first, queue, positive=second.detach(), gather=False), similarity.cosine, degrees)]
    if name == "moco_v3":
        return [(Pairs(first, second.detach(), ids, ids), similarity.cosine, degrees)]
    if name == "clip":
        there, back = Pairs(first, second, ids, ids), Pairs(second, first, ids, ids)
        return [(p, similarity.cosine, degrees) for p in (there, back)]
    if name == "amdim":
        settings = {"denominator": "own_and_negatives"} | degrees
        return [(Pairs(first, both, ids, ids.repeat(2)), similarity.clipped_dot(2.0), settings)]
    if name == "log_sum_with_own_positive":
        first, second = 0.2 * first, 0.2 * second  # distances near 1
        pairs = Pairs(first, second, ids % 3, ids % 3, positive=second.flip(-1))
        return [(pairs, similarity.negative_distance, {"positives": "log_sum"} | degrees)]
    assert name == "prototypes"
    pairs = Pairs(first, weight["prototypes"], ids % 4, torch.arange(4), gather=False)
    return [(pairs, similarity.scaled_dot, degrees)]


CASES = ["nt_xent", "supcon_some_without_positive", "moco", "moco_v3", "clip", "amdim"]
CASES += ["log_sum_with_own_positive", "prototypes"]


def _weights() -> nn.ParameterDict:
    draw = torch.Generator().manual_seed(6)
    return nn.ParameterDict(
        {
            "map": torch.randn(WIDTH, WIDTH, generator=draw, dtype=torch.float64),
            "prototypes": torch.randn(4, WIDTH, generator=draw, dtype=torch.float64),
            "temperature": torch.tensor(0.3, dtype=torch.float64),
        }
    )


def _result(name: str, rows: slice) -> dict[str, Tensor]:
    """Loss, and the gradient of each weight, averaged over the processes as DDP does."""
    weights = _weights()
    loss = torch.stack([infonce(pairs, part, **settings) for pairs, part, settings in _case(name, rows, weights)]).sum()
    loss.backward()
    found = {k: mean_value(w.grad if w.grad is not None else torch.zeros_like(w)) for k, w in weights.items()}
    return found | {"loss": loss.detach()}


def _share(cuts: list[int]) -> slice:
    return slice(cuts[rank()], cuts[rank() + 1])


def _join(folder: Path, number: int, processes: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{processes}", rank=number, world_size=processes)


def _work(number: int, folder: Path) -> None:
    """One of four processes; two of them go on as a group of two, with unequal shares of the batch."""
    torch.set_num_threads(1)
    found = {}
    for processes, cuts in ((4, [0, 3, 6, 9, 12]), (2, [0, 7, 12])):
        if number >= processes:
            continue
        _join(folder, number, processes)
        found |= {(name, processes): _result(name, _share(cuts)) for name in CASES}
        found |= {("primitives", processes): _primitives()}
        found |= {("empty", processes): _nothing_to_compare()}
        dist.destroy_process_group()
    torch.save(found, folder / f"result{number}.pt")


def _primitives() -> dict[str, Tensor]:
    mine = torch.full((rank() + 1, 2), float(rank()))
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (total((rank() + 1) * x) * torch.tensor([1.0, 10.0])).sum().backward()
    assert x.grad is not None
    untouched = torch.ones(2)
    total(untouched)
    return {"gather": gather(mine), "gradient": x.grad, "world": torch.tensor(world()), "untouched": untouched}


def _nothing_to_compare() -> dict[str, Tensor]:
    """Only the first process has anchors, and only it has others."""
    n = 4 if rank() == 0 else 0
    x = torch.eye(4, dtype=torch.float64)[:n].requires_grad_()
    ids = torch.arange(n)
    loss = infonce(Pairs(x, x.clone(), ids, ids), similarity.cosine)
    loss.backward()
    return {"loss": loss.detach()}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What four processes found, started once for all tests."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(_work, (folder,), nprocs=4)
    return [torch.load(folder / f"result{number}.pt") for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_X1_loss_and_gradient_do_not_depend_on_the_number_of_processes(found, name, processes):
    alone = _result(name, slice(0, B))
    assert alone["map"].norm() > 1e-3
    for one in found[:processes]:
        for key, want in alone.items():
            assert torch.allclose(one[name, processes][key], want, rtol=1e-10, atol=1e-10), key


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_gather_keeps_the_order_of_unequal_shares_and_total_carries_gradients(found, processes):
    want = torch.cat([torch.full((r + 1, 2), float(r)) for r in range(processes)])
    for r, one in enumerate(found[:processes]):
        got = one["primitives", processes]
        assert torch.equal(got["gather"], want) and got["world"] == processes
        assert torch.equal(got["untouched"], torch.ones(2))
        # Each process's loss holds the sum, so the sum of losses has it `processes` times.
        assert torch.equal(got["gradient"], (r + 1) * processes * torch.tensor([1.0, 10.0]))


@pytest.mark.slow
def test_a_process_without_anchors_takes_part_in_the_calls(found):
    ids, rows = torch.arange(4), torch.eye(4, dtype=torch.float64)
    want = infonce(Pairs(rows, rows.clone(), ids, ids), similarity.cosine)
    for processes in (2, 4):
        for one in found[:processes]:
            assert torch.allclose(one["empty", processes]["loss"], want, rtol=1e-12)


def test_a_single_process_needs_no_group():
    x = torch.ones(3, requires_grad=True)
    assert (rank(), world()) == (0, 1)
    assert total(x) is x and torch.equal(mean_value(x), x.detach())
    assert torch.equal(gather(x), x) and not gather(x).requires_grad
