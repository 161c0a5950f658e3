"""Text: tokens, files, runs of sentences, the net of a sentence, and CPC over them."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from toy import knn_accuracy
from toy_text import SENTENCES, toy_text

from nearfar import encoders, optim
from nearfar.data import Dataset
from nearfar.data.text import cut, load_text
from nearfar.data.text_files import read_pieces
from nearfar.data.tokens import Tokenizer, build_tokenizer
from nearfar.device import choose
from nearfar.encoders.sentence import SENTENCE_ENCODERS, SentenceCells, sentence_encoder
from nearfar.engine import Loop
from nearfar.errors import DataError, DeviceError, UsageError
from nearfar.extract.predict import Predict, check_enough
from nearfar.method import Batch, Contrast, Method
from nearfar.methods.cpc_text import cpc_text
from nearfar.plan import Plan
from nearfar.tasks import summary
from nearfar.views.text import Sentences, sentences

STORY = ["The dog ran home.", "It was late, and the dog was tired.", "Nobody saw the dog's home.", "Größe: 3 m²."]
ODD = ["", "  ", "\0", "a\0b", "\ud800 x", "\udce9t\udce9", "\ufffd", "y" * 1_000_000, "日本語", "\n"]
SPECS = ["bytes", "words:9", "bpe:280"]


def need(spec: str) -> None:
    if spec != "bytes":
        pytest.importorskip("tokenizers")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The same rows in the format that the name asks for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        fields = [",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *fields]) + "\n", encoding="utf-8")
    return path


# ---- tokens


@pytest.mark.parametrize("spec", SPECS)
def test_a_tokenizer_comes_back_from_json_and_from_the_same_texts(spec: str) -> None:
    need(spec)
    made = build_tokenizer(spec, STORY * 3)
    stored = Tokenizer.from_dict(json.loads(json.dumps(made.to_dict())))
    assert stored == made == build_tokenizer(spec, STORY * 3) and made.name == spec.split(":")[0]
    np.testing.assert_array_equal(stored(STORY, length=20)[0], made(STORY, length=20)[0])


@pytest.mark.parametrize("spec", SPECS)
def test_D21_odd_texts_have_tokens_of_the_vocabulary(spec: str) -> None:
    need(spec)
    made = build_tokenizer(spec, STORY + ODD)
    tokens, lengths = made(ODD, length=16)
    assert tokens.dtype == lengths.dtype == np.int64 and tokens.shape == (len(ODD), 16)
    assert lengths.min() >= 1 and lengths.max() <= 16
    np.testing.assert_array_equal((tokens > 0).sum(1), lengths)
    np.testing.assert_array_equal(tokens > 0, np.arange(16) < lengths[:, None])
    assert tokens.max() < made.vocabulary and lengths[0] == 1


def test_a_byte_is_a_token() -> None:
    tokens, lengths = Tokenizer()([*STORY, ""], length=18)
    for text, row, length in zip([*STORY, " "], tokens, lengths, strict=True):
        slow = [byte + 1 for byte in text.encode()][:18]
        assert row.tolist() == slow + [0] * (18 - len(slow)) and length == len(slow)


def test_words_are_the_most_frequent_ones() -> None:
    pytest.importorskip("tokenizers")
    made = build_tokenizer("words:4", STORY)
    counts = Counter(word for text in STORY for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:4]
    assert made.vocabulary == 6  # padding, unknown
    found = json.loads(made.model)["model"]["vocab"]
    assert {found[word] for word in frequent} == {1, 2, 3, 4}
    tokens, _ = made(["THE Dog, unheard"], length=6)
    assert tokens[0].tolist() == [found["the"] + 1, found["dog"] + 1, found.get(",", 0) + 1, 1, 0, 0]


def test_pieces_hold_all_of_a_text() -> None:
    pytest.importorskip("tokenizers")
    made = build_tokenizer("bpe:300", STORY)
    tokens, lengths = made(["größe 漢 ~~ home"], length=40)
    assert made._model.decode((tokens[0, : lengths[0]] - 1).tolist()).split() == ["größe", "漢", "~~", "home"]
    assert lengths[0] < len("größe 漢 ~~ home".encode())


def test_a_file_of_hugging_face_is_taken_without_its_markers_cuts_and_padding(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    model = library.Tokenizer.from_str(build_tokenizer("words:9", STORY).model)
    model.add_special_tokens(["[CLS]"])
    model.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", model.token_to_id("[CLS]"))]
    )
    model.enable_truncation(2)
    model.enable_padding(length=7)
    model.save(str(tmp_path / "mine.json"))
    made = build_tokenizer(str(tmp_path / "mine.json"))
    assert made.name == "mine.json" and made.vocabulary == 12
    expected = build_tokenizer("words:9", STORY)(STORY, length=8)
    np.testing.assert_array_equal(made(STORY, length=8)[0], expected[0])


def test_I1_words_without_the_package_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DeviceError, match=r"nearfar\[hf\]"):
        build_tokenizer("words:100", STORY)


@pytest.mark.parametrize("spec", ["letters", "words", "words:0", "words:-3", "bpe:many", "missing.json"])
def test_an_unknown_tokenizer_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="words:20000"):
        build_tokenizer(spec, STORY)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    for content in (b"{}", b"\xff\xfe", b"not json"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UsageError, match="no tokenizer in this file"):
            build_tokenizer(str(tmp_path / "bad.json"))


def test_wrong_calls_of_a_tokenizer_are_refused() -> None:
    for texts, length in (("one text", 4), (["one"], 0)):
        with pytest.raises(UsageError):
            Tokenizer()(texts, length=length)
    with pytest.raises(UsageError, match="settings"):
        Tokenizer.from_dict({"name": "bytes"})


# ---- files


def test_prose_is_cut_at_the_ends_of_sentences() -> None:
    assert cut('He met J. S. Bach, 3.5 m away! (Why?) "No." Then "so.') == [
        "He met J. S. Bach, 3.5 m away!",
        "(Why?)",
        '"No."',
        'Then "so.',
    ]
    assert cut("the end. of e.g. this") == ["the end. of e.g. this"]
    assert cut("今日は。元気？ はい") == ["今日は。", "元気？", "はい"]
    assert cut(" \n\t ") == []


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_all_tables_say_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"text": 'He said: "No, no."\nTwice.', "label": "10", "label_name": "spoken", "split": "train"},
        {"text": "", "label": "9", "label_name": "empty", "split": "train"},
        {"text": "é\tü", "label": "10", "label_name": "spoken", "split": "test"},
    ]
    path = write(tmp_path / f"table{suffix}", rows)
    data = load_text(path, length=30)
    expected = Tokenizer()([row["text"] for row in rows], length=30)
    np.testing.assert_array_equal(data.inputs, expected[0][:, None])
    np.testing.assert_array_equal(data.sizes, expected[1][:, None])
    assert data.labels.tolist() == [1, 0, 1] and data.classes == ["empty", "spoken"] and data.kind == "text"
    assert data.names == [f"table{suffix}:{number}" for number in (1, 2, 3)]
    assert len({value.tobytes() for value in data.hashes}) == 3
    part = load_text(f"{path}:test", length=30)
    assert part.names == [f"table{suffix}:3"]
    assert load_text(path, labels=False).classes is None
    with pytest.raises(DataError, match="split 'other'"):
        load_text(f"{path}:other")


def slow_runs(documents: list[list[str]], sentences: int) -> list[list[str]]:
    runs = []
    for document in documents:
        for start in range(0, len(document), sentences):
            runs.append(document[start : start + sentences])
    return runs


@pytest.mark.parametrize("sentences", [2, 3, 5])
def test_runs_of_sentences_never_cross_a_document(tmp_path: Path, sentences: int) -> None:
    rng = np.random.default_rng(0)
    documents = [[f"Document {d} line {s}." for s in range(rng.integers(1, 9))] for d in range(12)]
    lines = "\n\n\n".join("\n".join(document) for document in documents)
    (tmp_path / "lines.txt").write_text(lines)
    table = write(tmp_path / "rows.jsonl", [{"text": " ".join(document)} for document in documents])
    expected = slow_runs(documents, sentences)
    for path in (tmp_path / "lines.txt", table):
        data = load_text(path, sentences=sentences, length=24)
        assert data.inputs.shape == (len(expected), sentences, 24)
        for run, tokens, sizes in zip(expected, data.inputs, data.sizes, strict=True):
            found = [bytes((row[:size] - 1).tolist()).decode() for row, size in zip(tokens, sizes, strict=True) if size]
            assert found == run and (tokens > 0).sum() == sizes.sum() == sum(map(len, run))
    assert data.labels is None


def test_labels_go_with_every_run_of_a_row(tmp_path: Path) -> None:
    rows = [{"text": "One. Two. Three.", "label": "b"}, {"text": " ", "label": "b"}, {"text": "Four.", "label": "a"}]
    data = load_text(write(tmp_path / "rows.jsonl", rows), sentences=2)
    assert data.names == ["rows.jsonl:1.1", "rows.jsonl:1.3", "rows.jsonl:3.1"]
    assert data.labels.tolist() == [1, 1, 0] and data.classes == ["a", "b"]
    assert data.sizes.tolist() == [[4, 4], [6, 0], [5, 0]]


def test_D16_a_split_keeps_documents_whole(tmp_path: Path) -> None:
    """Documents of one class, several runs each; equal documents are one."""
    texts = [" ".join(f"Row {row // 2} says {n}." for n in range(12)) for row in range(40)]
    rows = [{"text": text, "label": "ab"[row // 2 % 2]} for row, text in enumerate(texts)]
    data = load_text(write(tmp_path / "rows.jsonl", rows), sentences=3)
    assert len(data) == 160 and data.groups is not None and len(np.unique(data.groups, axis=0)) == 20
    for seed in range(5):
        rest, held = data.split(0.05, seed=seed)
        documents = [{data.names[place].split(".")[1] for place in part} for part in (rest, held)]
        assert not documents[0] & documents[1] and len(documents[1]) == 4 and len(held) == 16
        again = data.subset(rest)
        assert np.array_equal(again.groups, data.groups[rest])
        assert len(again.split(0.1, seed=seed)[1]) == 16
    lines = load_text(write(tmp_path / "alone.jsonl", rows[:3:2]))
    assert lines.groups is None and [len(part) for part in lines.split(0.5)] == [2, 0]


def test_of_one_document_alone_nothing_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"Sentence {n}.\n" for n in range(40)))
    data = load_text(path, sentences=2)
    assert [len(part) for part in data.split(0.05)] == [20, 0] and [len(part) for part in data.split(1.0)] == [0, 20]


def bag_by_loops(rows: np.ndarray, kept: list[int]) -> list[list[int]]:
    return [[int((row == token).sum()) for token in kept] for row in rows]


def test_the_bag_holds_the_tokens_that_are_frequent_in_the_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MOST_TOKENS", 7)
    rng = np.random.default_rng(0)
    tokens = (rng.pareto(0.5, (60, 1, 12)) * 3).clip(0, 99).astype(np.int16)
    tokens[40:] = rng.integers(60, 90, (20, 1, 12))  # frequent in the test part alone
    data = replace(toy_text(60), inputs=tokens, tokenizer=Tokenizer("words", 100))
    train, test = data.subset(np.arange(40)), data.subset(np.arange(40, 60))
    counts = Counter(tokens[:40][tokens[:40] > 0].tolist())
    kept = sorted(sorted(counts, key=lambda token: (-counts[token], token))[:7])
    found = summary.bags(None, train, test)
    assert found[0].tolist() == bag_by_loops(tokens[:40, 0], kept)
    assert found[1].tolist() == bag_by_loops(tokens[40:, 0], kept)


def test_the_bag_of_bytes_holds_all_of_them() -> None:
    data = toy_text(20)
    train, test = summary.bags(None, data.subset(np.arange(12)), data.subset(np.arange(12, 20)))
    assert train.shape == (12, 256) and test.tolist() == bag_by_loops(data.inputs[12:], list(range(1, 257)))


def test_D21_odd_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\r\n\0\r\n" + b"y" * 1_000_000 + b"\r\n\xef\xbf\xbd")
    data = load_text(tmp_path / "latin.txt", length=6)
    assert data.sizes.ravel().tolist() == [6, 1, 6, 3]
    assert bytes((data.inputs[0, 0] - 1).tolist()).decode() == "caf\ufffd"
    (tmp_path / "wide.txt").write_text("größe\nß", encoding="utf-16")
    (tmp_path / "marked.txt").write_text("größe\nß", encoding="utf-8-sig")
    for name in ("wide.txt", "marked.txt"):
        assert read_pieces(tmp_path / name).texts == ["größe", "ß"]
    (tmp_path / "long.csv").write_text("text,label\n" + "z" * 200_000 + ",a\nshort,b\n")
    assert load_text(tmp_path / "long.csv").sizes.ravel().tolist() == [64, 5]
    assert load_text(tmp_path / "long.csv", sentences=4).sizes.tolist() == [[64, 0, 0, 0], [5, 0, 0, 0]]


def test_D21_rows_without_text_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [{"text": "a"}, {"text": None}, {"text": "b"}, {"text": "c"}])
    data = load_text(path)
    assert len(data) == 3 and data.bad == [("rows.parquet:2", "no text")] and data.names[1] == "rows.parquet:3"
    with pytest.raises(DataError, match="1 of 4"):
        load_text(path, max_bad=0)


def test_a_folder_is_all_of_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("Three.\n")
    (tmp_path / "a.txt").write_text("One.\nTwo.\n")
    (tmp_path / ".hidden.txt").write_text("None.\n")
    data = load_text(tmp_path, sentences=3)
    assert data.names == ["a.txt:1.1", "sub/b.txt:1.1"] and data.sizes.tolist() == [[4, 4, 0], [6, 0, 0]]


@pytest.mark.parametrize(
    ("name", "content", "labels", "message"),
    [
        ("none.txt", "", None, "no text"),
        ("blank.txt", " \n\n", None, "no text"),
        ("table.csv", "texts,label\na,b\n", None, "no column 'text'"),
        ("table.csv", "text,label\na,b\nc\n", None, "fewer fields"),
        ("table.csv", "text,label\na,b\nc,\n", None, "no label, others have one"),
        ("table.csv", "text,label\na,b\nc,b\n", True, "only one class"),
        ("table.csv", "text\na\n", True, "no labels"),
        ("table.csv", "text,label,label_name\na,0,x\nb,1,y\nc,0,z\n", None, "is called 'z'"),
        ("table.jsonl", '{"text": "a"}\n{"text"', None, "line 2: not JSON"),
        ("table.jsonl", "[1]\n", None, "not an object"),
        ("table.parquet", "PAR1 cut short", None, "not a whole Parquet file"),
        ("table.docx", "text", None, "kind that is not read"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: str, labels: bool | None, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        load_text(tmp_path / name, labels=labels)


def test_other_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing there"):
        load_text(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="no text in the folder"):
        load_text(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    for wrong in ({"sentences": 0}, {"length": 0}, {"tokenizer": "none"}):
        with pytest.raises(UsageError):
            load_text(tmp_path / "a.txt", **wrong)


def test_real_text_is_read_whole(real_data: Path) -> None:
    file = real_data / "text" / "trec_test.parquet"
    if not file.exists():
        pytest.skip(f"no {file.name}")
    data = load_text(file, labels=True)
    assert len(data) == 500 and len(data.classes) == 6 and not data.bad


# ---- views


def test_views_leave_out_what_is_padding_in_all() -> None:
    batch = toy_text(8).batch([0, 3, 5])
    (view,) = sentences(batch)
    longest = int(batch.sizes.max())
    assert view.dtype == torch.int64 and view.shape == (3, SENTENCES, longest)
    assert torch.equal(view, batch.inputs[:, :, :longest].long()) and int((batch.inputs > 0).sum()) == int(
        (view > 0).sum()
    )
    transform = Sentences(Tokenizer().to_dict(), 6)
    assert torch.equal(transform(batch.inputs.numpy(), batch.sizes.numpy()), view[:, :, :6])


def test_the_transform_comes_back_from_json() -> None:
    transform = Sentences(Tokenizer().to_dict(), 9)
    stored = transform.to_dict()
    assert stored["kind"] == "sentences" and Sentences.from_dict(json.loads(json.dumps(stored))) == transform
    for wrong in ({**stored, "more": 1}, {**stored, "kind": "steps"}, {"kind": "sentences"}, {**stored, "length": 0}):
        with pytest.raises(UsageError):
            Sentences.from_dict(wrong)


# ---- the net


def small_cells(**settings: int) -> SentenceCells:
    return SentenceCells(**{"vocabulary": 257, "width": 6, "embedding": 5, "kernel": 3, **settings}).double()


def test_cells_are_the_mean_of_convolved_tokens() -> None:
    cells, tokens = small_cells(), sentences(toy_text(3).batch([0, 1, 2]))[0]
    z, valid = cells(tokens)
    weight, bias = cells.convolution.weight, cells.convolution.bias
    for b, s in np.ndindex(*tokens.shape[:2]):
        words = [cells.embedding.weight[t] for t in tokens[b, s] if t]
        assert bool(valid[b, s]) == bool(words)
        expected = torch.zeros(6, dtype=torch.float64)
        for here in range(len(words)):
            total = bias.clone()
            for place in range(3):
                if 0 <= here + place - 1 < len(words):
                    total = total + weight[:, :, place] @ words[here + place - 1]
            expected = expected + total.clamp_min(0) / len(words)
        torch.testing.assert_close(z[b, s], expected, rtol=1e-12, atol=1e-14)


def test_padding_leaks_into_nothing() -> None:
    net = sentence_encoder(vocabulary=257, width=6, embedding=5, context=7).double()
    tokens = sentences(toy_text(4).batch(np.arange(4)))[0]
    wider = torch.nn.functional.pad(tokens, (0, 9, 0, 2))  # 9 more tokens, 2 more sentences
    for found, padded in zip(net(tokens)[:2], net(wider)[:2], strict=True):
        torch.testing.assert_close(padded[:, :SENTENCES], found, rtol=1e-12, atol=1e-14)
        assert not padded[:, SENTENCES:].any()
    torch.testing.assert_close(net(wider)[2], net(tokens)[2], rtol=1e-12, atol=1e-14)
    optimizer = optim.build(net, name="adamw", lr=0.1, weight_decay=0.1)
    net(wider)[2].sum().backward()
    optimizer.step()
    assert not net.cells.embedding.weight[0].any() and net.cells.embedding.weight[1:].any()


def test_a_sentence_changes_no_context_before_it() -> None:
    net = sentence_encoder(vocabulary=257, width=6, embedding=5, context=7).double()
    tokens = torch.randint(1, 257, (2, 5, 4))
    other = tokens.clone()
    other[:, 3] = torch.randint(1, 257, (2, 4))
    (z, c, _), (z_other, c_other, _) = net(tokens), net(other)
    assert torch.equal(c[:, :3], c_other[:, :3]) and not torch.isclose(c[:, 3:], c_other[:, 3:]).all(2).any()
    same = [0, 1, 2, 4]
    assert torch.equal(z[:, same], z_other[:, same])


def test_wrong_nets_and_views_are_refused() -> None:
    for wrong in ({"vocabulary": 1}, {"kernel": 4}, {"width": 0}):
        with pytest.raises(UsageError):
            small_cells(**wrong)
    for view in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8), torch.zeros(2, 8, dtype=torch.int64)):
        with pytest.raises(UsageError, match=r"\[B, S, L\]"):
            small_cells()(view)
    assert SENTENCE_ENCODERS["sentence-small"](vocabulary=300).describe()


# ---- the method

BATCH = 32


def toy_method(**settings: Any) -> Method:
    net = sentence_encoder(vocabulary=257, width=32, embedding=16, context=32, kernel=1)  # letters are in any order
    return cpc_text(**{"encoder": net, "sentences": SENTENCES, "steps": 2, **settings})


def toy_loop(model: Contrast, data: Dataset, *, epochs: int, **settings: Any) -> Loop:
    plan = Plan(samples=np.arange(len(data)), batch=BATCH, epochs=epochs, peak=0.01, warmup_epochs=0.5, seed=3)
    optimizer = optim.build(model, name="adamw", lr=0.002, weight_decay=1e-4)
    return Loop(model=model, optimizer=optimizer, dataset=data, plan=plan, device=choose("cpu", "fp32"), **settings)


def toy_batch(count: int = 16, *, start: int = 0) -> Batch:
    return toy_text(64).batch(np.arange(start, start + count), seed=1)


def features(model: Contrast, data: Dataset) -> Tensor:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return encoders.pooled(model.encoder(Sentences(data.tokenizer.to_dict(), 64)(batch.inputs, batch.sizes)))


@pytest.mark.parametrize("seed", [0, 1])
def test_learns_a_toy(seed: int) -> None:
    data = toy_text(384, seed)
    torch.manual_seed(seed)
    model = Contrast(toy_method())
    before = knn_accuracy(features(model, data), data.labels)
    toy_loop(model, data, epochs=10)()
    after = knn_accuracy(features(model, data), data.labels)
    assert after > before + 0.25, (before, after)


def test_loss_is_log_n_where_predictions_say_nothing() -> None:
    model, batch = Contrast(toy_method()).double(), toy_batch()
    for prediction in model.pair.predictions:
        torch.nn.init.zeros_(prediction.weight)
    assert math.isclose(model(batch).item(), math.log(int((batch.sizes > 0).sum())), rel_tol=1e-12)


def test_the_loss_is_that_of_nested_loops() -> None:
    model, batch = Contrast(toy_method(steps=3)).double(), toy_batch(6)
    z, c, _ = model.encoder(sentences(batch)[0])
    there = batch.sizes > 0
    cells = [z[b, s] for b, s in np.ndindex(*there.shape) if there[b, s]]
    losses = []
    for step, prediction in enumerate(model.pair.predictions, 1):
        terms = []
        for b, s in np.ndindex(*there.shape):
            if s + step < there.shape[1] and there[b, s + step]:
                told = prediction.weight @ c[b, s]
                scores = torch.stack([cell @ told for cell in cells])
                terms.append(scores.logsumexp(0) - z[b, s + step] @ told)
        losses.append(torch.stack(terms).mean())
    torch.testing.assert_close(model(batch), torch.stack(losses).mean(), rtol=1e-10, atol=1e-12)


def test_wrong_settings_of_the_method_are_refused() -> None:
    for wrong in ({"sentences": 2}, {"size": 0}, {"encoder": "sentense"}, {"encoder": torch.nn.Linear(2, 2)}):
        with pytest.raises(UsageError):
            toy_method(**wrong)


def test_single_sentences_have_nothing_to_predict(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "".join(f"the sentence {number}\n" for number in range(80)))
    method, data = cpc_text(encoder="sentence-small", sentences=4), load_text(path, sentences=4)
    assert isinstance(method.extract.pair, Predict)
    with pytest.raises(DataError, match="none of 80 samples has 2 sentences or more"):
        check_enough(method.extract.pair, torch.from_numpy(data.sizes), data.kind, print)
    path.write_text("text\n" + "One here. Two here. Three here.\n" * 80)
    assert method.extract.pair.enough(torch.from_numpy(load_text(path, sentences=4).sizes)) == 80


@pytest.mark.parametrize("representation", ["context", "cells", "last"])
def test_evaluation_of_text_sees_what_is_asked_for(representation: Any) -> None:
    net = cpc_text(encoder="sentence-small", sentences=4, representation=representation).encoder
    z, c, found = net(torch.randint(1, 257, (2, 3, 6)))
    expected = {"context": c.mean(1), "cells": z.mean(1), "last": c[:, -1]}[representation]
    torch.testing.assert_close(found, expected)
