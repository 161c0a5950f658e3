"""Settings of a training: their names, ranges and meaning, and one error that lists everything wrong with them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .settings_file import read_yaml, yaml_lines
from .signatures import RESERVED, check, check_signature, given, nearest, spoken, unknown, usage_error

__all__ = ["TrainSettings", "check_signature", "parse", "read_yaml", "unknown", "yaml_lines"]

_LR = {"sgd": 0.12, "lars": 0.3, "adamw": 0.001}


class TrainSettings(BaseModel):
    """Everything that `train` can be told. Numbers may also be given as text, as on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str = Field(
        "simclr", min_length=1, description="what is learned; see `nearfar methods`; or a file of your own, `mine.py`"
    )
    encoder: str = Field("resnet18", min_length=1, description="network; `timm:NAME` for one of timm's")
    size: int | None = Field(
        None,
        ge=2,
        description="side of a view in pixels, none: 224, or the images' own where they have at most 64; of sound the "
        "samples of a window, of text the tokens of a sentence, of sequences the steps of a window",
    )
    rate: int | None = Field(None, ge=1000, description="samples of sound a second; none: as most of the data has it")
    tokenizer: str | None = Field(
        None, min_length=1, description="of text: words:N or bpe:N, learned from the data; a JSON file; none: bytes"
    )
    label: str | None = Field(
        None, description="column of a manifest or of Parquet that holds the labels, such as fine_label; none: label"
    )
    split: str | None = Field(
        None, description="few-shot split, by name or JSON file: only its training classes are trained on"
    )
    init: str | None = Field(None, description="finished run whose encoder training begins with; none: new weights")
    teacher: str | None = Field(None, description="finished run whose answers are learned, for methods with a teacher")
    epochs: int = Field(100, ge=1, description="passes over the data")
    batch: int = Field(
        256, ge=2, description="images in a step, over all processes; of an episodic method its episodes say how many"
    )
    chunk: int | None = Field(
        None, ge=1, description="images in the encoder at once, for less memory with the same negatives; none: all"
    )
    optimizer: Literal["sgd", "adamw", "lars"] = Field("sgd", description="sgd, adamw, or lars for batches over 1000")
    lr: float = Field(
        0.12, gt=0, description="peak learning rate for a batch of 256, scaled with it; lars: 0.3, adamw: 0.001"
    )
    weight_decay: float = Field(5e-4, ge=0, description="pulls weights to zero")
    final_decay: float | None = Field(
        None, ge=0, description="weight decay at the end, to which it goes as half a cosine; none: as in the beginning"
    )
    clip: float | None = Field(None, gt=0, description="largest norm of each parameter's gradient; none: any")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and lars")
    warmup_epochs: float = Field(
        10.0, ge=0, description="epochs in which the learning rate rises from 0; at most a tenth of all where not given"
    )
    milestones: tuple[float, ...] = Field(
        (), description="epochs after which the learning rate is a tenth of what it was; none: half a cosine"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="addresses everything random")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the device is made for it")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|xpu|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, mps or xpu"
    )
    compile: bool = Field(
        False, description="true: torch.compile the networks, for GPUs; on a CPU it takes minutes and gains nothing"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none: all cores")
    labels: bool | None = Field(None, description="read labels; none: where the data has them")
    hold_out: float = Field(
        0.05, ge=0, lt=0.5, description="share of the images that is not trained on but watched, by nearest neighbours"
    )
    label_share: float | None = Field(
        None, gt=0, le=1, description="share of the labelled images of each class that is trained on; none: all"
    )
    monitor_every: int = Field(50, ge=1, description="steps between measurements")
    checkpoint_minutes: float = Field(5.0, gt=0, description="minutes between checkpoints")
    max_bad: int | None = Field(None, ge=0, description="unreadable files to put up with; none: up to 100 or 1 %")
    view: dict[str, Any] = Field(
        default_factory=dict,
        description="changes to every view of the method, as in `--view-flip 0 --view-scale 0.3,1`",
    )
    method_settings: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the method")

    @model_validator(mode="before")
    @classmethod
    def _derived_defaults(cls, values: Any) -> Any:
        """Learning rate by optimiser, warm-up by epochs; the stored settings then hold the numbers that were used."""
        if not isinstance(values, Mapping):
            return values
        derived = {"lr": _LR.get(str(values.get("optimizer")), _LR["sgd"])}
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # wrong epochs have a line of their own
            derived["warmup_epochs"] = min(10.0, float(values.get("epochs", 100)) / 10)
        return {**derived, **values}

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: Any) -> Any:
        return given(value, cls.model_fields[info.field_name].annotation)

    @field_validator("warmup_epochs")
    @classmethod
    def _not_more_than_all(cls, value: float, info: Any) -> float:
        if value > info.data.get("epochs", value):
            raise ValueError(f"must not be more than epochs ({info.data['epochs']})")
        return value

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, value: tuple[float, ...], info: Any) -> tuple[float, ...]:
        if any(not 0 < one < info.data.get("epochs", one + 1) for one in value) or list(value) != sorted(set(value)):
            raise ValueError("must rise, and lie between 0 and epochs")
        return value


