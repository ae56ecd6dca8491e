"""Small DICOM slices, archives and label files, made in code.

    slices = make_series("ID_p1", num_slices=4)
    write_zip(path, slices)

A slice's pixels follow from its image id alone, so that two ways to the same slice can be compared.
"""

import csv
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from beam_pipelines.member import Member
from beam_pipelines.schema import SUBTYPES
from beam_pipelines.slice_references import COLUMNS as METADATA_COLUMNS

ROOT = "rsna-intracranial-hemorrhage-detection"
ROWS, COLUMNS = 32, 40
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES_UID = "1.2.3.4"


def tilted(degrees: float) -> tuple[float, ...]:
    """ImageOrientationPatient of a scan with a tilted gantry."""
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


def random_hounsfield(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Hounsfield units that every header variant can store: int16 (rows, columns)."""
    return np.random.default_rng(seed).integers(-1000, 2000, (rows, columns)).astype(np.int16)


def make_dataset(
    stored: np.ndarray | None = None,
    *,
    bits_stored: int = 16,
    signed: bool = True,
    omit: Sequence[str] = (),
    **values: Any,
) -> Dataset:
    """A CT slice's data set.

    Args:
        stored: stored values, (rows, columns); random ones by default.
        bits_stored: BitsStored.
        signed: whether PixelRepresentation is 1.
        omit: keywords to leave out.
        values: keyword to value, over the defaults.
    """
    if stored is None:
        stored = random_hounsfield(0)
    defaults = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "ID_000000001",
        "Modality": "CT",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19500102",
        "PatientID": "ID_patient1",
        "StudyInstanceUID": "ID_study1",
        "SeriesInstanceUID": "ID_series1",
        "StudyID": "",
        "ImagePositionPatient": [-125.0, -110.0, 42.5],
        "ImageOrientationPatient": list(AXIAL),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "PixelSpacing": [0.5, 0.5],
        "BitsAllocated": 16,
        "BitsStored": bits_stored,
        "HighBit": bits_stored - 1,
        "PixelRepresentation": int(signed),
        "WindowCenter": [36.0, 40.0],
        "WindowWidth": [80.0, 120.0],
        "RescaleIntercept": "-1024.000000",
        "RescaleSlope": "1",
    }
    dataset = Dataset()
    for keyword, value in {**defaults, **values}.items():
        if keyword not in omit:
            setattr(dataset, keyword, value)
    if "PixelData" not in omit:
        dataset.PixelData = stored.astype(np.uint16 if not signed else np.int16).tobytes()
        dataset["PixelData"].VR = "OW"
    return dataset


def make_dicom(
    stored: np.ndarray | None = None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    compress: str | None = None,
    **values: Any,
) -> bytes:
    """A DICOM file.

    Args:
        stored: stored values, (rows, columns).
        syntax: an uncompressed or deflated transfer syntax.
        compress: a compressed transfer syntax, through pydicom's encoders.
        values: see `make_dataset`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `ID_...` is no valid UID
        dataset = make_dataset(stored, **values)
        return _to_bytes(dataset, syntax, compress)


def _to_bytes(dataset: Dataset, syntax: str, compress: str | None) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    if compress is not None:
        dataset.compress(compress, generate_instance_uid=False)
    file = io.BytesIO()
    pydicom.dcmwrite(
        file,
        dataset,
        enforce_file_format=True,
        implicit_vr=None if compress else syntax == ImplicitVRLittleEndian,
        little_endian=None if compress else syntax != ExplicitVRBigEndian,
    )
    return file.getvalue()


def without_preamble(data: bytes) -> bytes:
    """A file that begins with its elements, as some old exports do."""
    return data[132:]


def with_tag_cut(data: bytes, keyword: str) -> bytes:
    """A file that ends inside the value of an element."""
    tag = Tag(keyword)
    place = data.index(struct.pack("<2H", tag.group, tag.element))
    return data[: place + 9]


@dataclass(frozen=True)
class SyntheticSlice:
    """A member of an archive.

    Attributes:
        image_id: SOPInstanceUID.
        patient_id: PatientID.
        subset: train or test.
        data: the DICOM file.
        label: 0 or 1 for each of SUBTYPES, or None.
    """

    image_id: str
    patient_id: str
    subset: str
    data: bytes
    label: tuple[int, ...] | None

    @property
    def name(self) -> str:
        return f"{ROOT}/stage_2_{self.subset}/{self.image_id}.dcm"


def make_series(
    patient: str,
    num_slices: int = 4,
    *,
    subset: str = "train",
    study: int = 1,
    spacing_mm: float = 5.0,
    degrees: float = 0.0,
    **values: Any,
) -> list[SyntheticSlice]:
    """A series from feet to head, with ids that say nothing of the order."""
    orientation = tilted(degrees)
    normal = np.cross(orientation[:3], orientation[3:])
    slices = []
    for index in range(num_slices):
        key = f"{patient}-{study}-{index}"
        seed = zlib.crc32(key.encode())
        image_id = f"ID_{seed:08x}"
        place = np.array([-120.0, -110.0, 30.0]) + normal * index * spacing_mm
        label = [int(v) for v in np.random.default_rng(seed).random(len(SUBTYPES) - 1) < 0.3]
        data = make_dicom(
            random_hounsfield(seed) + 1024,
            SOPInstanceUID=image_id,
            PatientID=patient,
            StudyInstanceUID=f"ID_{patient}-study{study}",
            SeriesInstanceUID=f"ID_{patient}-series{study}",
            ImagePositionPatient=[f"{v:.6f}" for v in place],
            ImageOrientationPatient=[f"{v:.6f}" for v in orientation],
            **values,
        )
        labelled = subset == "train"
        slices.append(
            SyntheticSlice(
                image_id, patient, subset, data, (*label, max(label)) if labelled else None
            )
        )
    return slices


def make_slices(num_train: int = 6, num_test: int = 2) -> list[SyntheticSlice]:
    """Series of several patients, one with two studies, of different lengths and tilts."""
    slices = []
    for index in range(num_train):
        slices += make_series(f"ID_train{index}", 2 + index % 3, degrees=7.0 * (index % 3))
    slices += make_series("ID_train0", 3, study=2)
    for index in range(num_test):
        slices += make_series(f"ID_test{index}", 3 + index, subset="test")
    return slices


def label_rows(slices: Iterable[SyntheticSlice]) -> list[tuple[str, int]]:
    """Rows of the label file: six a labelled slice."""
    return [
        (f"{s.image_id}_{subtype}", value)
        for s in slices
        if s.label is not None
        for subtype, value in zip(SUBTYPES, s.label, strict=True)
    ]


def label_csv(rows: Iterable[tuple[str, Any]]) -> bytes:
    """Kaggle's label file."""
    return "".join(["ID,Label\n", *(f"{name},{value}\n" for name, value in rows)]).encode()


def archive_files(slices: Sequence[SyntheticSlice]) -> dict[str, bytes]:
    """Name and bytes of an archive's files, as Kaggle lays them out."""
    files = {s.name: s.data for s in slices}
    return {**files, f"{ROOT}/stage_2_train.csv": label_csv(label_rows(slices))}


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of files, in their order."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    """A folder tree of files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def metadata_row(image_id: str, height: float = 0.0, **cells: Any) -> str:
    """A row of a metadata file."""
    found: dict[str, Any] = dict.fromkeys(METADATA_COLUMNS, "")
    found |= {"SOPInstanceUID": image_id, "PatientID": "p", "StudyInstanceUID": "st"}
    found |= {"SeriesInstanceUID": "se", "ImagePositionPatient_2": height}
    found |= {f"ImagePositionPatient_{i}": 0 for i in range(2)}
    found |= {f"ImageOrientationPatient_{i}": v for i, v in enumerate(AXIAL)}
    found |= {f"member_{name}": 0 for name in Member._fields}
    found |= {"member_name": f"{image_id}.dcm", **cells}
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(found.values())
    return text.getvalue()
