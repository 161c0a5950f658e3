"""Encoders of text: padding tells nothing, later tokens tell earlier ones nothing, and names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.encoders import hf_text as hf
from nearfar.encoders.hf_text import HuggingFaceText, hf_text
from nearfar.encoders.text_transformer import TextTransformer, build_text
from nearfar.errors import DeviceError, UsageError


def net(**settings: int) -> TextTransformer:
    sizes = {"vocabulary": 20, "length": 12, "width": 16, "layers": 2, "heads": 4}
    return TextTransformer(**{**sizes, **settings}).double().eval()


def text(*tokens: int, length: int = 12) -> Tensor:
    return torch.tensor([[*tokens, *[0] * (length - len(tokens))]])


def test_padding_changes_nothing() -> None:
    encode = net()
    rows = torch.cat([text(3, 4, 5), text(3, 4, 5, 6, 7, 8, 9)])
    together = encode(rows)[-1]
    torch.testing.assert_close(encode(text(3, 4, 5, length=3))[-1][0], together[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(encode(rows[:1])[-1][0], together[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(encode(rows[:, None])[-1], together, rtol=0, atol=0)


def test_no_gradient_comes_from_padding() -> None:
    encode = net()
    encode(text(3, 4, 5))[-1][0, 0].backward()
    assert encode.positions.grad is not None and encode.tokens.weight.grad is not None
    assert encode.positions.grad[:3].abs().sum(1).gt(0).all() and encode.positions.grad[3:].eq(0).all()
    assert encode.tokens.weight.grad[0].eq(0).all()


def test_a_place_sees_what_is_before_it_alone() -> None:
    """The states of a text's beginning are those of the beginning by itself."""
    encode = net()
    longer = encode.blocks(encode.tokens(text(3, 4, 5, 6)) + encode.positions)
    shorter = encode.blocks(encode.tokens(text(3, 4)) + encode.positions)
    torch.testing.assert_close(longer[:, :2], shorter[:, :2], rtol=1e-12, atol=1e-13)
    assert (longer[:, 2] - shorter[:, 2]).abs().max() > 1e-3


def test_order_and_every_token_count() -> None:
    encode = net()
    found = encode(torch.cat([text(3, 4, 5), text(4, 3, 5), text(3, 4, 6), text(7, 4, 5)]))[-1]
    apart = torch.cdist(found, found) + torch.eye(4)
    assert apart.min() > 1e-3


def test_the_transformer_is_its_formula() -> None:
    """Nested loops over texts, places and heads."""
    encode = net(layers=1)
    tokens = torch.cat([text(3, 4, 5), text(9, 8)])
    for row, length in zip(tokens, (3, 2), strict=True):
        x = encode.tokens.weight[row[:length]] + encode.positions[:length]
        block = encode.blocks[0]
        q, k, v = F.linear(block.norm_attention(x), block.query_key_value.weight, block.query_key_value.bias).chunk(
            3, 1
        )
        mixed = torch.zeros_like(x)
        for place in range(length):
            for head in range(4):
                part = slice(4 * head, 4 * head + 4)
                weights = torch.softmax(k[: place + 1, part] @ q[place, part] / math.sqrt(4), 0)
                mixed[place, part] = weights @ v[: place + 1, part]
        x = x + block.mix(mixed)
        x = x + block.narrow(F.gelu(block.widen(block.norm_mlp(x))))
        found = encode(row[None])[-1][0]
        torch.testing.assert_close(found, encode.norm(x[-1]), rtol=1e-10, atol=1e-12)


def test_a_text_without_tokens_has_a_finite_feature() -> None:
    assert net()(text())[-1].isfinite().all()


@pytest.mark.parametrize("wrong", [torch.ones(2, 13), torch.ones(2, 3, 4), torch.ones(5)])
def test_texts_that_do_not_fit_are_refused(wrong: Tensor) -> None:
    with pytest.raises(UsageError):
        net()(wrong.long())


@pytest.mark.parametrize("change", [{"heads": 3}, {"layers": 0}, {"vocabulary": 1}])
def test_sizes_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="heads"):
        net(**change)


