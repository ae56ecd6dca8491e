"""Makes a label file of Kaggle's size, and reads one as the old script did.

python -m benchmarks.label_file --output stage_2_train.csv --slices 752803 --duplicates 24
"""

import argparse
from pathlib import Path

import numpy as np

from beam_pipelines.schema import SUBTYPES

_SHARES = (0.004, 0.048, 0.035, 0.047, 0.063)
_SLICES_A_BLOCK = 10_000


def write_labels(path: Path, num_slices: int, duplicates: int, seed: int = 1) -> None:
    """Writes `ID,Label`: six rows a slice, and a few slices a second time.

    Args:
        path: the CSV.
        num_slices: slices.
        duplicates: rows that are there twice; a multiple of six.
        seed: of the labels, whose shares are about the real ones.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros((num_slices, len(SUBTYPES)), np.int8)
    labels[:, :-1] = rng.random((num_slices, len(_SHARES))) < np.array(_SHARES)
    labels[:, -1] = labels[:, :-1].max(axis=1)
    numbers = rng.permutation(num_slices)
    repeated = rng.choice(num_slices, duplicates // len(SUBTYPES), replace=False)
    rows = np.concatenate([np.arange(num_slices), repeated])
    with path.open("w") as file:
        file.write("ID,Label\n")
        for start in range(0, len(rows), _SLICES_A_BLOCK):
            block = rows[start : start + _SLICES_A_BLOCK]
            file.write(
                "".join(
                    f"ID_{number * 0x9E3779B1 & 0xFFFFFFFFF:09x}_{subtype},{value}\n"
                    for number, values in zip(
                        numbers[block].tolist(), labels[block].tolist(), strict=True
                    )
                    for subtype, value in zip(SUBTYPES, values, strict=True)
                )
            )


def reshape_with_pandas(source: Path, output: Path) -> None:
    """The same two tables by pandas, as the old script made them."""
    import pandas as pd

    output.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(source).drop_duplicates("ID")
    parts = table["ID"].str.rsplit("_", n=1, expand=True)
    table["image_id"], table["subtype"] = parts[0], parts[1]
    processed = table[["image_id", "subtype", "Label"]]
    processed.to_csv(output / "processed.csv", index=False)
    reshaped = processed.pivot(index="image_id", columns="subtype", values="Label")
    reshaped.to_csv(output / "reshaped.csv")


def main() -> None:
    """Makes a label file, or reshapes one with pandas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_file", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the CSV, or a folder of two")
    parser.add_argument("--slices", type=int)
    parser.add_argument("--duplicates", type=int, default=24, help="rows (default: 24)")
    parser.add_argument("--pandas", type=Path, help="reshape this label file instead")
    args = parser.parse_args()
    if args.pandas:
        reshape_with_pandas(args.pandas, args.output)
    else:
        write_labels(args.output, args.slices, args.duplicates)


if __name__ == "__main__":
    main()
