"""Writes chosen slices as windowed images, for people to look at."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from beam_pipelines import images, options, runs, shards, storage
from beam_pipelines.archive import Archive, open_archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.errors import UserError, require
from beam_pipelines.layout import DataLayout
from beam_pipelines.member import BadMemberError
from beam_pipelines.metadata import open_described_archive, read_metadata_manifest
from beam_pipelines.pixels import decode_hounsfield
from beam_pipelines.progress import Advance, no_progress, report
from beam_pipelines.quarantine import BadSlice, settle
from beam_pipelines.slice_references import SliceReference, read_references
from beam_pipelines.windowing import Windowing
from configs import Window
from configs.sections import DEFAULT_WINDOWS

STAGE = "extract_images"
_WINDOWS = dict(zip(("brain", "subdural", "bone"), DEFAULT_WINDOWS, strict=True))
_SLICES_PER_TASK = 16

_DESCRIPTION = """\
Writes slices as images in a CT window, at the matrix size they were scanned with. For people to
look at: no other stage reads them.

Reads  train_metadata.csv, test_metadata.csv and the archive.
Writes <image id>.png (or .jpg) into --output_dir, and quarantine/extract_images.csv.

examples:
  # a whole series in the subdural window
  ... --series_instance_uid ID_4d28912ba6 --window subdural
  # three windows side by side of two slices
  ... --image_ids ID_dc333386b ID_23bd143e1 --window brain subdural bone
  # the first 100 test slices
  ... --subset test --num_images 100
"""


@dataclass(frozen=True)
class Choice:
    """Which slices are wanted; every condition that is set must hold.

    Attributes:
        image_ids: these SOPInstanceUIDs; empty for any.
        series_instance_uid: this series; None for any.
        num_images: the first so many in the order of the metadata; None for all.
    """

    image_ids: frozenset[str] = frozenset()
    series_instance_uid: str | None = None
    num_images: int | None = None

    def pick(self, references: Iterator[SliceReference]) -> list[SliceReference]:
        """The wanted slices, in the order in which they come."""
        wanted = (
            r
            for r in references
            if (not self.image_ids or r.image_id in self.image_ids)
            and self.series_instance_uid in (None, r.series_instance_uid)
        )
        return list(itertools.islice(wanted, self.num_images))


@dataclass
class ImageBuilder:
    """Writes a task's slices as image files.

    Attributes:
        archive_path: the archive.
        output_dir: where the images go.
        windows: one image part each, side by side.
        image_format: png or jpeg.
    """

    archive_path: str
    output_dir: str
    windows: tuple[Window, ...]
    image_format: str
    _archive: Archive | None = field(default=None, repr=False)
    _windowing: Windowing | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Opens the archive and makes the window tables."""
        self._archive = open_archive(self.archive_path)
        self._windowing = Windowing(self.windows)

    def build(self, task: list[SliceReference], advance: Advance = no_progress) -> shards.Receipt:
        """Writes a task's images; see `transforms.Builder`."""
        bad: list[BadSlice] = []
        for reference in task:
            try:
                data = self._render(reference)
            except (BadMemberError, BadSliceError) as error:
                r = reference
                bad.append(BadSlice(r.member.name, r.image_id, r.subset, STAGE, str(error)))
                continue
            with storage.open_atomic(self._path(reference.image_id)) as file:
                file.write(data)
        advance(len(task) - len(bad), len(bad))
        return {"slices_in": len(task), "num_slices": len(task) - len(bad), "quarantined": bad}

    def _render(self, reference: SliceReference) -> bytes:
        assert self._archive is not None and self._windowing is not None, "setup comes first"
        hounsfield = decode_hounsfield(self._archive.read(reference.member))
        windowed = self._windowing(hounsfield).reshape(*hounsfield.shape, -1)
        return images.encode(np.concatenate(np.moveaxis(windowed, 2, 0), axis=1), self.image_format)

    def _path(self, image_id: str) -> str:
        # A UID may hold anything in a stranger's file; a file name must not climb out of a folder.
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in image_id).lstrip(".")
        extension = {"png": "png", "jpeg": "jpg"}[self.image_format]
        return storage.join(self.output_dir, f"{name}.{extension}")


@dataclass(frozen=True)
class PublishImages:
    """Writes the quarantine file.

    Attributes:
        data_dir: data root.
        num_slices: slices that were chosen.
        max_bad_fraction: largest share of them that may be bad.
    """

    data_dir: str
    num_slices: int
    max_bad_fraction: float

    def __call__(self, receipts: list[shards.Receipt]) -> None:
        """Publishes; raises UserError where too many slices are bad."""
        layout = DataLayout(self.data_dir)
        settle(layout, STAGE, receipts, self.num_slices, self.max_bad_fraction)


def choose(layout: DataLayout, subsets: Sequence[str], choice: Choice) -> list[SliceReference]:
    """The slices to write.

    Raises:
        UserError: none is wanted, or an image id that was asked for is not in the metadata.
    """
    references = itertools.chain.from_iterable(read_references(layout, s) for s in subsets)
    chosen = choice.pick(references)
    missing = sorted(choice.image_ids - {r.image_id for r in chosen})
    if missing and choice.num_images is None:
        raise UserError(
            f"--image_ids: {len(missing)} are not in the metadata of {' and '.join(subsets)}: "
            f"{', '.join(missing[:5])}"
        )
    require(bool(chosen), f"{layout.data_dir}: no slice is wanted by all the flags that were given")
    return chosen


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"received {text!r}; give a number from 1")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.extract_images", _DESCRIPTION)
    options.add_archive(parser)
    options.add_data_dir(parser)
    parser.add_argument("--output_dir", help="default: <data_dir>/images")
    parser.add_argument("--image_ids", nargs="+", default=[], help="only these slices")
    parser.add_argument("--series_instance_uid", help="only this series")
    parser.add_argument("--subset", choices=("train", "test"), help="only this part of the archive")
    parser.add_argument("--num_images", type=_count, help="only the first so many (default: all)")
    parser.add_argument(
        "--window", nargs="+", choices=_WINDOWS, default=["brain"], help="side by side, if several"
    )
    parser.add_argument("--image_format", choices=("png", "jpeg"), default="png")
    options.add_max_bad_fraction(parser)
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args)
    layout = DataLayout(args.data_dir)
    open_described_archive(args.archive, read_metadata_manifest(layout))
    choice = Choice(frozenset(args.image_ids), args.series_instance_uid, args.num_images)
    chosen = choose(layout, [args.subset] if args.subset else ["train", "test"], choice)
    output_dir = args.output_dir or layout.path("images")
    windows = tuple(_WINDOWS[name] for name in args.window)
    builder = ImageBuilder(args.archive, output_dir, windows, args.image_format)
    publish = PublishImages(args.data_dir, len(chosen), args.max_bad_fraction)
    tasks = [chosen[i : i + _SLICES_PER_TASK] for i in range(0, len(chosen), _SLICES_PER_TASK)]
    storage.make_folder(output_dir)

    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    with runs.run_pipeline(pipeline_options, STAGE, len(chosen)) as pipeline:
        (
            pipeline
            | "CreateTasks" >> beam.Create(tasks)
            | "WriteImages" >> BuildShards(builder)
            | "PublishImages" >> PublishShards(publish)
        )
    report(STAGE, count_slices(pipeline.result, STAGE), layout)


if __name__ == "__main__":
    options.main_entry(run)