def test_clips_transformer_has_the_papers_sizes() -> None:
    with torch.device("meta"):
        found = build_text("clip", vocabulary=49408, length=77)
    assert isinstance(found, TextTransformer)
    assert (found.width, len(found.blocks), found.blocks[0].heads) == (512, 12, 8)
    # 49408 x 512 tokens, 77 x 512 places, 12 blocks of 12 w^2 + 13 w, the last norm
    assert sum(p.numel() for p in found.parameters()) == 49408 * 512 + 77 * 512 + 12 * (12 * 512**2 + 13 * 512) + 1024


def test_an_unknown_name_is_refused_with_the_likely_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'small'"):
        build_text("smal", vocabulary=9, length=9)
    with pytest.raises(UsageError, match="width"):
        build_text(nn.Identity(), vocabulary=9, length=9)


class FakeModel(nn.Module):
    """As much of a network of transformers as is used."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        self.mask = attention_mask
        return SimpleNamespace(last_hidden_state=self.embed(input_ids))


class FakeConfig(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(vocab_size=30522, hidden_size=6, pad_token_id=1, max_position_embeddings=40)
        self.is_encoder_decoder = False

    def get_text_config(self) -> FakeConfig:
        return self

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


def fake_library(known: str) -> SimpleNamespace:
    def from_pretrained(name: str) -> FakeConfig:
        if name != known:
            raise OSError(f"{name} is not a local folder\nand more")
        return FakeConfig()

    return SimpleNamespace(
        AutoConfig=SimpleNamespace(from_pretrained=from_pretrained), AutoModel=SimpleNamespace(from_config=FakeModel)
    )


def test_a_network_of_transformers_takes_our_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.importlib, "import_module", lambda name: fake_library("tiny"))
    found = build_text("hf:tiny", vocabulary=20, length=64)
    assert isinstance(found, HuggingFaceText)
    assert found.width == 6 and found.net.config.pad_token_id == 0 and found.net.config.max_position_embeddings == 66
    assert found.net.embed.num_embeddings == 20 and found.net.pooler is None
    feature = found(text(3, 4, 4)[None])[-1]
    expected = (found.net.embed.weight[3] + 2 * found.net.embed.weight[4]) / 3
    torch.testing.assert_close(feature[0], expected)
    assert found.net.mask.tolist() == [[1, 1, 1] + [0] * 9] and "hf:tiny: width 6" in found.describe()
    with pytest.raises(UsageError, match="no configuration 'other'"):
        hf_text("other", vocabulary=20, length=64)


TINY = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
REAL = {
    "bert": TINY,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "clip": {"text_config": TINY, "vision_config": TINY},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
}


def configuration(folder: Path, kind: str, settings: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **settings}))
    return str(folder)


@pytest.mark.parametrize("kind", REAL)
def test_real_networks_of_transformers_see_no_padding(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    net = hf_text(configuration(tmp_path, kind, REAL[kind]), vocabulary=20, length=12)
    assert net.training and net.width == 16
    tokens = torch.cat([text(3, 4, 4), text(*range(1, 13))])
    found = net.eval()(tokens)[-1]
    torch.testing.assert_close(found[:1], net(tokens[:1, :3])[-1], atol=1e-5, rtol=0)
    assert found.shape == (2, 16) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_real_networks_of_transformers_get_as_many_places_as_a_text_has_tokens(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    few = {"gpt2": {"n_positions": 8}, "bert": {"max_position_embeddings": 8}}[kind]
    net = hf_text(configuration(tmp_path, kind, {**REAL[kind], **few}), vocabulary=20, length=12)
    assert net(text(*range(1, 13)))[-1].shape == (1, 16)


def test_a_network_of_images_is_refused_as_one_of_text(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"takes no texts.*a network of text"):
        hf_text(configuration(tmp_path, "vit", TINY), vocabulary=20, length=12)


def test_I1_transformers_that_are_not_there_are_asked_for_by_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(hf.importlib, "import_module", missing)
    with pytest.raises(DeviceError, match=r"nearfar\[hf\]"):
        hf_text("tiny", vocabulary=20, length=64)
