"""Text networks of the library transformers, as encoders."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeviceError, UsageError
from .text_transformer import one_sentence

_MEND = "a network of text, such as BERT, GPT-2, T5 or CLIP: a name on the hub, or a folder with a config.json"


class HuggingFaceText(nn.Module):
    """A text network of transformers: tokens -> the mean of its last states over the tokens that are not padding.

    Args:
        net: Called with `input_ids` and `attention_mask`, gives `last_hidden_state [B, L, width]`. A pooler of its own
            is taken out: nothing would train it.
        name: What messages call it.

    Raises:
        UsageError: The network does not take texts, or gives something else.
    """

    net: Any  # its networks share an interface, but no class that can be had without the library

    def __init__(self, net: nn.Module, *, name: str) -> None:
        super().__init__()
        if getattr(net, "pooler", None) is not None:
            net.register_module("pooler", None)
        self.net, self.name = net, name
        self.width = self._try()

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

    def _try(self) -> int:
        """Width of the vector of a text of one token; neither state nor torch's generator moves."""
        training = self.net.training
        try:
            with torch.no_grad(), torch.random.fork_rng([]):
                found = self.eval()(torch.ones(1, 1, dtype=torch.int64))[0]
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            told = str(error).splitlines()
            raise UsageError(
                f"{self.name} takes no texts: {told[0] if told else error!r}", where="text", mend=_MEND
            ) from error
        self.train(training)
        return int(found.shape[1])


def hf_text(name: str, *, vocabulary: int, length: int) -> HuggingFaceText:
    """An untrained network of transformers that takes our tokens.

    Args:
        name: Of a configuration on the Hugging Face hub, or a folder with a `config.json`. Of one of images and texts
            (CLIP) the text's part is taken, of one that reads and writes (T5) the part that reads.
        vocabulary: Number of tokens; the configuration's own is replaced, and 0 is padding.
        length: Tokens of the longest text; places are added where the configuration has fewer.

    Raises:
        DeviceError: transformers is missing or broken.
        UsageError: No such configuration, or not one of text.
    """
    try:
        transformers = importlib.import_module("transformers")
    except (ImportError, RuntimeError, OSError) as error:
        what = f"transformers can't be imported: {error}"
        raise DeviceError(what, where="text hf:...", mend='pip install "nearfar[hf]"') from error
    try:
        config = transformers.AutoConfig.from_pretrained(name).get_text_config()  # of image and text: the text's
    except (OSError, ValueError) as error:
        what = f"no configuration {name!r} of text: {str(error).splitlines()[0]}"
        raise UsageError(what, where="text", mend=_MEND) from error
    config.vocab_size, config.pad_token_id = vocabulary, 0
    with contextlib.suppress(AttributeError, NotImplementedError):  # networks without a table of places
        # RoBERTa and its kin leave the first two empty
        config.max_position_embeddings = max(config.max_position_embeddings, length + 2)
    try:
        net = transformers.AutoModel.from_config(config)
    except ValueError as error:
        what = f"no network of the configuration {name!r}: {str(error).splitlines()[0]}"
        raise UsageError(what, where="text", mend=_MEND) from error
    return HuggingFaceText(net.get_encoder() if config.is_encoder_decoder else net, name=f"hf:{name}")
