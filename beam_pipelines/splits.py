"""Which split and which shard a slice belongs to: stable hashes, so every run agrees.

Both are drawn a patient: all slices of a patient are in one split and one shard, so no patient is
on both sides of a split and no series is torn, whatever the order or the number of workers.
"""

import hashlib
import re

# `.../stage_2_train/ID_x.dcm`, `train/...`; the last such folder of the path decides.
_SUBSET = re.compile(r"(?:^|[/_])(train|test)(?=/)")


def subset_of(member_name: str) -> str:
    """Whether an archive's member is of its train or its test part, by the folder it is in.

    Files outside both, such as one's own scans, are test: slices to be scored.
    """
    found = _SUBSET.findall(member_name)
    return found[-1] if found else "test"


def uniform(*parts: str) -> float:
    """A number in [0, 1) that depends on nothing but the texts."""
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def split_of(patient_id: str, subset: str, val_ratio: float, salt: str) -> str:
    """The split of a patient's slices: train, validation or test.

    Args:
        patient_id: PatientID; all slices of one patient fall into one split.
        subset: train or test part of the archive.
        val_ratio: share of the train part's patients that is held out.
        salt: another salt gives another draw.
    """
    if subset == "test":
        return "test"
    return "validation" if uniform(salt, patient_id) < val_ratio else "train"


def shard_of(patient_id: str, num_shards: int) -> int:
    """The shard of a patient's slices, from 0 to `num_shards` - 1."""
    return int(uniform("shard", patient_id) * num_shards)


def in_fold(shard: int, folds: int, fold: int) -> bool:
    """Whether a shard of train examples is in a fold, and so unseen by that fold's base model.

    Shards hold whole patients, drawn by a hash, so that every `folds`-th shard makes a fold.
    """
    return shard % folds == fold


def shards_for(num_slices: float, slices_per_shard: int) -> int:
    """How many shards so many slices make; at least one."""
    return max(1, round(num_slices / slices_per_shard))
