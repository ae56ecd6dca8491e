"""Makes a large archive out of few drawn slices: `python -m benchmarks.slice_archive --help`.

Drawing and deflating 100,000 slices would take an hour. So some series of phantoms are drawn once,
and a large archive repeats their pixels under other names and UIDs. A raw deflate stream may be
made of parts: a slice's header is deflated on its own up to a full flush, which ends on a byte and
refers to nothing before it, and the pixels, deflated once, are appended as they are. The CRC goes
on from the header over the pixels.

The layout is the RSNA archive's: `stage_2_train/ID_xxxxxxxxx.dcm`, members in random order, about
14% of the slices in `stage_2_test`, the label file among the members, zip64.
"""

import argparse
import pickle
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import deflate as libdeflate
import numpy as np

from beam_pipelines.demo_archive import ROOT, label_rows
from beam_pipelines.demo_plan import StudyPlan, pixel_stream, plan_demo
from beam_pipelines.phantom_headers import SliceIdentity, encode, store
from beam_pipelines.phantoms import OUTSIDE_HU, labels_of, render_slice
from beam_pipelines.zip_writer import DeflatedMember, ZipWriter, deflate

_TEST_SHARE = 0.14
_SECOND_SERIES_CHANCE, _THIRD_SERIES_CHANCE = 0.09, 0.02
# Shares of the slices that a few patients have in an uneven archive: one has a fifth of them.
_LARGE_SHARES = (0.2, 0.1, 0.1, 0.05, 0.05)
_SLICES_A_SERIES = 35
_MATRIX = (512, 512)
# Has no common factor with a power of ten: multiples of it differ in their last 38 digits.
_LARGE_ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835
# What the ids of a drawn header are before they are replaced: as long as real ones, and unlike
# anything else in it.
_PLACEHOLDER = SliceIdentity(
    sop_instance_uid="ID_sopsopsop",
    media_storage_uid="9999." + "7" * 38,
    patient_id="ID_patientp",
    study_instance_uid="ID_studystudy",
    series_instance_uid="ID_seriesseri",
)


@dataclass(frozen=True)
class DrawnSlice:
    """A slice that is drawn once and used many times.

    Attributes:
        header: everything before the pixels, with placeholders for the ids.
        places: where in `header` the five ids of a SliceIdentity are.
        pixels: the bytes of the pixels.
        deflated: the same as the end of a raw deflate stream.
        labels: 0 or 1 for each subtype.
    """

    header: bytes
    places: tuple[int, ...]
    pixels: bytes
    deflated: bytes
    labels: tuple[int, ...]

    def header_of(self, identity: SliceIdentity) -> bytes:
        """The header with the ids of a slice."""
        header = bytearray(self.header)
        for place, text in zip(self.places, vars(identity).values(), strict=True):
            header[place : place + len(text)] = text.encode()
        return bytes(header)

    def member(self, name: str, identity: SliceIdentity) -> DeflatedMember:
        """The slice as a zip's member, under other ids."""
        header = self.header_of(identity)
        compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
        start = compressor.compress(header) + compressor.flush(zlib.Z_FULL_FLUSH)
        crc = libdeflate.crc32(self.pixels, libdeflate.crc32(header))
        return DeflatedMember(name, crc, len(header) + len(self.pixels), start + self.deflated)


@dataclass(frozen=True)
class PlannedSlice:
    """A slice of a large archive: which drawn one it repeats, and who it is."""

    series: int
    index: int
    subset: str
    identity: SliceIdentity


