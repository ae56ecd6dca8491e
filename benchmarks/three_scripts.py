"""The old way: three scripts, each a pass of its own, as the program that this one replaces had it.

    python -m benchmarks.three_scripts --archive A.zip --output out --slices 1000

1. unpack: each DICOM file is read from the zip with pydicom, rescaled, windowed three times in
   NumPy, resized by PIL and saved as a JPEG file.
2. metadata: each DICOM file is read again, its header goes into a pandas DataFrame, then a CSV.
3. records: the JPEG files are read and written as tf.train.Example with TensorFlow's own writer.

Written as such scripts usually are, with nothing in them that is slow on purpose. They do less
than the stages do: no split by patient, no order of slices, no check of what is damaged.
"""

import argparse
import io
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_SIZE = 256
_WINDOWS = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0))
_KEYWORDS = (
    "SOPInstanceUID",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
)


def member_names(archive: zipfile.ZipFile, count: int) -> list[str]:
    """The first DICOM members."""
    return [name for name in archive.namelist() if name.endswith(".dcm")][:count]


def window(hounsfield: np.ndarray, level: float, width: float) -> np.ndarray:
    """A CT window as float64 arithmetic; uint8 of the same shape."""
    low = level - width / 2
    return (np.clip((hounsfield - low) / width, 0.0, 1.0) * 255.0).astype(np.uint8)


def unpack(archive: Path, output: Path, count: int) -> None:
    """First pass: DICOM files to JPEG files."""
    import pydicom
    from PIL import Image

    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as opened:
        for name in member_names(opened, count):
            dataset = pydicom.dcmread(io.BytesIO(opened.read(name)))
            slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
            hounsfield = dataset.pixel_array * slope + intercept
            image = np.stack([window(hounsfield, *pair) for pair in _WINDOWS], axis=-1)
            resized = Image.fromarray(image).resize((_SIZE, _SIZE))
            resized.save(folder / f"{dataset.SOPInstanceUID}.jpg", quality=95)


def extract_metadata(archive: Path, output: Path, count: int) -> None:
    """Second pass: headers to a CSV."""
    import pandas as pd
    import pydicom

    rows: list[dict[str, Any]] = []
    with zipfile.ZipFile(archive) as opened:
        for name in member_names(opened, count):
            dataset = pydicom.dcmread(io.BytesIO(opened.read(name)), stop_before_pixels=True)
            row: dict[str, Any] = {}
            for keyword in _KEYWORDS:
                value = dataset.get(keyword)
                if isinstance(value, pydicom.multival.MultiValue):
                    row.update({f"{keyword}_{i}": part for i, part in enumerate(value)})
                else:
                    row[keyword] = value
            rows.append(row)
    output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output / "metadata.csv", index=False)


def write_records(archive: Path, output: Path, count: int) -> None:
    """Third pass: JPEG files, metadata and labels to TFRecords."""
    import pandas as pd
    import tensorflow as tf

    with zipfile.ZipFile(archive) as opened:
        labels_name = next(name for name in opened.namelist() if name.endswith("_train.csv"))
        labels = pd.read_csv(io.BytesIO(opened.read(labels_name)))
    split = labels["ID"].str.rsplit("_", n=1, expand=True)
    labels["image_id"], labels["subtype"] = split[0], split[1]
    wide = labels.drop_duplicates("ID").pivot(index="image_id", columns="subtype", values="Label")
    label_of = dict(zip(wide.index, wide.to_numpy().tolist(), strict=True))
    metadata = pd.read_csv(output / "metadata.csv")

    def bytes_feature(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with tf.io.TFRecordWriter(str(output / "images.tfrecord")) as writer:
        for row in metadata.itertuples():
            image = (output / "images" / f"{row.SOPInstanceUID}.jpg").read_bytes()
            features = {
                "image/encoded": bytes_feature(image),
                "image/id": bytes_feature(str(row.SOPInstanceUID).encode()),
                "patient/id": bytes_feature(str(row.PatientID).encode()),
                "series/id": bytes_feature(str(row.SeriesInstanceUID).encode()),
                "label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=label_of.get(row.SOPInstanceUID, [0] * 6))
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


_SCRIPTS = {"unpack": unpack, "metadata": extract_metadata, "records": write_records}


def main() -> None:
    """Runs one script, or all three as processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.three_scripts", description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--slices", type=int, required=True, help="the archive's first so many")
    parser.add_argument("--script", choices=tuple(_SCRIPTS), help="only this one")
    args = parser.parse_args()
    if args.script:
        # Warnings of the archive's ids, two a slice, would be a part of the cost.
        warnings.simplefilter("ignore")
        _SCRIPTS[args.script](args.archive, args.output, args.slices)
        return
    for script in _SCRIPTS:
        command = [sys.executable, "-m", "benchmarks.three_scripts", *sys.argv[1:]]
        subprocess.run([*command, "--script", script], check=True)


if __name__ == "__main__":
    main()
