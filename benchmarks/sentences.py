"""CPC on text: frozen features of sentences against a bag of words and the untrained encoder; one JSON.

python -m benchmarks.sentences --epochs 30 --seeds 0 1 2 --threads 1

Trained on the paragraphs of WikiText-2 (valid and test) and the articles of AG News (test), without labels. Measured on
MR, CR, SUBJ and MPQA by 10 folds, on TREC by its own test questions. Neither is in the other. What MR and its like hold
is not trained on, not even without labels: where their rows are sorted by class, the order would tell it.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from benchmarks.few_shot_methods import DATA
from nearfar.data.text import cut
from nearfar.data.text_files import read_pieces
from nearfar.tasks.encoder import load_encoder

CORPUS = ("wikitext2_valid", "wikitext2_test", "ag_news_test")
FOLDED, SPLIT = ("mr", "cr", "subj", "mpqa"), ("trec_train", "trec_test")
FOLDS, STRENGTHS = 10, (0.01, 0.1, 1.0, 10.0)
SETTINGS = {
    "method": "cpc_text", "encoder": "sentence-small", "size": 50, "tokenizer": "words:20000", "sentences": 6,
    "optimizer": "adamw", "lr": 0.004, "weight_decay": 0.01, "batch": 64, "precision": "fp32", "monitor_every": 100,
}  # fmt: skip
PROTOCOL = (
    f"Accuracy of logistic regression, its strength chosen of {STRENGTHS} on a fifth of the training part. "
    f"{FOLDS} folds: mean and standard deviation over them; trec: trained on its 5,452, tested on its 500. Features "
    "of the frozen encoder are standardised; bag of words: counts of scikit-learn's CountVectorizer."
)
Features = np.ndarray | list[str]


def main() -> None:
    """Trains for each seed, unless the run is there, and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/sentences"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sentences.json")
    asked = parser.parse_args()
    confine(asked.threads)
    write_json(
        asked.out,
        {
            "command": f"python -m benchmarks.sentences --epochs {asked.epochs}"
            f" --seeds {' '.join(map(str, asked.seeds))} --threads {asked.threads}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": SETTINGS | {"epochs": asked.epochs},
            "protocol": PROTOCOL,
            "corpus": write_corpus(asked.work),
            "bag_of_words": measure(lambda name: texts_of(name)[0], counts),
            "runs": [one(seed, asked) for seed in asked.seeds],
        },
    )


def write_corpus(work: Path) -> dict[str, dict[str, int]]:
    """Writes what is trained on as one file, a document a row. Returns its size, by source."""
    texts = {name: read_pieces(DATA / "text" / f"{name}.parquet", labels=False).texts for name in CORPUS}
    work.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": [text for some in texts.values() for text in some]}), work / "corpus.parquet")
    return {
        name: {
            "documents": len(some),
            "sentences": sum(len(cut(text)) for text in some),
            "words": sum(len(text.split()) for text in some),
        }
        for name, some in texts.items()
    }


def one(seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """A run and its scores."""
    settings = SETTINGS | {"epochs": asked.epochs, "threads": asked.threads, "seed": seed}
    run = nf.train(str(asked.work / "corpus.parquet"), out=asked.work / f"seed{seed}", **settings)
    encoder = load_encoder(run)
    scores = {
        part: measure(lambda name, net=net: net(net.load(text_file(name), labels=True)).numpy(), scaled)
        for part, net in (("cpc", encoder), ("untrained", encoder.untrained()))
    }
    return {"seed": seed, "wall_seconds": wall_seconds(run), **scores}


def measure(features: Callable[[str], Features], classifier: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Accuracy on every set, of features by name of the set."""
    found = {}
    for name in FOLDED:
        x, y = features(name), texts_of(name)[1]
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(y, y)
        scores = [classifier().fit(rows(x, fit), y[fit]).score(rows(x, held), y[held]) for fit, held in folds]
        found[name] = {"accuracy": round(float(np.mean(scores)), 4), "std": round(float(np.std(scores)), 4)}
    fit, held = SPLIT
    score = classifier().fit(features(fit), texts_of(fit)[1]).score(features(held), texts_of(held)[1])
    return found | {"trec": {"accuracy": round(float(score), 4)}}


def counts() -> Any:
    """Logistic regression on counts of words."""
    return strength_chosen(CountVectorizer())


def scaled() -> Any:
    """Logistic regression on standardised features."""
    return strength_chosen(StandardScaler())


def strength_chosen(first: Any) -> Any:
    """Logistic regression after `first`, its strength chosen within the training part."""
    whole = make_pipeline(first, LogisticRegression(max_iter=2000))
    return GridSearchCV(whole, {"logisticregression__C": STRENGTHS}, cv=ShuffleSplit(1, test_size=0.2, random_state=0))


def rows(features: Features, places: np.ndarray) -> Features:
    """Some of them."""
    return features[places] if isinstance(features, np.ndarray) else [features[place] for place in places]


def texts_of(name: str) -> tuple[list[str], np.ndarray]:
    """Sentences and the names of their classes, which train and test parts share."""
    pieces = read_pieces(text_file(name), labels=True)
    assert pieces.labels is not None and pieces.classes is not None
    return pieces.texts, np.array(pieces.classes)[pieces.labels]


def text_file(name: str) -> Path:
    """Where a set is."""
    return DATA / "text" / f"{name}.parquet"


if __name__ == "__main__":
    main()
