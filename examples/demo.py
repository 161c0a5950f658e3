"""The whole job in a few minutes: learn from 4,000 real digits without a label, then see what that is worth.

Run by `make demo`. The same on the command line:

    nearfar train digits:train --config examples/demo.yaml --out runs/demo
    nearfar evaluate runs/demo digits:train --test digits:test
"""

from __future__ import annotations

from pathlib import Path

import nearfar as nf

SETTINGS = Path(__file__).with_name("demo.yaml")


def main() -> None:
    """Trains, evaluates on 1,000 digits that were not trained on, and writes the report."""
    run = nf.train("digits:train", config=SETTINGS, out="runs/demo")
    nf.evaluate(run, "digits:train", test="digits:test")


if __name__ == "__main__":
    main()
