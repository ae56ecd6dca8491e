"""Reads every slice's header into train_metadata.csv and test_metadata.csv."""

from collections.abc import Sequence

from beam_pipelines import options, runs, shards
from beam_pipelines.archive import open_archive
from beam_pipelines.errors import require
from beam_pipelines.layout import DataLayout
from beam_pipelines.metadata import (
    STAGE,
    MetadataBuilder,
    member_ranges,
    read_metadata_manifest,
)
from beam_pipelines.metadata_merge import PublishMetadata
from beam_pipelines.progress import report

_DESCRIPTION = """\
Reads the header of every slice of an archive, without inflating its pixels, and writes one row
a slice: an allow-list of DICOM keywords, nothing that names a person, and where the slice's
bytes are.

Writes under --data_dir:
  train_metadata.csv, test_metadata.csv   by the folder that the slice is in (stage_2_train or
                                          stage_2_test); slices in neither count as test
  quarantine/extract_metadata.csv         slices whose header cannot be used, with the reason
"""


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the stage; see `--help`."""
    parser = options.make_parser("beam_pipelines.extract_metadata", _DESCRIPTION)
    options.add_archive(parser)
    options.add_data_dir(parser)
    options.add_max_bad_fraction(parser)
    args = options.parse(parser, argv)
    pipeline_options = runs.pipeline_options(args.beam_args)
    layout = DataLayout(args.data_dir)
    num_members = len(open_archive(args.archive))
    require(
        num_members > 0,
        f"--archive {args.archive}: holds no *.dcm files; give an archive of DICOM slices",
    )
    ranges = member_ranges(num_members)
    builder = MetadataBuilder(args.archive, layout.metadata_parts, len(ranges))
    publish = PublishMetadata(args.data_dir, args.archive, num_members, args.max_bad_fraction)
    shards.retract(layout.metadata_manifest, layout.metadata_parts)

    import apache_beam as beam

    from beam_pipelines.transforms import BuildShards, PublishShards, count_slices

    with runs.run_pipeline(pipeline_options, STAGE, num_members) as pipeline:
        (
            pipeline
            | "CreateRanges" >> beam.Create(ranges)
            | "ReadHeaders" >> BuildShards(builder)
            | "PublishMetadata" >> PublishShards(publish)
        )
    counts = count_slices(pipeline.result, STAGE)
    # Members whose id another one has are found when all parts are there.
    manifest = read_metadata_manifest(layout)
    counts["slices_written"] = sum(manifest["num_slices"].values())
    counts["slices_quarantined"] = manifest["num_quarantined"]
    report(STAGE, counts, layout)


if __name__ == "__main__":
    options.main_entry(run)
