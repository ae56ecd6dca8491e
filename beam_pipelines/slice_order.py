"""The anatomical order of a series' slices, from feet to head.

A slice's place is the projection of ImagePositionPatient on the slice normal, the cross product of
a row's and a column's direction (DICOM PS3.3 C.7.6.2.1.1). The gantry is tilted in most head scans,
so neither z alone nor the file's order will do. LPS coordinates grow towards the head in z, so the
normal is turned to point there, and a series that was scanned downwards comes out the same.
"""

from collections.abc import Sequence

import numpy as np

# Direction cosines shorter than this, of unit vectors, are no direction at all.
_SHORTEST_NORMAL = 1e-3


def slice_normal(orientations: np.ndarray) -> np.ndarray:
    """The mean unit normal of a series' slices, pointing towards the head.

    Args:
        orientations: float64 (num_slices, 6), ImageOrientationPatient of each slice. Slices of one
            series share it but for rounding; the mean does not depend on which is first.

    Returns:
        float64 (3,), of length 1.

    Raises:
        ValueError: the orientations span no plane.
    """
    normals = np.cross(orientations[:, :3], orientations[:, 3:])
    # Head first for axial slices; for a sagittal or coronal series, left or back first.
    along = np.argmax(np.abs(np.round(normals, 3)), axis=1)
    along = np.where(np.abs(normals[:, 2]) > _SHORTEST_NORMAL, 2, along)
    signs = np.sign(np.take_along_axis(normals, along[:, None], axis=1))
    total = np.sort(normals * signs, axis=0).sum(axis=0)
    length = float(np.linalg.norm(total))
    if not length > _SHORTEST_NORMAL * len(orientations):
        raise ValueError("ImageOrientationPatient spans no plane")
    return total / length


def slice_positions(positions: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Where each slice lies along the series' normal.

    Args:
        positions: float64 (num_slices, 3), ImagePositionPatient in mm.
        orientations: float64 (num_slices, 6), ImageOrientationPatient.

    Returns:
        float64 (num_slices,), mm, rounded to a micrometre so that rounding of the last digit does
        not decide between slices at one place.
    """
    return np.round(positions @ slice_normal(orientations), 3)


def slice_order(
    positions_mm: np.ndarray,
    instance_numbers: Sequence[int | None],
    sop_instance_uids: Sequence[str],
) -> list[int]:
    """Indices of the slices in anatomical order.

    By position, then InstanceNumber where it exists (before those without), then SOPInstanceUID.
    """

    def key(i: int) -> tuple[float, bool, int, str]:
        number = instance_numbers[i]
        return float(positions_mm[i]), number is None, number or 0, sop_instance_uids[i]

    return sorted(range(len(sop_instance_uids)), key=key)


def gaps(ordered_positions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the neighbours below and above, 0 where there is none.

    Positions 0, 5, 12 give below 0, 5, 7 and above 5, 7, 0.
    """
    between = np.diff(ordered_positions_mm)
    edge = np.zeros(1)
    return np.concatenate([edge, between]), np.concatenate([between, edge])
