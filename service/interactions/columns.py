"""From columns of ids to rows: dictionaries, merging and splitting, without a Python loop over rows."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.recommender.dataset import Dataset, DatasetCounts, Rows, Vocabulary

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Interactions of a file: two dictionary-encoded columns of checked ids, of one length, every word used.

    `n_rows`: of the file, those included that a threshold left out. `n_rated`, `n_timed`: how many of them have a
    rating, a time.
    """

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    n_rows: int
    n_rated: int = 0
    n_timed: int = 0

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_below(self) -> int:
        """How many rows the threshold left out."""
        return self.n_rows - len(self)


def joined(parts: list[Pairs]) -> Pairs:
    """The interactions of several files as of one."""
    if len(parts) == 1:
        return parts[0]
    return Pairs(
        encode(pa.chunked_array([part.users for part in parts])),
        encode(pa.chunked_array([part.items for part in parts])),
        sum(part.n_rows for part in parts),
        sum(part.n_rated for part in parts),
        sum(part.n_timed for part in parts),
    )


def encode(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """One dictionary-encoded array from a column of ids, whatever its chunks."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty column stays chunked
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def assemble(name: str, train: Pairs, test: Pairs | None, titles: dict[str, str]) -> Dataset:
    """The data set of these pairs: ids to rows, duplicates merged, test pairs that no model can rank kept out."""
    users, user_codes = _vocabulary(train.users)
    items, item_codes = _vocabulary(train.items)
    train_codes = _distinct(user_codes * len(items) + item_codes)
    test_codes, test_counts = _test_part(test, users, items, train_codes)
    counts = DatasetCounts(
        len(train), train_duplicates=len(train) - len(train_codes), train_below_rating=train.n_below, **test_counts
    )
    return Dataset(name, users, items, _rows(train_codes, items), _rows(test_codes, items), titles, counts)


def _vocabulary(column: pa.DictionaryArray) -> tuple[Vocabulary, Codes]:
    """The ids in code point order, and the row of each entry (n,) int64."""
    order = pc.sort_indices(column.dictionary).to_numpy()  # Arrow orders UTF-8 bytes: the order of the code points
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ids = column.dictionary.take(pa.array(order)).to_pylist()
    return Vocabulary(tuple(ids)), rank[column.indices.to_numpy()]


def _lookup(column: pa.DictionaryArray, vocabulary: Vocabulary) -> tuple[Codes, int]:
    """The row of each entry (n,) int64, -1 where the vocabulary lacks it, and the number of ids that it lacks."""
    known = pa.array(vocabulary.ids, column.dictionary.type)
    rows = pc.fill_null(pc.index_in(column.dictionary, value_set=known), -1).to_numpy().astype(np.int64)
    return rows[column.indices.to_numpy()], int((rows < 0).sum())


def _test_part(
    test: Pairs | None, users: Vocabulary, items: Vocabulary, train_codes: Codes
) -> tuple[Codes, dict[str, int]]:
    if test is None:
        return np.empty(0, np.int64), {}
    user_rows, unknown_users = _lookup(test.users, users)
    item_rows, unknown_items = _lookup(test.items, items)
    known = (user_rows >= 0) & (item_rows >= 0)
    n_distinct = len(_distinct(_raw_codes(test)))
    codes = _distinct(user_rows[known] * len(items) + item_rows[known])
    seen = np.isin(codes, train_codes, assume_unique=True)
    return codes[~seen], {
        "test_rows": len(test),
        "test_below_rating": test.n_below,
        "test_duplicates": len(test) - n_distinct,
        "test_unknown": n_distinct - len(codes),
        "test_unknown_users": unknown_users,
        "test_unknown_items": unknown_items,
        "test_overlap": int(seen.sum()),
    }


def _raw_codes(pairs: Pairs) -> Codes:
    users: Codes = pairs.users.indices.to_numpy().astype(np.int64)
    items: Codes = pairs.items.indices.to_numpy()
    return users * len(pairs.items.dictionary) + items


def _distinct(codes: Codes) -> Codes:
    """The codes sorted, each once. NumPy's unique hashes integers, which takes four times as long as sorting them."""
    ordered = np.sort(codes)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _rows(codes: Codes, items: Vocabulary) -> Rows:
    return np.stack(np.divmod(codes, max(len(items), 1)), axis=1).astype(np.int32)
