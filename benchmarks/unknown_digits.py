"""Images of unknown classes among the bundled digits: what tells them better, distance or the largest probability?

python -m benchmarks.unknown_digits --run runs/demo --threads 1
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, write_json
from nearfar.runs import Run

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
EXAMPLES, KNOWN, DRAWS, HEAD = (2, 5, 20), 5, 25, "lr"
PROTOCOL = (
    f"{DRAWS} draws (seeds 0 to {DRAWS - 1}) of {KNOWN} known of the ten classes and of examples of each; all other "
    "images of digits:test (1,000) are asked for. Area under the ROC curve, images of the known classes against those "
    f"of the others, by the distance (1 - cosine) to the nearest example and by the largest probability of {HEAD}; and "
    "the shares of both that unknown='auto' calls unknown. Mean and standard deviation over the draws. The encoder was "
    "trained on digits:train (4,000), all ten classes, without labels."
)


def main() -> None:
    """Trains the encoder of the demo unless the run is there, then measures it and raw pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="of the demo; trained where it is not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "unknown_digits.json")
    asked = parser.parse_args()
    confine(asked.threads)
    if not (asked.run / "encoder.safetensors").exists():
        nf.train("digits:train", out=asked.run, config=DEMO, threads=asked.threads)
    trained = Run.open(asked.run).record
    encoder = nf.load_encoder(asked.run, device="cpu", precision="fp32")
    test = encoder.load("digits:test", labels=True)
    labels, start = np.asarray(test.labels), time.perf_counter()
    banks = {"encoder": encoder(test).numpy(), "raw pixels": np.asarray(test.inputs).reshape(len(labels), -1) / 255.0}
    scores = {name: {each: measured(bank, labels, each) for each in EXAMPLES} for name, bank in banks.items()}
    write_json(
        asked.out,
        {
            "command": f"python -m benchmarks.unknown_digits --threads {asked.threads}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": trained["settings"],
            "trained_with": trained["versions"],
            "seeds": list(range(DRAWS)),
            "protocol": PROTOCOL,
            "seconds": round(time.perf_counter() - start, 1),
            "scores": scores,
        },
    )


def measured(bank: np.ndarray, labels: np.ndarray, each: int) -> dict[str, list[float]]:
    """What -> mean and standard deviation over the draws."""
    rows = [one(bank, labels, each, seed) for seed in range(DRAWS)]
    return {
        name: [round(float(f([row[name] for row in rows])), 4) for f in (np.mean, np.std)] for name in rows[0]
    }  # fmt: skip


def one(bank: np.ndarray, labels: np.ndarray, each: int, seed: int) -> dict[str, float]:
    """One draw of classes and examples."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(10)[:KNOWN]
    places = np.concatenate([rng.choice(np.flatnonzero(labels == c), each, replace=False) for c in classes])
    rest = np.setdiff1d(np.arange(len(labels)), places)
    classifier = nf.FewShotClassifier(head=HEAD, unknown="auto").fit(bank[places], labels[places])
    answers, other = classifier.answer(bank[rest]), ~np.isin(labels[rest], classes)
    return {
        "distance": float(roc_auc_score(other, answers.distance)),
        "probability": float(roc_auc_score(other, -answers.probability.max(axis=1))),
        "known_flagged": float(answers.unknown[~other].mean()),
        "others_flagged": float(answers.unknown[other].mean()),
    }


if __name__ == "__main__":
    main()
