from collections import Counter

import cv2
import numpy as np
import pytest
from synthetic import AXIAL, make_dicom, random_hounsfield, tilted

from beam_pipelines.images import encode, resize, to_square
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.pixels import read_stored
from beam_pipelines.rendering import Renderer
from beam_pipelines.series_images import SeriesEncoder
from beam_pipelines.slice_references import SliceReference
from beam_pipelines.windowing import Windowing
from configs import ExamplesConfig

SIZE = 16


class Files:
    """An archive of files in memory that counts how often each is read."""

    path = "memory"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self.reads: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._files)

    def member(self, index: int) -> Member:
        return reference(list(self._files)[index]).member

    def find(self, file_name: str) -> Member | None:
        return None

    def read(self, member: Member) -> bytes:
        self.reads[member.name] += 1
        if member.name not in self._files:
            raise BadMemberError("cannot be read")
        return self._files[member.name]

    def read_head(self, member: Member, size: int) -> bytes:
        return self.read(member)


def reference(
    name: str,
    position: tuple[float, ...] = (0.0, 0.0, 0.0),
    orientation: tuple[float, ...] = AXIAL,
) -> SliceReference:
    member = Member(name, 0, 0, 0)
    return SliceReference(name, "p", "st", "se", "train", None, position, orientation, 0.5, member)


def heights(order: str) -> list[SliceReference]:
    """Slices named by a letter each, from feet to head, in the order of their names."""
    found = [reference(name, (0.0, 0.0, 5.0 * i)) for i, name in enumerate(order)]
    return sorted(found, key=lambda r: r.image_id)


