"""The images of a series: each slice read, rendered and encoded, on request with its neighbours."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from beam_pipelines import images, schema
from beam_pipelines.archive import Archive
from beam_pipelines.dicom import BadSliceError
from beam_pipelines.head_box import Box, crop_box, find_head
from beam_pipelines.member import BadMemberError, Member
from beam_pipelines.pixels import Rescale, read_stored
from beam_pipelines.rendering import Renderer
from beam_pipelines.series import order_series
from beam_pipelines.slice_references import SliceReference
from configs import ExamplesConfig

Reject = Callable[[SliceReference, str], None]


class SeriesEncoder:
    """Turns the slices of a series into encoded images; safe to share between threads.

    Holds the encoded images of one series, which are written when its order is known, and three
    rendered slices; never more than one slice at its full size.
    """

    def __init__(self, archive: Archive, config: ExamplesConfig) -> None:
        self._archive = archive
        self._config = config
        self._render = Renderer(config.windows, config.image_size)

    def __call__(
        self, references: Sequence[SliceReference], reject: Reject
    ) -> Iterator[tuple[schema.Slice, bytes]]:
        """Encodes a series.

        Args:
            references: slices of one series.
            reject: called with each slice that cannot be used, and the reason.

        Yields:
            Each usable slice with its encoded image, in anatomical order.
        """
        box = None
        if self._config.crop == "head":
            references, box = self._find_box(references, reject)
        beside = self._config.channels != "windows"
        if beside:
            references = _in_order(references)
        encoded = self._encode(references, box, reject)
        usable = [r for r in references if r.member in encoded]
        try:
            ordered = order_series(usable)
        except ValueError as error:
            for reference in usable:
                reject(reference, str(error))
            return
        if beside and [reference for reference, _ in ordered] != usable:
            # The slices that are left have another normal, and so another order, than with the bad
            # ones: only a series whose slices lie in different planes is read again.
            encoded = self._encode([reference for reference, _ in ordered], box, reject)
        for reference, item in ordered:
            yield item, encoded[reference.member]

    def _find_box(
        self, references: Sequence[SliceReference], reject: Reject
    ) -> tuple[list[SliceReference], Box | None]:
        """The slices that can be used, and what is kept of each: a pass of its own."""
        usable, heads, shapes = [], [], set()
        for reference, stored, rescale in self._read(references, reject):
            usable.append(reference)
            heads.append(find_head(stored, rescale))
            shapes.add(stored.shape)
        return usable, crop_box(heads, shapes)

    def _encode(
        self, references: Sequence[SliceReference], box: Box | None, reject: Reject
    ) -> dict[Member, bytes]:
        """The encoded image of each member that can be used; neighbours as `references` go."""
        rendered = (
            (reference, self._render(stored, rescale, box))
            for reference, stored, rescale in self._read(references, reject)
        )
        encoded: dict[Member, bytes] = {}
        for (_, below), (reference, image), (_, above) in images.with_neighbours(rendered):
            composed = images.compose(self._config.channels, below, image, above)
            encoded[reference.member] = images.encode(
                composed, self._config.image_format, self._config.jpeg_quality
            )
        return encoded

    def _read(
        self, references: Sequence[SliceReference], reject: Reject
    ) -> Iterator[tuple[SliceReference, np.ndarray, Rescale]]:
        """The stored pixels of each slice that can be used, and what they mean."""
        for reference in references:
            try:
                stored, rescale = read_stored(self._archive.read(reference.member))
            except (BadMemberError, BadSliceError) as error:
                reject(reference, str(error))
            else:
                yield reference, stored, rescale


def _in_order(references: Sequence[SliceReference]) -> list[SliceReference]:
    """The slices in anatomical order, bad ones too; as they came where they have none."""
    try:
        return [reference for reference, _ in order_series(references)]
    except ValueError:
        return list(references)