def parse(
    values: Mapping[str, Any],
    *,
    where: str | Mapping[str, str],
    methods: Mapping[str, Callable[..., object]] | None = None,
) -> TrainSettings:
    """Settings, checked all at once.

    Args:
        values: Name -> value, or text as on the command line. Names may have `-` for `_`; `view_NAME` is put into
            `view`, which is checked where views are made.
        where: What they come from; or the place of each, as `yaml_lines` gives it.
        methods: Name -> function. With it keyword arguments of the method may stand among the values, and those and
            the method's name are checked too.

    Raises:
        UsageError: One line for each problem.

    Example:
        >>> parse({"epochs": "20", "batch": 512}, where="command line").epochs
        20
    """
    values = _with_views({str(name).replace("-", "_"): value for name, value in values.items()})
    problems: list[tuple[str, str]] = []
    if methods is not None:
        values, problems = _with_method(values, methods)
    settings = None
    try:
        settings = TrainSettings.model_validate(values)
    except ValidationError as error:
        names = [*TrainSettings.model_fields, *_taken(values, methods)]
        found = [(key, text + _whose(key, methods) * (text == "unknown")) for key, text in _problems(error, names)]
        problems = [*found, *problems]
    if settings is None or problems:
        raise usage_error(problems, where)
    return settings


def _whose(key: str, methods: Mapping[str, Callable[..., object]] | None) -> str:
    """Which methods have such a setting, in words."""
    some = [name for name, build in (methods or {}).items() if key in inspect.signature(build).parameters]
    return f" to this method; {' and '.join(some[:3])} {'has' if len(some) == 1 else 'have'} it" if some else ""


def _taken(values: Mapping[str, Any], methods: Mapping[str, Callable[..., object]] | None) -> list[str]:
    """Keyword arguments that the chosen method leaves to the user."""
    method = values.get("method", TrainSettings.model_fields["method"].default)
    if methods is None or not isinstance(method, str) or method not in methods:
        return []
    return [name for name in inspect.signature(methods[method]).parameters if name not in RESERVED]


def _with_views(values: dict[str, Any]) -> dict[str, Any]:
    """Values with every `view_NAME` moved into `view`."""
    fields = {name.removeprefix("view_"): value for name, value in values.items() if name.startswith("view_")}
    own = values.get("view", {})
    if not fields or not isinstance(own, Mapping):
        return values
    rest = {name: value for name, value in values.items() if not name.startswith("view_")}
    return {**rest, "view": {**own, **fields}}


def _with_method(
    values: dict[str, Any], methods: Mapping[str, Callable[..., object]]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Values with the method's own moved into `method_settings` and converted, and what is wrong with those."""
    method = values.get("method", TrainSettings.model_fields["method"].default)
    if isinstance(method, str) and method not in methods:
        return values, [("method", f"there is no {method!r}{nearest(method, methods)}; there are {', '.join(methods)}")]
    own = values.get("method_settings", {})
    if not isinstance(method, str) or not isinstance(own, Mapping):
        return values, []
    taken = [name for name in _taken(values, methods) if name not in TrainSettings.model_fields]
    own = {**own, **{name: value for name, value in values.items() if name in taken}}
    rest = {name: value for name, value in values.items() if name not in taken}
    converted, problems = check(methods[method], own, RESERVED, TrainSettings.model_fields)
    return {**rest, "method_settings": converted}, [(name, f"{text} (method {method})") for name, text in problems]


_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


def _problems(error: ValidationError, names: Iterable[str]) -> list[tuple[str, str]]:
    """Key and sentence of each thing that pydantic found, in our words."""
    found = []
    for one in error.errors(include_url=False, include_context=False):
        key, value = str(one["loc"][0]), one["input"]
        if one["type"] == "extra_forbidden":
            text = f"unknown{nearest(key, names)}"
        elif one["type"] == "value_error":
            text = f"{one['msg'].removeprefix('Value error, ')}, not {value!r}"
        elif one["type"] in _RANGES:
            text = f"{one['msg'].replace('Input should', 'must')}, not {value!r}"
        else:
            field = TrainSettings.model_fields[key]
            words = {"string_pattern_mismatch": field.description, "string_too_short": "a name"}.get(one["type"])
            words = words or spoken(field.annotation)
            text = f"must be {words}, not {value!r}"
        found.append((key, text))
    return found