def run(
    files: Files, references: list[SliceReference], **settings
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """The decoded images by slice in the order of the series, and what was rejected."""
    config = ExamplesConfig(
        **{"image_size": SIZE, "image_format": "png", "channels": "windows", **settings}
    )
    rejected: list[tuple[str, str]] = []
    encoder = SeriesEncoder(files, config)
    found = list(encoder(references, lambda r, reason: rejected.append((r.image_id, reason))))
    assert [item.index for item, _ in found] == list(range(len(found)))
    return {item.image_id: decode(data) for item, data in found}, rejected


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def brain(data: bytes) -> np.ndarray:
    return Renderer(ExamplesConfig().windows, SIZE)(*read_stored(data))[..., 0]


def series(names: str) -> dict[str, bytes]:
    return {name: make_dicom(random_hounsfield(ord(name), 24, 24) + 1024) for name in names}


@pytest.mark.parametrize("shape", [(32, 40), (40, 32), (20, 20)])
def test_an_image_is_windowed_squared_and_resized(shape: tuple[int, int]):
    files = Files({"a": make_dicom(random_hounsfield(5, *shape) + 1024)})
    windowed = Windowing(ExamplesConfig().windows)(random_hounsfield(5, *shape))
    found, _ = run(files, [reference("a")])
    np.testing.assert_array_equal(found["a"], resize(to_square(windowed), SIZE))


def test_jpeg_is_close_to_png():
    files = Files({"a": make_dicom(np.add.outer(np.arange(64), np.arange(64)) - 30 + 1024)})
    for channels in ("windows", "neighbours", "both"):
        png, jpeg = (
            run(files, [reference("a")], image_size=64, image_format=f, channels=channels)[0]["a"]
            for f in ("png", "jpeg")
        )
        assert png.shape == ((128 if channels == "both" else 64), 64, 3)
        assert np.abs(png.astype(int) - jpeg).mean() < 2


def test_without_neighbours_and_crop_the_encoded_bytes_are_those_of_each_slice_alone():
    files = series("abc")
    config = ExamplesConfig(image_size=SIZE, channels="windows")
    render = Renderer(config.windows, SIZE)
    found = list(SeriesEncoder(Files(files), config)(heights("cab"), pytest.fail))
    assert [(item.image_id, data) for item, data in found] == [
        (name, encode(render(*read_stored(files[name])), "jpeg", 95)) for name in "cab"
    ]


@pytest.mark.parametrize("order", ["a", "ba", "dbca"])
def test_neighbours_are_the_slices_below_and_above(order: str):
    files = series(order)
    found, rejected = run(Files(files), heights(order), channels="neighbours")
    assert (list(found), rejected) == (list(order), [])
    for i, name in enumerate(order):
        near = (order[max(i - 1, 0)], name, order[min(i + 1, len(order) - 1)])
        expected = np.stack([brain(files[n]) for n in near], axis=2)
        np.testing.assert_array_equal(found[name], expected)


def test_both_is_windows_above_neighbours():
    files = series("dbca")
    found = {
        c: run(Files(files), heights("dbca"), channels=c)[0]
        for c in ("windows", "neighbours", "both")
    }
    for name in "dbca":
        upper, lower = found["both"][name][:SIZE], found["both"][name][SIZE:]
        np.testing.assert_array_equal(upper, found["windows"][name])
        np.testing.assert_array_equal(lower, found["neighbours"][name])


@pytest.mark.parametrize("bad", ["b", "d", "a", "bc", "dbc"])
@pytest.mark.parametrize("crop", ["none", "head"])
def test_a_bad_slice_is_no_neighbour(bad: str, crop: str):
    """The others are what they are in a series that never had it."""
    left = "".join(name for name in "dbca" if name not in bad)
    broken = {name: data[:-1] if name in bad else data for name, data in series("dbca").items()}
    found, rejected = run(Files(broken), heights("dbca"), channels="both", crop=crop)
    expected, _ = run(Files(series(left)), heights(left), channels="both", crop=crop)
    reason = "pixel data is cut short: 1151 of 1152 bytes"
    assert sorted(rejected) == [(name, reason) for name in sorted(bad)]
    assert list(found) == list(expected) == list(left)
    for name in left:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_member_that_cannot_be_read_is_rejected():
    found, rejected = run(Files(series("a")), heights("ab"), channels="neighbours")
    assert list(found) == ["a"]
    assert rejected == [("b", "cannot be read")]


def test_without_a_bad_slice_another_order_gives_other_neighbours():
    """The bad slice's plane turns the series: with it b would be below a."""
    files = series("ab")
    references = [
        reference("a", (0.0, 0.0, 0.0)),
        reference("b", (0.0, 10.0, 1.0)),
        reference("c", (0.0, 0.0, 50.0), tilted(60.0)),
    ]
    archive = Files({**files, "c": b"broken"})
    found, rejected = run(archive, references, channels="neighbours")
    assert [name for name, _ in rejected] == ["c"]
    assert list(found) == ["a", "b"]
    a, b = brain(files["a"]), brain(files["b"])
    np.testing.assert_array_equal(found["a"], np.stack([a, a, b], 2))
    np.testing.assert_array_equal(found["b"], np.stack([a, b, b], 2))
    assert archive.reads == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("channels", ["windows", "neighbours", "both"])
def test_slices_in_no_plane_are_rejected(channels: str):
    references = [reference(name, orientation=(0.0,) * 6) for name in "ab"]
    found, rejected = run(Files(series("ab")), references, channels=channels)
    assert found == {}
    assert rejected == [(n, "ImageOrientationPatient spans no plane") for n in "ab"]


@pytest.mark.parametrize(("crop", "passes"), [("none", 1), ("head", 2)])
@pytest.mark.parametrize("channels", ["windows", "neighbours", "both"])
def test_a_slice_is_read_once_and_twice_for_the_crop(channels: str, crop: str, passes: int):
    archive = Files(series("abc"))
    run(archive, heights("bca"), channels=channels, crop=crop)
    assert archive.reads == dict.fromkeys("abc", passes)


def disc(row: int, column: int, shape: tuple[int, int] = (40, 48)) -> bytes:
    """A head of radius 8 over a table that is one pixel thick."""
    hounsfield = np.full(shape, -1000)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    hounsfield[(rows - row) ** 2 + (columns - column) ** 2 <= 64] = 40
    hounsfield[37] = 80
    return make_dicom(hounsfield + 1024)


@pytest.mark.parametrize("channels", ["windows", "both"])
def test_one_crop_around_the_heads_of_all_slices(channels: str):
    files = {"a": disc(12, 20), "b": disc(14, 24), "c": disc(100, 100)}
    found, _ = run(Files(files), heights("acb"), channels=channels, crop="head")
    render = Renderer(ExamplesConfig().windows, SIZE)
    # Heads in rows 4 to 22 and columns 12 to 32; find_head's boxes are a pixel larger each way, so
    # 23 wide, and the margin is one more.
    for name, data in files.items():
        stored, rescale = read_stored(data)
        part = stored[1:26, 10:35]
        np.testing.assert_array_equal(found[name][:SIZE], render(part, rescale))


def test_a_series_without_a_head_or_of_two_sizes_is_not_cropped():
    for files in (
        {"a": disc(100, 100), "b": disc(100, 100)},
        {"a": disc(12, 20), "b": disc(12, 20, (48, 48))},
    ):
        cropped, whole = (run(Files(files), heights("ab"), crop=c)[0] for c in ("head", "none"))
        for name in files:
            np.testing.assert_array_equal(cropped[name], whole[name])