def draw_series(num_distinct: int, seed: int) -> list[list[DrawnSlice]]:
    """Draws whole series of 512 x 512 pixels until there are enough slices; the last is cut."""
    drawn: list[list[DrawnSlice]] = []
    left = num_distinct
    # A series has 20 slices or more; the rare header variants come with larger plans only.
    plan = plan_demo(patients=max(2, num_distinct // 20), seed=seed, broken=0)
    for number, study in enumerate(plan.studies):
        if left > 0 and (study.variant.rows, study.variant.columns) == _MATRIX:
            count = min(left, len(study.slices))
            drawn.append([_draw(study, number, index, seed) for index in range(count)])
            left -= count
    return drawn


def _draw(study: StudyPlan, number: int, index: int, seed: int) -> DrawnSlice:
    plan = study.slices[index]
    rng = pixel_stream(seed, number, index)
    hounsfield, areas = render_slice(study.head, study.scan, study.lesions, plan.level_mm, rng)
    stored = store(hounsfield, study.variant, hounsfield == OUTSIDE_HU)
    contents = encode(_PLACEHOLDER, plan.geometry, study.variant, stored)
    header, pixels = contents[: -stored.nbytes], contents[-stored.nbytes :]
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return DrawnSlice(
        header=header,
        places=tuple(header.index(text.encode()) for text in vars(_PLACEHOLDER).values()),
        pixels=pixels,
        deflated=compressor.compress(pixels) + compressor.flush(),
        labels=labels_of(areas),
    )


def series_counts(num_slices: int, uneven: bool, rng: np.random.Generator) -> Iterator[int]:
    """Yields the number of series of one patient after the other, without end."""
    if uneven:
        for share in _LARGE_SHARES:
            yield max(1, round(share * num_slices / _SLICES_A_SERIES))
    while True:
        chance = rng.uniform()
        yield 1 + (chance < _SECOND_SERIES_CHANCE) + (chance < _THIRD_SERIES_CHANCE)


def plan_slices(
    lengths: Sequence[int], num_slices: int, uneven: bool, seed: int
) -> list[PlannedSlice]:
    """Plans an archive, in the order of its members.

    Args:
        lengths: slices of each drawn series.
        num_slices: of the archive.
        uneven: whether a few patients have half of the slices.
        seed: of ids and order.
    """
    rng = np.random.default_rng(seed)
    planned: list[PlannedSlice] = []
    num_series = 0
    for patient, count in enumerate(series_counts(num_slices, uneven, rng)):
        subset = "test" if rng.uniform() < _TEST_SHARE else "train"
        # The large patients are in train, so that they meet in one split.
        subset = "train" if uneven and patient < len(_LARGE_SHARES) else subset
        for _ in range(count):
            series = int(rng.integers(len(lengths)))
            for index in range(min(lengths[series], num_slices - len(planned))):
                identity = _identity(seed, patient, num_series, len(planned))
                planned.append(PlannedSlice(series, index, subset, identity))
            num_series += 1
        if len(planned) == num_slices:
            break
    return [planned[i] for i in rng.permutation(num_slices)]


def _identity(seed: int, patient: int, series: int, number: int) -> SliceIdentity:
    """Ids of the archive's own lengths; multiplying by an odd number keeps them distinct."""
    mixed = (number * 0x9E3779B1 + seed) & 0xFFFFFFFFF
    return SliceIdentity(
        sop_instance_uid=f"ID_{mixed:09x}",
        media_storage_uid=f"9999.{(number + 1) * _LARGE_ODD % 10**38:038d}",
        patient_id=f"ID_{(patient * 0x9E3779B1 + seed) & 0xFFFFFFFF:08x}",
        study_instance_uid=f"ID_{(series * 0x9E3779B1 + seed) & 0xFFFFFFFFFF:010x}",
        series_instance_uid=f"ID_{(series * 0x85EBCA77 + seed) & 0xFFFFFFFFFF:010x}",
    )


def write_archive(
    path: Path, drawn: list[list[DrawnSlice]], num_slices: int, uneven: bool, seed: int
) -> None:
    """Writes an archive and its label file."""
    labels = []
    planned = plan_slices([len(series) for series in drawn], num_slices, uneven, seed)
    with path.open("wb") as file:
        writer = ZipWriter(file)
        for plan in planned:
            source = drawn[plan.series][plan.index]
            uid = plan.identity.sop_instance_uid
            name = f"{ROOT}/stage_2_{plan.subset}/{uid}.dcm"
            writer.add(source.member(name, plan.identity))
            if plan.subset == "train":
                labels.append((uid, source.labels))
        writer.add(deflate(f"{ROOT}/stage_2_train.csv", label_rows(labels)))
        writer.close()


def main() -> None:
    """Draws slices into a file of their own, or makes an archive of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slice_archive", description=__doc__)
    parser.add_argument("--drawn", type=Path, required=True, help="the drawn slices, a pickle")
    parser.add_argument("--draw", type=int, help="draw so many slices and write --drawn")
    parser.add_argument("--output", type=Path, help="the zip to write")
    parser.add_argument("--slices", type=int, help="of the zip")
    parser.add_argument("--uneven", action="store_true", help="a few patients have half of them")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.draw:
        args.drawn.write_bytes(pickle.dumps(draw_series(args.draw, args.seed)))
        return
    drawn = pickle.loads(args.drawn.read_bytes())
    write_archive(args.output, drawn, args.slices, args.uneven, args.seed)


if __name__ == "__main__":
    # Under its own name, so that what it pickles can be read by others.
    from benchmarks import slice_archive

    slice_archive.main()
