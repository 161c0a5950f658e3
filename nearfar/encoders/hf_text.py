"""Text networks of the library transformers, as encoders."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from ..errors import DeviceError, UsageError
from .text_transformer import one_sentence


class HuggingFaceText(nn.Module):
    """A text network of transformers: tokens -> the mean of its last states over the tokens that are not padding.

    Args:
        net: Called with `input_ids` and `attention_mask`, gives `last_hidden_state [B, L, width]`, the width as its
            `config.hidden_size`. A pooler of its own is taken out: nothing would train it.
        name: What messages call it.
    """

    net: Any  # its networks share an interface, but no class that can be had without the library

    def __init__(self, net: nn.Module, *, name: str) -> None:
        super().__init__()
        if getattr(net, "pooler", None) is not None:
            net.register_module("pooler", None)
        self.net, self.name = net, name
        self.width = int(self.net.config.hidden_size)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Tokens int64 `[B, L]` or `[B, 1, L]` -> `[feature [B, width]]`."""
        tokens = one_sentence(tokens)
        valid = tokens != 0
        states = self.net(input_ids=tokens, attention_mask=valid.long()).last_hidden_state
        weight = valid.unsqueeze(-1).to(states.dtype)
        return [(states * weight).sum(1) / weight.sum(1).clamp(min=1)]

    def describe(self) -> str:
        """One line for people: name, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: width {self.width}, {millions:.1f} M parameters"


def hf_text(name: str, *, vocabulary: int, length: int) -> HuggingFaceText:
    """An untrained network of transformers that takes our tokens.

    Args:
        name: Of a configuration on the Hugging Face hub, or a folder with a `config.json`.
        vocabulary: Number of tokens; the configuration's own is replaced, and 0 is padding.
        length: Tokens of the longest text; places are added where the configuration has fewer.

    Raises:
        DeviceError: transformers is missing or broken.
        UsageError: No such configuration.
    """
    try:
        transformers = importlib.import_module("transformers")
    except (ImportError, RuntimeError, OSError) as error:
        what = f"transformers can't be imported: {error}"
        raise DeviceError(what, where="text hf:...", mend='pip install "nearfar[hf]"') from error
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        what = f"no configuration {name!r}: {str(error).splitlines()[0]}"
        raise UsageError(what, where="text", mend="a name on the hub, or a folder with a config.json") from error
    config.vocab_size, config.pad_token_id = vocabulary, 0
    places = getattr(config, "max_position_embeddings", None)
    if places is not None:
        config.max_position_embeddings = max(places, length + 2)  # RoBERTa and its kin leave the first two empty
    return HuggingFaceText(transformers.AutoModel.from_config(config), name=f"hf:{name}")
