"""DICOM headers of the demo's slices: the variants of the real archive, and their encoding.

Variants are dealt to series with the real archive's proportions, by random numbers that know
nothing of lesions. The rare ones, which have broken pipelines, appear at least once when there are
enough series: other intercepts, stored values that wrapped at 4096, a matrix that is not 512x512.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

# From this many train series on, every rare variant is dealt once.
MIN_SERIES_FOR_RARE = 24

_STUDIES_A_RARE_ONE = 75


@dataclass(frozen=True)
class Storage:
    """How Hounsfield units become stored values.

    Attributes:
        bits_stored: 16 or 12.
        pixel_representation: 1 for signed, 0 for unsigned.
        rescale_intercept: The intercept that the header states.
        wraps: Whether values are Hounsfield units modulo 4096, which the header does not say.
    """

    bits_stored: int
    pixel_representation: int
    rescale_intercept: int
    wraps: bool = False


SIGNED_16 = Storage(16, 1, -1024)
UNSIGNED_12 = Storage(12, 0, -1024)
RARE_STORAGES = (
    Storage(12, 0, -1000),
    Storage(16, 1, 0),
    Storage(12, 1, 0),
    Storage(12, 0, 0, wraps=True),
    Storage(12, 0, 1, wraps=True),
)
_SHARE_OF_SIGNED_16 = 0.55
_UNUSUAL_MATRICES = ((408, 408), (512, 374), (768, 768), (640, 512))


@dataclass(frozen=True)
class HeaderVariant:
    """How the headers of one series look. Texts are written as they stand.

    Attributes:
        storage: How Hounsfield units are stored.
        padding: Stored value outside the field of view.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        pixel_spacing: Distance between pixels, mm.
        window_center: One or two texts.
        window_width: As many texts.
        intercept_decimals: Digits after the point of RescaleIntercept and RescaleSlope.
        decimals: Digits after the point of positions and directions; -1 for as few as needed.
        explicit_vr: Explicit or implicit VR little endian.
        writer: ImplementationClassUID and ImplementationVersionName.
    """

    storage: Storage
    padding: int
    rows: int
    columns: int
    pixel_spacing: float
    window_center: tuple[str, ...]
    window_width: tuple[str, ...]
    intercept_decimals: int
    decimals: int
    explicit_vr: bool
    writer: tuple[str, str]


@dataclass(frozen=True)
class SliceIdentity:
    """Who a slice is: identifiers as the real archive spells them, `ID_` and hexadecimal digits."""

    sop_instance_uid: str
    media_storage_uid: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class SliceGeometry:
    """Where a slice is: patient coordinates in mm, direction cosines of its rows and columns."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]


