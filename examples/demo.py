"""The whole job in a few minutes: learn from 4,000 real digits without a label, then see what that is worth.

Run by `make demo`. The same on the command line:

    nearfar train digits:train --encoder small --labels false --epochs 40 --view-flip 0 --out runs/demo ...
    nearfar evaluate runs/demo digits:train --test digits:test
"""

from __future__ import annotations

from pathlib import Path

import nearfar as nf


def main() -> None:
    """Trains, evaluates on 1,000 digits that were not trained on, and writes the report."""
    run = nf.train(
        "digits:train",
        method="simclr",
        encoder="small",
        labels=False,  # not looked at, not even to watch
        epochs=40,
        hidden=(256,),
        temperature=0.2,
        view_flip=0,  # a mirrored digit is another sign
        view_scale=(0.4, 1.0),
        out=Path("runs/demo"),
    )
    nf.evaluate(run, "digits:train", test="digits:test")


if __name__ == "__main__":
    main()
