"""Settings: every problem in one error, names suggested, places named; files that would run code are refused."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Literal

import pytest

from nearfar.errors import IntegrityError, UsageError
from nearfar.settings import TrainSettings, check_signature, parse, read_yaml, unknown, yaml_lines


def method(
    *,
    encoder: str = "small",
    size: int = 32,
    temperature: float | None = 0.1,
    hidden: tuple[int, ...] = (2048,),
    scale: tuple[float, float] = (0.2, 1.0),
    name: str | None = None,
    rule: Literal["mean", "sum"] = "mean",
    flip: bool = True,
    width: int = 128,
) -> None:
    """A method's signature."""


METHODS = {"simclr": method, "moco": method}


def refused(values, **arguments) -> list[str]:
    """The lines of the error."""
    with pytest.raises(UsageError) as caught:
        parse(values, where="here", **arguments)
    assert "pydantic" not in str(caught.value)
    return caught.value.what.splitlines()


def test_defaults_are_sound_and_frozen():
    settings = parse({}, where="here")
    assert (settings.method, settings.encoder, settings.epochs, settings.batch) == ("simclr", "resnet18", 100, 256)
    with pytest.raises(ValueError):
        settings.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert all(field.description for field in TrainSettings.model_fields.values())


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.12), ("lars", 0.3), ("adamw", 0.001)])
def test_learning_rate_follows_the_optimizer_unless_given(optimizer, lr):
    assert parse({"optimizer": optimizer}, where="here").lr == lr
    assert parse({"optimizer": optimizer, "lr": 0.7}, where="here").lr == 0.7


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.1), ("20", 2.0), (100, 10.0), (1000, 10.0)])
def test_warmup_follows_the_epochs_unless_given(epochs, warmup):
    assert parse({"epochs": epochs}, where="here").warmup_epochs == warmup
    assert parse({"epochs": epochs, "warmup_epochs": 0.5}, where="here").warmup_epochs == 0.5


def test_text_of_the_command_line_is_converted():
    given = {"epochs": "20", "lr": "1e-3", "labels": "no", "chunk": "none", "hold-out": "0.1", "threads": "4"}
    settings = parse(given, where="here")
    assert (settings.epochs, settings.lr, settings.labels, settings.chunk) == (20, 0.001, False, None)
    assert (settings.hold_out, settings.threads) == (0.1, 4)


def test_stored_settings_give_the_same_settings_again():
    settings = parse({"epochs": 7, "optimizer": "adamw", "method_settings": {"temperature": 0.2}}, where="here")
    assert parse(settings.model_dump(mode="json"), where="here") == settings


@pytest.mark.parametrize(("key", "meant"), [("epoch", "epochs"), ("Batch", "batch"), ("optimiser", "optimizer")])
def test_C1_misspelt_key_did_you_mean(key, meant):
    assert refused({key: 5}) == [f"{key}: unknown; did you mean {meant}?"]


def test_C1_unlike_key_gets_no_suggestion():
    assert refused({"zzzzzz": 5}) == ["zzzzzz: unknown"]


