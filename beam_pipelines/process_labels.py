"""Turns Kaggle's label file into tables that the other stages read."""

import io
import sys
from collections.abc import Sequence
from typing import IO

from beam_pipelines import labels, options, storage
from beam_pipelines.archive import Archive, open_archive
from beam_pipelines.errors import UserError
from beam_pipelines.layout import DataLayout
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.schema import SUBTYPES

_DESCRIPTION = """\
Reads stage_2_train.csv (ID,Label: six rows a slice) and checks it: known subtypes, labels 0 or 1,
no row missing, rows that are there twice must agree.

Writes under --data_dir:
  processed_stage_2_train.csv   image_id,subtype,label: six rows a slice
  reshaped_stage_2_train.csv    image_id and a column a subtype: one row a slice
"""
_FILE_NAME = "stage_2_train.csv"


def find_labels(path: str | None, layout: DataLayout, archive: str | None) -> tuple[IO[bytes], str]:
    """Opens the label file: the one named, else the data root's, else the archive's own.

    Returns:
        The open file, and how to name it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if path is not None:
        if not storage.exists(path):
            raise UserError(f"--labels {path}: no such file; give Kaggle's {_FILE_NAME}")
        return storage.open_read(path), path
    if storage.exists(layout.labels_csv):
        return storage.open_read(layout.labels_csv), layout.labels_csv
    looked_in = [layout.labels_csv]
    if archive is not None:
        opened = open_archive(archive)
        member = opened.find(_FILE_NAME)
        if member is not None:
            return _read_member(opened, member), f"{archive}:{member.name}"
        looked_in.append(archive)
    raise UserError(
        f"{_FILE_NAME}: not found in {' nor in '.join(looked_in)}; give --labels"
        + ("" if archive else " or --archive")
    )


def _read_member(archive: Archive, member: Member) -> IO[bytes]:
    try:
        return io.BytesIO(archive.read(member))
    except BadMemberError as error:
        raise UserError(
            f"labels {archive.path}:{member.name}: {error}; copy the archive again, or give "
            "--labels"
        ) from None


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.process_labels", _DESCRIPTION, beam=False)
    options.add_data_dir(parser)
    options.add_archive(parser, required=False)
    parser.add_argument(
        "--labels",
        help=f"the label file; by default {_FILE_NAME} in the data root, else the archive's",
    )
    args = options.parse_all(parser, argv)
    layout = DataLayout(args.data_dir)
    file, where = find_labels(args.labels, layout, args.archive)
    with file:
        found = labels.read_labels(file, where)
    for path, table in (
        (layout.processed_labels_csv, labels.processed_table(found)),
        (layout.reshaped_labels_csv, labels.reshaped_table(found)),
    ):
        with storage.open_atomic(path) as output:
            labels.write_csv(table, output)
    shares = ", ".join(
        f"{subtype} {share:.2%}"
        for subtype, share in zip(SUBTYPES, found.values.mean(axis=0), strict=True)
    )
    print(
        f"process_labels: {len(found.image_ids)} slices, {found.duplicates} duplicate rows; "
        f"{shares}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    options.main_entry(run)
