"""The five-part study: one part at a time, intervals that are true, and nothing trained twice."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from toy import SIDE, stripes

import nearfar.encoders
from nearfar import losses, similarity
from nearfar.ablation import VARIANTS, Mean, Study
from nearfar.ablation import sweep as sweeps
from nearfar.ablation.cells import BASE, SWEEP_SEED, Cell, Plan, wanted
from nearfar.ablation.claims import claims
from nearfar.ablation.context import Context, compared, keyword, most_positives, with_keywords
from nearfar.ablation.cost import Cost, cost
from nearfar.ablation.intervals import compare, holm, judge
from nearfar.ablation.picture import draw
from nearfar.ablation.study import rows_of
from nearfar.ablation.variants import find
from nearfar.describe import parts
from nearfar.errors import DataError, HealthError, Stopped, UsageError
from nearfar.method import Batch, Contrast, Method
from nearfar.methods.amdim import amdim
from nearfar.methods.cpc import cpc
from nearfar.methods.moco import moco
from nearfar.methods.simclr import simclr
from nearfar.methods.swav import swav
from nearfar.methods.yadim import yadim
from nearfar.tasks import encoder as encoders
from nearfar.tasks.ablate import ablate
from nearfar.tasks.studies import plan as plans
from nearfar.tasks.studies import setup as setups
from nearfar.tasks.studies import training

pytestmark = pytest.mark.usefixtures("own_cache")

BASES = {
    "simclr": partial(simclr, size=SIDE, hidden=(16,), width=8),
    "amdim": partial(amdim, size=SIDE, width=8),
    "yadim": partial(yadim, size=SIDE, width=8),
}
FIELD = {"extraction": "extract"}
PENALISED = {("amdim", "extraction", "every-view"), ("yadim", "extraction", "every-view")}
"""AMDIM's penalty is over all scores, an extraction that leaves some out is no part of such a study."""
SMALL = {
    "base": "simclr",
    "encoder": "two-maps",
    "batch": 16,
    "optimizer": "adamw",
    "device": "cpu",
    "precision": "fp32",
}


class TwoMaps(torch.nn.Module):
    """Maps of 8 and 4 cells to a side; so small that a study takes seconds."""

    def __init__(self, *, channels: int = 3, size: int = SIDE, factor: int = 1) -> None:
        super().__init__()
        self.width = 8 * factor
        self.first = torch.nn.Conv2d(channels, self.width, 4, 2, 1)
        self.second = torch.nn.Conv2d(self.width, self.width, 4, 2, 1)

    def forward(self, view: torch.Tensor) -> list[torch.Tensor]:
        large = self.first(view).relu()
        return [large, self.second(large).relu()]


