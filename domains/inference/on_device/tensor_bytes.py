"""The memory that tensors keep."""

from collections import defaultdict
from collections.abc import Iterable

from torch import Tensor


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors. One that is given twice counts once. Of a storage that others have parts of, only these parts
    count; parts that overlap count at most as the whole storage."""
    parts: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)
    wholes: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        wholes[storage.data_ptr()] = storage.nbytes()
        parts[storage.data_ptr()][tensor.data_ptr(), tensor.nbytes] = tensor.nbytes
    return sum(min(whole, sum(parts[place].values())) for place, whole in wholes.items())