def test_C1_misspelt_key_in_a_file_names_file_and_line(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("# a run\nbatch: 64\n\nepocs: 5\nmethod_settings:\n  temprature: 0.2\n  width: x\n")
    with pytest.raises(UsageError) as caught:
        parse(read_yaml(path), where=yaml_lines(path), methods=METHODS)
    assert caught.value.exit_code == 2
    assert caught.value.what.splitlines() == [
        "3 settings are wrong:",
        f"  epocs: unknown; did you mean epochs? ({path}:4)",
        f"  temprature: unknown; did you mean temperature? (method simclr) ({path}:6)",
        f"  width: must be a whole number, not 'x' (method simclr) ({path}:7)",
    ]


WRONG = {
    "epochs": (0, "must be greater than or equal to 1, not 0"),
    "batch": ("many", "must be a whole number, not 'many'"),
    "size": (33.5, "must be a whole number or none, not 33.5"),
    "optimizer": ("adam", "must be 'sgd' or 'adamw' or 'lars', not 'adam'"),
    "lr": (True, "must be a number, not True"),
    "weight_decay": ("nan", "must be a finite number, not 'nan'"),
    "momentum": (1, "must be less than 1, not 1"),
    "device": ("gpu", "must be auto, cpu, cuda, cuda:1, mps or xpu, not 'gpu'"),
    "hold_out": (0.5, "must be less than 0.5, not 0.5"),
    "labels": ("perhaps", "must be true or false or none, not 'perhaps'"),
    "method": ("", "must be a name, not ''"),
    "method_settings": (3, "must be name: value pairs, not 3"),
}


def test_C1_a_setting_of_another_method_is_told_as_one():
    def other(*, columns: tuple[str, ...] = ()) -> None:
        """A method that looks at several pictures of a sample."""

    with pytest.raises(UsageError, match="columns: unknown to this method; other has it"):
        parse({"method": "simclr", "columns": "image,image2"}, methods={**METHODS, "other": other}, where="here")


@pytest.mark.parametrize("key", WRONG)
def test_C2_each_problem_is_named_with_what_was_expected(key):
    value, text = WRONG[key]
    assert refused({key: value}) == [f"{key}: {text}"]


def test_C2_all_problems_at_once_a_line_each():
    lines = refused({key: value for key, (value, _) in WRONG.items()} | {"batsh": 1})
    assert lines[0] == f"{len(WRONG) + 1} settings are wrong:"
    assert {line.strip() for line in lines[1:]} == {
        *(f"{key}: {text}" for key, (_, text) in WRONG.items()),
        "batsh: unknown; did you mean batch?",
    }


def test_C2_contradictory_pairs_beside_other_problems():
    lines = refused({"milestones": "3,9", "warmup_epochs": 9, "epochs": 5, "seed": -1})
    assert [line.strip() for line in lines[1:]] == [
        "warmup_epochs: must not be more than epochs (5), not 9",
        "milestones: must rise, and lie between 0 and epochs, not '3,9'",
        "seed: must be greater than or equal to 0, not -1",
    ]


def test_C3_unknown_method_names_the_nearest():
    assert refused({"method": "simcrl"}, methods=METHODS) == [
        "method: there is no 'simcrl'; did you mean simclr?; there are simclr, moco"
    ]
    error = unknown("method", "mocco", METHODS, where="methods")
    assert (error.exit_code, error.what) == (2, "there is no method 'mocco'; did you mean moco?")


def test_keyword_arguments_of_the_method_may_stand_among_the_settings():
    given = {"temperature": "0.2", "epochs": 3, "method-settings": {"hidden": "512,64"}, "width": 64}
    settings = parse(given, where="here", methods=METHODS)
    assert settings.method_settings == {"hidden": (512, 64), "temperature": 0.2, "width": 64}


def test_fields_of_the_views_may_stand_among_the_settings():
    settings = parse({"view-scale": "0.2,1", "view": {"flip": 0.0}, "epochs": 3}, where="here", methods=METHODS)
    assert settings.view == {"flip": 0.0, "scale": "0.2,1"}
    assert refused({"view": 3, "view_scale": 1}) == [
        "2 settings are wrong:",
        "  view: must be name: value pairs, not 3",
        "  view_scale: unknown",
    ]


def test_what_the_trainer_fills_in_is_no_setting_of_the_method():
    assert refused({"method_settings": {"size": 3}}, methods=METHODS) == [
        "size: is a setting of the training, not of the method (method simclr)"
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "0.5", 0.5),
        ("temperature", 1, 1.0),
        ("temperature", "none", None),
        ("hidden", "2048,128", (2048, 128)),
        ("hidden", "2048", (2048,)),
        ("hidden", "", ()),
        ("hidden", "(64, 32)", (64, 32)),
        ("hidden", [64, 32], (64, 32)),
        ("scale", "0.1, 0.9", (0.1, 0.9)),
        ("name", "resnet", "resnet"),
        ("name", None, None),
        ("rule", "sum", "sum"),
        ("flip", "off", False),
        ("width", "12", 12),
    ],
)
def test_signature_converts(name, value, expected):
    converted = check_signature(method, {name: value}, where="method")
    assert converted == {name: expected}
    assert type(converted[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("temperature", "warm", "must be a number or none, not 'warm'"),
        ("temperature", True, "must be a number or none, not True"),
        ("hidden", "a,b", "must be a list, each a whole number, not 'a,b'"),
        ("scale", "0.1", "must be a list of 2: a number, a number, not '0.1'"),
        ("name", 5, "must be text or none, not 5"),
        ("rule", "max", "must be 'mean' or 'sum', not 'max'"),
        ("flip", "maybe", "must be true or false, not 'maybe'"),
        ("width", 1.5, "must be a whole number, not 1.5"),
        ("widht", 3, "unknown; did you mean width?"),
    ],
)
def test_C2_signature_says_what_it_expected(name, value, text):
    with pytest.raises(UsageError) as caught:
        check_signature(method, {name: value}, where="method")
    assert caught.value.what == f"{name}: {text}"