@pytest.fixture(autouse=True)
def two_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder of these tests, by name."""
    monkeypatch.setitem(nearfar.encoders.ENCODERS, "two-maps", TwoMaps)


def toy_batch(count: int = 6) -> Batch:
    return stripes(32).batch(np.arange(count), seed=1)


def context_of(base: str, *, temperature: float = 0.5) -> Context:
    return Context(lambda name: BASES[base](encoder=name), "two-maps", SIDE, 3, toy_batch(), temperature)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """60 labelled images in a file."""
    data = stripes(60)
    np.savez(tmp_path / "toy.npz", images=np.asarray(data.inputs).transpose(0, 2, 3, 1), labels=data.labels)
    return tmp_path / "toy.npz"


def small(toy: Path, out: Path, **settings: object) -> Study:
    said: list[str] = []
    given = {**SMALL, "seeds": 2, "epochs": 1, "say": said.append, "out": out, **settings}
    return ablate(toy, **given)  # pyright: ignore[reportArgumentType]


# Numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_that_of_students_t(count: int) -> None:
    values = np.random.default_rng(count).normal(0.6, 0.05, count)
    found = Mean.of(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose((found.mean, found.low, found.high), (values.mean(), low, high), rtol=1e-12)


def test_three_seeds_by_hand() -> None:
    found = Mean.of([0.5, 0.6, 0.7])  # s = 0.1, t(0.975, 2) = 4.302653
    assert found.low == pytest.approx(0.6 - 4.302653 * 0.1 / 3**0.5, abs=1e-7)
    assert str(found) == "60.0 ± 24.8"


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    one = judge([compare([0.9], [0.1])])[0]
    assert (one.difference.low, one.p, one.verdict) == (None, None, "no evidence")


def test_p_values_are_those_of_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(0.5, 0.1, (2, 5))
    assert compare(a.tolist(), b.tolist()).p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


def test_differences_without_spread() -> None:
    assert compare([0.5, 0.6], [0.4, 0.5]).p == 0.0
    assert compare([0.5, 0.6], [0.5, 0.6]).p == 1.0


def test_holm_is_its_own_definition() -> None:
    values = np.random.default_rng(1).uniform(0, 0.2, 7)
    order = sorted(values)
    for place, found in enumerate(holm(values.tolist())):
        rank = order.index(values[place])
        slow = max(min(1.0, (7 - j) * order[j]) for j in range(rank + 1))
        assert found == pytest.approx(slow)


def test_verdicts_of_made_up_numbers() -> None:
    base = [0.50, 0.52, 0.51]
    better, worse, open_ = [0.60, 0.62, 0.611], [0.40, 0.42, 0.411], [0.55, 0.47, 0.52]
    assert [one.verdict for one in judge([compare(v, base) for v in (better, worse, open_)])] == [
        "better", "worse", "no evidence"
    ]  # fmt: skip


def test_many_comparisons_together_are_rarely_wrong() -> None:
    rng, wrong, trials = np.random.default_rng(2), 0, 400
    for _ in range(trials):
        base = rng.normal(size=3)
        judged = judge([compare(rng.normal(size=3).tolist(), base.tolist()) for _ in range(8)])
        wrong += any(one.verdict != "no evidence" for one in judged)
    assert wrong / trials < 0.08  # 0.05, and three standard errors of 400 trials
    # Without Holm a third of such studies would find a difference.


# Variants ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("part", [part for part in VARIANTS if part != "encoder"])
def test_a_variant_differs_in_exactly_one_part_and_learns(base: str, part: str) -> None:
    method, context, field = BASES[base](encoder="two-maps"), context_of(base), FIELD.get(part, part)
    learned = 0
    for name in VARIANTS[part]:
        variant = find(part, name)(method, context)
        if variant is method:
            continue
        changed = {f.name for f in fields(Method) if getattr(variant, f.name) is not getattr(method, f.name)}
        if part == "similarity":  # it has a temperature of its own, and no penalty in the units of another
            assert changed | {"similarity"} == {"similarity", "loss"}, name
            for key in ("positives", "denominator"):
                assert keyword(variant.loss, key) == keyword(method.loss, key)
        else:
            assert changed == {field}, name
        model = Contrast(variant)
        if (base, part, name) in PENALISED:
            with pytest.raises(UsageError, match="penalty"):
                model(context.batch)
            continue
        loss = model(context.batch)
        loss.backward()
        assert torch.isfinite(loss) and not [n for n, p in model.named_parameters() if p.grad is None], name
        learned += 1
    assert learned >= {"views": 8, "extraction": 2, "similarity": 5, "loss": 1}[part]


@pytest.mark.parametrize("base", BASES)
def test_another_encoder_leaves_the_other_parts_as_they_are(base: str) -> None:
    method = BASES[base](encoder="two-maps")
    told, other = parts(method), parts(find("encoder", "two-maps-x2")(method, context_of(base)))
    assert {name for name in told if told[name] != other[name]} <= {"encoder"}
    assert find("encoder", "two-maps")(method, context_of(base)) is method


def test_views_of_other_methods_keep_size_normalisation_and_what_views_share() -> None:
    method = amdim(encoder="two-maps", size=SIDE, width=8)
    found = find("views", "simclr")(method, context_of("amdim")).views
    assert type(found) is type(method.views)
    view, own = found.views[0], simclr(encoder="two-maps", size=SIDE, strength=0.5).views.views[0]
    assert view == own and view.scale == (0.08, 1.0)
    union = find("views", "union")(method, context_of("amdim")).views.views[0]
    assert (union.pad, union.scale, union.grey_p) == (1 / 8, (0.08, 1.0), 0.25)
    assert union.jitter == (0.4, 0.4, 0.4, 0.2)


def test_no_augmentation_makes_equal_views() -> None:
    method = find("views", "none")(BASES["simclr"](encoder="two-maps"), context_of("simclr"))
    one, two = method.views(toy_batch())
    assert torch.equal(one, two)


def test_no_crop_reaches_small_views_too() -> None:
    method = swav(encoder="small", size=32, hidden=8, prototypes=8, crops=2)
    assert {view.size for view in method.views.views} == {32, 16}
    found = find("views", "no-crop")(method, context_of("simclr")).views.views
    assert [view.scale for view in found] == [(1.0, 1.0)] * 4 and [view.size for view in found] == [32, 32, 16, 16]


@pytest.mark.parametrize("name", VARIANTS["similarity"])
def test_temperatures_are_in_the_unit_of_each_similarity(name: str) -> None:
    """With normed embeddings of width D all similarities but the clipped differ from cosine / t by a constant."""
    method, width, context = BASES["simclr"](encoder="two-maps"), 8, context_of("simclr", temperature=0.2)
    variant = find("similarity", name)(method, context)
    z = similarity.unit(torch.randn(5, width)) * width**0.5
    pairs = replace(compared(method, context.batch)[0], anchor=z, other=z, anchor_key=torch.tensor([0, 0, 1, 1, 2]))
    slots = torch.arange(5)
    pairs = replace(pairs, other_key=pairs.anchor_key, anchor_slot=slots, other_slot=slots)
    wanted_loss = losses.infonce(pairs, similarity.cosine, temperature=0.2)
    found = variant.loss(pairs, variant.similarity)
    torch.testing.assert_close(found, wanted_loss, rtol=0.02 if "clip" in name else 1e-5, atol=0)


def test_rules_that_are_the_same_for_one_positive_are_not_trained_twice() -> None:
    method, context = BASES["simclr"](encoder="two-maps"), context_of("simclr")
    same = [name for name in VARIANTS["loss"] if find("loss", name)(method, context) is method]
    assert same == ["positive-in-denominator", "own-and-negatives", "log-of-sum"]
    several = amdim(encoder="two-maps", size=SIDE)
    assert [n for n in VARIANTS["loss"] if find("loss", n)(several, context) is several] == ["own-and-negatives"]


def test_positives_are_counted_as_loops_count_them() -> None:
    for method in (BASES["simclr"](encoder="two-maps"), amdim(encoder="two-maps", size=SIDE, width=8)):
        slow = 0
        for pairs in compared(method, toy_batch()):
            for i, key in enumerate(pairs.anchor_key.tolist()):
                count = 0
                for j, other in enumerate(pairs.other_key.tolist()):
                    out = pairs.anchor_slot is not None and pairs.anchor_slot[i] == pairs.other_slot[j]
                    count += key == other and not out
                slow = max(slow, count)
        assert most_positives(method, toy_batch()) == slow
    assert most_positives(moco(encoder="two-maps", size=SIDE, queue=64, groups=1), toy_batch()) == 1


def test_extraction_that_is_bound_to_more_is_refused() -> None:
    bound = moco(encoder="two-maps", size=SIDE, queue=64, groups=1)
    one = cpc(encoder="two-maps", size=SIDE, hidden=8)
    for method, reason in ((bound, "bound to a teacher"), (one, "two views")):
        with pytest.raises(UsageError, match=reason):
            find("extraction", "last-map")(method, context_of("simclr"))


def test_keywords_are_changed_wherever_they_are_taken() -> None:
    loss = amdim(encoder="two-maps", size=SIDE).loss
    changed = with_keywords(loss, temperature=0.3, penalty=0.0)
    assert (keyword(changed, "temperature"), keyword(changed, "penalty")) == (0.3, 0.0)
    assert keyword(loss, "temperature") == 1.0 and keyword(changed, "denominator") == "own_and_negatives"
    with pytest.raises(UsageError, match="no temperature"):
        with_keywords(losses.infonce, temperature=0.1)


def test_operations_and_weights_are_counted() -> None:
    class One(torch.nn.Module):
        width = 4

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)

        def forward(self, view: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(view)]

    found = cost(simclr(encoder=One(), size=SIDE, hidden=(5,), width=6), toy_batch())
    views, convolution, head = 2, 2 * 4 * 3 * 9 * SIDE**2, 2 * (4 * 5 + 5 * 6)
    assert found.flops == views * (convolution + head)
    assert found.encoder == 4 * 3 * 9
    assert found.trained == found.encoder + 4 * 5 + 2 * 5 + 5 * 6 + 6


def test_what_to_vary_is_read_or_refused() -> None:
    assert list(wanted("all")) == list(VARIANTS)
    assert wanted(["encoder:resnet50", "views:none", "views:no-flip"]) == {
        "views": ["none", "no-flip"], "encoder": ["resnet50"]
    }  # fmt: skip
    for wrong in ("vews", "views:nothing", ()):
        with pytest.raises(UsageError):
            wanted(wrong)


# Studies -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_temperatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TEMPERATURES", (0.2, 1.0))


def test_a_study_is_written_and_never_trained_again(toy, tmp_path, monkeypatch, two_temperatures) -> None:
    out, asked = tmp_path / "study", ["views:none", "views:simclr", "similarity:dot"]
    study = small(toy, out, vary=asked)
    assert [(row.part, row.variant) for row in study.rows] == [(BASE, BASE), ("views", "none"), ("similarity", "dot")]
    for row in study.rows[1:]:
        for measure, one in row.against.items():
            values = [row.scores[measure][s] - study.rows[0].scores[measure][s] for s in (0, 1)]
            assert one.difference.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert study.skipped == [("views", "simclr", "for this base the same as what it has")]
    plan, results = (json.loads((out / name).read_text()) for name in ("study.json", "results.json"))
    assert plan["cells"] == sorted(plan["cells"], key=lambda f: f[-1]) and len(plan["cells"]) == 6
    assert results["skipped"] == plan["skipped"] == [list(study.skipped[0])]
    assert results["rows"][1]["scores"]["linear"].keys() == {"0", "1"}
    assert len(results["sweeps"]["dot"]["tried"]) == 2
    text = (out / "study.txt").read_text()
    assert "linear - base" in text and "H1" in text and "not equal" not in text and "after Holm" in text
    assert (out / "study.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(out.rglob("checkpoints"))

    trained, real = [], training.trained
    monkeypatch.setattr(training, "trained", lambda job, *rest: trained.append(job) or real(job, *rest))
    again = small(toy, out, vary=asked)
    assert not trained and again.as_dict() == study.as_dict()
    more = small(toy, out, vary="loss", seeds=3)  # what was measured before is in it, asked for or not
    assert [job.settings.seed for job in trained] == [0, 1, 2, 2, 2, 2]  # all of seed 2, and the loss of seeds 0 and 1
    both = [*((row.part, row.variant) for row in study.rows), ("loss", "negatives-only")]
    plan, results = (json.loads((out / name).read_text()) for name in ("study.json", "results.json"))
    assert [(row["part"], row["variant"]) for row in results["rows"]] == both
    assert plan["variants"] == {"views": ["none"], "similarity": ["dot"], "loss": ["negatives-only"]}
    assert len(plan["cells"]) == 12 and plan["costs"].keys() == {" ".join(one) for one in both}
    assert results["skipped"][0] == list(study.skipped[0]) and results["sweeps"].keys() == {"dot"}
    assert all(len(row.scores["linear"]) == 3 for row in more.rows) and "none" in (out / "study.txt").read_text()
    assert more.rows[1].scores["kNN"][0] == study.rows[1].scores["kNN"][0]
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        small(toy, out, vary=asked, epochs=2)


def test_the_choice_of_temperatures_never_sees_the_test_part(toy, tmp_path, monkeypatch, two_temperatures) -> None:
    asked: dict[str, set[str]] = {"sweep": set(), "final": set()}
    learned: dict[str, set[str]] = {"sweep": set(), "final": set()}
    real_call, real_decide = encoders.Encoder.__call__, setups.decide

    def stage(path: object, seed: int) -> str:
        return "sweep" if "sweep" in str(path) or seed == SWEEP_SEED else "final"

    def call(self: encoders.Encoder, dataset) -> torch.Tensor:
        asked[stage(self.run, 0)].update(dataset.names)
        return real_call(self, dataset)

    def decide(opened, settings, *rest, **named):
        learned[stage("", settings.seed)].update(opened.dataset.names)
        return real_decide(opened, settings, *rest, **named)

    monkeypatch.setattr(encoders.Encoder, "__call__", call)
    monkeypatch.setattr(setups, "decide", decide)
    study = small(toy, tmp_path / "study", vary="similarity:cosine", seeds=1)
    test = asked["final"] - learned["final"]
    assert len(test) == 12 and len(asked["final"]) == 60
    assert not test & (asked["sweep"] | learned["sweep"])
    assert len(asked["sweep"]) == 48 > len(learned["sweep"])  # a part of the training images is held out
    tried = study.sweeps["cosine"].tried
    scores = [
        json.loads(p.read_text()) for p in sorted((tmp_path / "study/similarity/cosine/sweep").rglob("scores.json"))
    ]
    assert sorted(t for t, _ in tried) == [0.2, 1.0] and all("linear" not in one["scores"] for one in scores)


def test_K1_a_stopped_study_goes_on_bit_for_bit(toy, tmp_path, monkeypatch) -> None:
    asked = {"vary": "views:none", "seeds": 1, "epochs": 2, "monitor_every": 1}
    small(toy, tmp_path / "whole", **asked)
    real = training.Line.report

    def stop_in_the_second(self: training.Line, row: dict[str, float]) -> None:
        if row["step"] == 4 and (tmp_path / "parts/base/seed0/scores.json").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(training.Line, "report", stop_in_the_second)
        with pytest.raises(Stopped):
            small(toy, tmp_path / "parts", **asked)
    assert not (tmp_path / "parts/views/none/seed0/scores.json").exists()
    small(toy, tmp_path / "parts", **asked)
    for cell in ("base/seed0", "views/none/seed0"):
        one, two = ((tmp_path / name / cell / "encoder.safetensors").read_bytes() for name in ("whole", "parts"))
        assert one == two, cell


def test_variants_of_a_seed_begin_with_the_same_encoder(toy, tmp_path) -> None:
    small(toy, tmp_path / "study", vary="views:none", seeds=1)
    job = partial(setups.Setup.job, opened_setup(toy, tmp_path))
    base = job(Cell(BASE, BASE, 0)).method.encoder.state_dict()
    for cell in (Cell("extraction", "last-map", 0), Cell("similarity", "bilinear", 0, 0.5), Cell("views", "none", 0)):
        found = job(cell).method.encoder.state_dict()
        assert all(torch.equal(base[name], found[name]) for name in base), cell
    other = job(Cell(BASE, BASE, 1)).method.encoder.state_dict()
    assert not all(torch.equal(base[name], other[name]) for name in base)


def opened_setup(toy: Path, out: Path) -> setups.Setup:
    from nearfar.tasks.ablate import _setup

    settings = {name: value for name, value in SMALL.items() if name != "base"}
    return _setup(toy, "simclr", settings, 1, None, out / "x", None, print)[0]


def test_a_run_of_a_study_is_a_run_like_any_other(toy, tmp_path) -> None:
    small(toy, tmp_path / "study", vary="encoder:two-maps-x2", seeds=1)
    wide = encoders.load_encoder(tmp_path / "study/encoder/two-maps-x2/seed0", device="cpu")
    assert wide(wide.load(toy)).shape == (60, 16)


def test_what_does_not_fit_is_said_and_stored(toy, tmp_path) -> None:
    said: list[str] = []
    study = small(
        toy, tmp_path / "study", base="moco", vary=["extraction:last-map", "loss:own-and-negatives"], seeds=1,
        queue=48, groups=1, say=said.append,
    )  # fmt: skip
    reasons = {name: reason for _, name, reason in study.skipped}
    assert "bound to a teacher" in reasons["last-map"] and "the same" in reasons["own-and-negatives"]
    assert any("not trained: extraction last-map: does not fit" in text for text in said)
    assert "bound to a teacher" in (tmp_path / "study/study.json").read_text()
    assert not (tmp_path / "study/study.png").exists()  # nothing to draw


def test_a_training_that_collapses_is_a_result(toy, tmp_path, monkeypatch) -> None:
    real = training.trained

    def collapse(job, run, *rest):
        if "none" in str(run.path):
            raise HealthError("collapse: all embeddings are alike")
        return real(job, run, *rest)

    monkeypatch.setattr(training, "trained", collapse)
    study = small(toy, tmp_path / "study", vary=["views:none", "views:no-flip"], seeds=1)
    row = study.of("views")[0]
    assert row.failed == {0: "collapse: all embeddings are alike"} and not row.means
    assert "collapsed" in study.as_text() and study.of("views")[1].means


def test_a_similarity_that_collapses_at_every_temperature_is_left_out(
    toy, tmp_path, monkeypatch, two_temperatures
) -> None:
    real, begun, said, out = training.trained, [], [], tmp_path / "study"

    def collapse(job, run, *rest):
        begun.append(run.path)
        if "dot" in run.path.parts:
            raise HealthError("collapse: all embeddings are alike")
        return real(job, run, *rest)

    monkeypatch.setattr(training, "trained", collapse)
    asked = {"vary": ["similarity:dot", "similarity:cosine"], "seeds": 1, "say": said.append}
    study = small(toy, out, **asked)
    left_out = ("similarity", "dot", sweeps.COLLAPSED)
    assert [row.variant for row in study.rows] == [BASE, "cosine"] and study.sweeps.keys() == {"cosine"}
    assert study.skipped == [left_out] and f"not trained: similarity dot: {sweeps.COLLAPSED}" in said
    for name in ("study.json", "results.json"):
        assert json.loads((out / name).read_text())["skipped"] == [list(left_out)]
    assert json.loads((out / "study.json").read_text())["variants"] == {"similarity": ["cosine"]}
    assert sweeps.COLLAPSED in (out / "study.txt").read_text()
    begun.clear()
    assert small(toy, out, **asked).as_dict() == study.as_dict() and not begun
    assert left_out in small(toy, out, vary="views:none", seeds=1).skipped and len(begun) == 1


def test_what_a_study_has_measured_stays_and_what_it_only_planned_does_not(toy, tmp_path, monkeypatch) -> None:
    out = tmp_path / "x"
    monkeypatch.setitem(VARIANTS["views"], "mine", VARIANTS["views"]["none"])
    setup, wide = opened_setup(toy, tmp_path), "encoder:two-maps-x2"
    plan = plans.decide_plan(setup, ["views:mine", "views:no-flip", wide], 1)
    plans.store(setup, plan, None)
    for cell in (Cell("views", "mine", 0), Cell("encoder", "two-maps-x2", 0)):
        (out / cell.folder).mkdir(parents=True)
        (out / cell.folder / training.SCORES).write_text("{}")
    monkeypatch.setattr(plans, "MOST_COST", 1)  # the wide one would be too dear now; it has been trained
    joined = plans.decide_plan(setup, "loss:negatives-only", 1)
    assert joined.variants == {"views": ["mine"], "encoder": ["two-maps-x2"], "loss": ["negatives-only"]}
    monkeypatch.delitem(VARIANTS["views"], "mine")
    with pytest.raises(UsageError, match="views:mine, which isn't there now"):
        plans.decide_plan(setup, "loss", 1)


def test_a_study_of_amdim_has_views_that_its_network_takes(toy, tmp_path) -> None:
    from nearfar.tasks.ablate import _setup

    setup = _setup(toy, "amdim", {"encoder": "amdim-small", "device": "cpu"}, 1, None, tmp_path / "x", None, print)[0]
    assert setup.train.size == 32 and setup.shape.size == 32  # of images of 16 pixels
    assert torch.isfinite(Contrast(setup.base)(setup.batch))


def test_minutes_are_turned_into_epochs_once(toy, tmp_path, monkeypatch) -> None:
    asked = {"epochs": None, "minutes": 0.001, "vary": "views:none", "seeds": 1}
    first = small(toy, tmp_path / "study", **asked)
    assert first.epochs >= 1
    monkeypatch.setattr(setups.Setup, "epochs_of", lambda self, minutes: 77)
    assert small(toy, tmp_path / "study", **asked).epochs == first.epochs


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"vary": "colour"}, "no part 'colour'"),
        ({"vary": "views:grey"}, "no variant 'grey'"),
        ({"seeds": 0}, "0 seeds"),
        ({"seed": 3}, "seed is the study's own"),
        ({"hold_out": 0.1}, "hold_out is the study's own"),
        ({"minutes": 5}, "epochs and minutes"),
        ({"base": "simclear"}, "simclr"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_mistakes_are_told_before_work(toy, tmp_path, settings, error) -> None:
    with pytest.raises(UsageError, match=error):
        small(toy, tmp_path / "study", **settings)
    assert not (tmp_path / "study").exists()


def test_data_without_labels_and_folders_with_something_else_are_refused(toy, tmp_path) -> None:
    with np.load(toy) as stored:
        np.save(tmp_path / "bare.npy", stored["images"])
    with pytest.raises(DataError, match="no labels|has none"):
        small(tmp_path / "bare.npy", tmp_path / "study")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds no study"):
        small(toy, tmp_path / "full", vary="views:none")
    assert (tmp_path / "full/letter.txt").exists()


# What is said --------------------------------------------------------------------------------------------------------


def made_up(scores: dict[tuple[str, str], list[float]], *, collapsed: tuple[Cell, ...] = ()) -> Study:
    """A study of numbers."""
    seeds = list(range(len(next(iter(scores.values())))))
    found: dict[Cell, dict[str, object]] = {
        Cell(part, variant, seed): {"scores": {"linear": value, "kNN": value}, "seconds": 1.0, "temperature": None}
        for (part, variant), values in scores.items()
        for seed, value in enumerate(values)
    }
    found |= {cell: {"failed": "collapse", "seconds": 1.0, "temperature": None} for cell in collapsed}
    costs = {f"{part} {variant}": Cost(1, 2, 3) for part, variant in scores}
    rows = rows_of(Plan({}, [], costs, seeds), found)
    study = Study(Path("x"), "amdim", 5, seeds, rows)
    return replace(study, claims=claims(study))


def test_claims_say_what_was_found_and_what_was_not_shown(tmp_path) -> None:
    study = made_up({
        (BASE, BASE): [0.50, 0.52, 0.51],
        ("views", "none"): [0.30, 0.32, 0.311],
        ("views", "no-flip"): [0.49, 0.53, 0.505],
        ("extraction", "last-map"): [0.51, 0.515, 0.52],
    })  # fmt: skip
    text = "\n".join(study.claims)
    assert "H1: " in text and "worse than the base: none" in text
    assert "no evidence of a difference: no-flip (their intervals leave room for up to" in text
    assert "H2, H4: nothing was varied" in text and "not shown" in text
    assert "This study says nothing of it" in text  # H5
    assert "views 20.0, extraction 0.5" in text
    difference = study.of("extraction")[0].against["linear"].difference
    room = 100 * max(abs(difference.low or 0), abs(difference.high or 0))
    assert f"last-map (their intervals leave room for up to {room:.1f} points)" in text
    assert draw(study, tmp_path / "study.svg").read_text().startswith("<?xml")


def test_one_seed_is_no_evidence_in_words() -> None:
    text = "\n".join(made_up({(BASE, BASE): [0.5], ("encoder", "two-maps-x2"): [0.7]}).claims)
    assert "One seed: no interval, so no evidence either way" in text
    assert "With amdim 20.0 points lie between the best and the worst encoder" in text


def test_one_pair_of_seeds_that_is_left_has_no_room_to_tell_of() -> None:
    numbers = {
        (BASE, BASE): [0.50, 0.52, 0.51],
        ("views", "none"): [0.30, 0.32, 0.311],
        ("views", "no-flip"): [0.49, 0.0, 0.0],
    }
    study = made_up(numbers, collapsed=(Cell("views", "no-flip", 1), Cell("views", "no-flip", 2)))
    assert study.of("views")[1].against["linear"].difference.low is None
    found = study.claims[0]
    assert "worse than the base: none; no evidence of a difference: no-flip; not shown" in found
    assert "room" not in found


def test_the_family_of_a_verdict_is_the_part() -> None:
    """A difference that stands alone is judged more strictly beside others of its part, not beside another part."""
    base, found = [0.50, 0.52, 0.51], [0.56, 0.572, 0.575]
    alone = made_up({(BASE, BASE): base, ("views", "a"): found, ("loss", "b"): base})
    beside = made_up({(BASE, BASE): base, ("views", "a"): found, **{("views", f"{n}"): base for n in range(12)}})
    assert alone.of("views")[0].against["linear"].verdict == "better"
    assert beside.of("views")[0].against["linear"].verdict == "no evidence"


def test_the_largest_among_equal_temperatures_is_chosen_and_edges_are_told() -> None:
    found, edge = sweeps.choose([(0.1, 0.5), (0.2, 0.5), (0.5, 0.4)]), sweeps.choose([(0.1, 0.5), (0.2, 0.4)])
    assert found and found.chosen == 0.2 and edge and edge.edge
    assert sweeps.choose([(0.1, None)]) is None