def plan_variants(rng: np.random.Generator, num_series: int, num_train: int) -> list[HeaderVariant]:
    """Deals header variants to series; the first `num_train` are the train series.

    Args:
        rng: Random numbers that nothing else depends on.
        num_series: Train and test series together.
        num_train: Train series; wrapped values and unusual matrices occur only here, as in reality.

    Returns:
        One variant a series.
    """
    order = rng.permutation(num_train).tolist()
    storages = [
        SIGNED_16 if u < _SHARE_OF_SIGNED_16 else UNSIGNED_12 for u in rng.uniform(size=num_series)
    ]
    matrices = [(512, 512)] * num_series
    if num_train >= MIN_SERIES_FOR_RARE:
        copies = max(1, num_train // (len(RARE_STORAGES) * _STUDIES_A_RARE_ONE))
        for storage in (*RARE_STORAGES[:3], RARE_STORAGES[3 + int(rng.integers(2))]) * copies:
            storages[order.pop()] = storage
        for _ in range(copies):
            matrices[order.pop()] = _UNUSUAL_MATRICES[int(rng.integers(len(_UNUSUAL_MATRICES)))]
    return [_draw_variant(rng, *pair) for pair in zip(storages, matrices, strict=True)]


def _draw_variant(
    rng: np.random.Generator, storage: Storage, matrix: tuple[int, int]
) -> HeaderVariant:
    u = rng.uniform(size=8)
    windows = ((("40",), ("150",)), (("30",), ("80",)), (("00040", "00040"), ("00080", "00080")),
               (("36.000000",), ("80.000000",)), (("40", "700"), ("80", "3200")))  # fmt: skip
    common = 2 if storage.bits_stored == 12 and u[0] < 0.6 else int(u[1] * len(windows))
    view_mm = 226.0 + 28.0 * u[2]
    return HeaderVariant(
        storage=storage,
        padding=_padding(storage, u[3]),
        rows=matrix[0],
        columns=matrix[1],
        pixel_spacing=round(float(view_mm / min(matrix)), 6),
        window_center=windows[common][0],
        window_width=windows[common][1],
        intercept_decimals=6 if u[4] < 0.3 else 0,
        decimals=(3, 6, -1)[int(3 * u[5])],
        explicit_vr=bool(u[6] < 0.8),
        writer=(("1.2.40.0.13.1.1.1", "dcm4che-1.4.38"), ("1.2.40.0.13.1.1", "dcm4che-2.0"))[
            int(u[7] < 0.2)
        ],
    )


def _padding(storage: Storage, chance: float) -> int:
    if storage.pixel_representation == 0:
        return storage.wraps * (4096 - 1000)
    if storage.bits_stored == 12:
        return -1024
    return -2000 if chance < 0.7 else -1024


def store(
    hu: npt.NDArray[np.float32], variant: HeaderVariant, outside: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint16] | npt.NDArray[np.int16]:
    """Turns Hounsfield units into stored values.

    Args:
        hu: Hounsfield units, shape (rows, columns).
        variant: Says how values are stored.
        outside: True outside the field of view, same shape.

    Returns:
        int16 for signed storage, else uint16, same shape.
    """
    storage = variant.storage
    values = np.rint(hu).astype(np.int32)
    if storage.wraps:
        values = np.clip(values, -1000, 3095) % 4096
    else:
        values -= storage.rescale_intercept
        low = -(2 ** (storage.bits_stored - 1)) if storage.pixel_representation else 0
        values = np.clip(values, low, low + 2**storage.bits_stored - 1)
    values[outside] = variant.padding
    if storage.pixel_representation:
        return values.astype(np.int16)
    return values.astype(np.uint16)


def encode(
    identity: SliceIdentity,
    geometry: SliceGeometry,
    variant: HeaderVariant,
    stored: npt.NDArray[np.uint16] | npt.NDArray[np.int16],
) -> bytes:
    """Returns a DICOM file. The same arguments give the same bytes."""
    with pydicom.config.disable_value_validation():  # `ID_...` is not a valid UID, but real
        dataset = _dataset(identity, geometry, variant)
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
        dataset["PixelData"].VR = "OW"
        buffer = io.BytesIO()
        # Enforcing would replace MediaStorageSOPInstanceUID, which is another one in reality.
        dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def _dataset(identity: SliceIdentity, geometry: SliceGeometry, variant: HeaderVariant) -> Dataset:
    """Returns everything but the pixels: the keywords that the real slices have, and no others."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # counted when written
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(identity.media_storage_uid)
    explicit = variant.explicit_vr
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.UID(variant.writer[0])
    meta.ImplementationVersionName = variant.writer[1]
    # Without SOPClassUID: the real slices lack it too.
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPInstanceUID = identity.sop_instance_uid
    dataset.Modality = "CT"
    dataset.PatientID = identity.patient_id
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.SeriesInstanceUID = identity.series_instance_uid
    dataset.StudyID = ""
    text = [_text(value, variant.decimals) for value in geometry.position]
    dataset.ImagePositionPatient = text
    direction_decimals = 6 if variant.decimals == 3 else variant.decimals
    dataset.ImageOrientationPatient = [
        _text(value, direction_decimals) for value in geometry.orientation
    ]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = variant.rows
    dataset.Columns = variant.columns
    dataset.PixelSpacing = [_text(variant.pixel_spacing, direction_decimals)] * 2
    dataset.BitsAllocated = 16
    dataset.BitsStored = variant.storage.bits_stored
    dataset.HighBit = variant.storage.bits_stored - 1
    dataset.PixelRepresentation = variant.storage.pixel_representation
    dataset.WindowCenter = _one_or_many(variant.window_center)
    dataset.WindowWidth = _one_or_many(variant.window_width)
    decimals = variant.intercept_decimals
    dataset.RescaleIntercept = f"{variant.storage.rescale_intercept:.{decimals}f}"
    dataset.RescaleSlope = f"{1:.{decimals}f}"
    return dataset


def _one_or_many(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)


def _text(value: float, decimals: int) -> str:
    """A decimal string of at most 16 characters."""
    if decimals >= 0:
        return f"{value + 0.0:.{decimals}f}"
    return f"{round(value, 8) + 0.0:.9g}"