def test_C2_signature_lists_all_problems_and_what_is_missing():
    def needy(*, width: int, depth: int, rate: float = 0.1) -> None: ...

    with pytest.raises(UsageError) as caught:
        check_signature(needy, {"width": "x", "rat": 1}, where="method")
    assert [line.strip() for line in caught.value.what.splitlines()[1:]] == [
        "width: must be a whole number, not 'x'",
        "rat: unknown; did you mean rate?",
        "depth: is needed, a whole number",
    ]


def test_yaml_gives_plain_values(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("\ufeffepochs: 5\nlr: 1e-3\nlabels: no\nmethod_settings: {hidden: [64, 32]}\n", encoding="utf-8")
    values = read_yaml(path)
    assert values == {"epochs": 5, "lr": "1e-3", "labels": False, "method_settings": {"hidden": [64, 32]}}
    assert parse(values, where=str(path)).lr == 0.001
    path.write_text("# nothing\n")
    assert read_yaml(path) == {} == yaml_lines(path)


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("epochs: 5\nlr: [1, 2\n", "not YAML", 3),
        ("epochs: 5\nepochs: 6\n", "epochs is there twice, first in line 1", 2),
        ("- epochs\n", "no settings", 1),
        ("epochs: 5\n7: 8\n", "a name must be text", 2),
        ("a: &x 1\nb: *x\n", "anchors and aliases", 1),
        ("a: 1\nb: *x\n", "anchors and aliases", 2),
    ],
)
def test_C1_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, text, what, line):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=what) as caught:
        read_yaml(path)
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a: \xff\xfe\xff", "UTF-8"),
        (b"a: \x00", "UTF-8"),
        (b"a: " + b"[" * 50_000, "nested too deep"),
        (b"- " * 40_000, "nested too deep"),
        (b"a: 1\n" * 100_000, "too large"),
    ],
)
def test_C4_files_that_are_no_settings_are_refused_at_once(tmp_path, content, what):
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(UsageError, match=what):
        read_yaml(path)
    assert time.perf_counter() - start < 2


def test_C4_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!other"])
def test_C4_python_objects_are_refused_and_never_made(tmp_path, tag):
    canary = tmp_path / "canary"
    path = tmp_path / "s.yaml"
    path.write_text(f"epochs: {tag} ['touch {canary}']\n")
    with pytest.raises(IntegrityError) as caught:
        read_yaml(path)
    assert caught.value.exit_code == 6
    assert caught.value.where == f"{path}:1"
    assert not canary.exists()


def test_C4_a_billion_laughs_are_refused_at_once(tmp_path):
    path = tmp_path / "s.yaml"
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    path.write_text("\n".join(["l0: &l0 [ha]", *levels]))
    start = time.perf_counter()
    with pytest.raises(UsageError, match="anchors"):
        read_yaml(path)
    assert time.perf_counter() - start < 1


def test_settings_need_no_torch():
    command = "import nearfar.settings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
