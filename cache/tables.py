"""Tables as parquet: allowed contents, hashing, and safe reading.

A parquet file of kilobytes may expand to gigabytes: by compression, by one long text shared by all rows, or by lists in
its cells. So a table must have flat columns of plain values, uncompressed or compressed with snappy (at most 1 : 22),
and its distinct texts are measured before they are copied to the rows.
"""

import hashlib
import io
import math
from datetime import date
from typing import TYPE_CHECKING, Any

from cache.errors import UserError
from cache.protocol import canonical_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MAX_FILE_BYTES = 2**26
MAX_TABLE_BYTES = 2**28
_MAX_COLUMNS = 1024
_CELL_BYTES = 8
_CODECS = {"UNCOMPRESSED", "SNAPPY"}


def to_parquet(table: "pd.DataFrame") -> bytes:
    """Encode a table as parquet, without its index; equal tables have equal bytes.

    Raises:
        UserError: if parquet cannot store a column.
    """
    buffer = io.BytesIO()
    try:
        table.to_parquet(
            buffer, engine="pyarrow", index=False, compression="snappy", write_page_checksum=True
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"The clip table cannot be stored as parquet: {error}. Use one plain type per column."
        ) from error
    return buffer.getvalue()


def table_hash(table: "pd.DataFrame") -> str:
    """Return the SHA-256 (hex) of a table as parquet stores it: canonical JSON of column name → values.

    Missing values are null; values other than numbers, text and booleans are converted to text.

    Raises:
        UserError: if a column has values that a table of a cache cannot have.
    """
    try:
        return stored_hash(parse(to_parquet(table)))
    except ValueError as error:
        raise UserError(
            f"The clip table cannot be stored ({error}). Use columns of numbers, booleans, text and dates."
        ) from error


def stored_hash(table: "pa.Table") -> str:
    """Return the `table_hash` of a parsed table."""
    columns = {
        name: [_plain(value) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return hashlib.sha256(canonical_json(columns).encode()).hexdigest()


def parse(content: bytes, rows: int | None = None) -> "pa.Table":
    """Parse a parquet file from an untrusted source.

    Args:
        content: bytes of the file.
        rows: required number of rows; None for any.

    Raises:
        ValueError: if it is damaged, or not a valid table of a cache or study.
    """
    import pyarrow.parquet as pq  # not at the top: opening a cache must not wait for it

    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has {len(content)} bytes, more than {MAX_FILE_BYTES}")
    try:
        file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        _check_layout(file.metadata, rows)
        schema = file.schema_arrow
        _check_types(schema)
        if texts := [field.name for field in schema if _is_text(field.type)]:
            file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts, page_checksum_verification=True)
        packed = file.read(use_threads=False)
        _check_texts(packed)
        # Without pandas' metadata in the file, which the hash does not cover.
        return packed.cast(schema).replace_schema_metadata(None)
    except Exception as error:  # pyarrow raises many kinds
        raise ValueError(str(error).split("\n", 1)[0] or type(error).__name__) from error


def to_pandas(table: "pa.Table") -> "pd.DataFrame":
    """Convert a parsed table to a data frame."""
    return table.to_pandas()


def _check_layout(metadata: Any, rows: int | None) -> None:
    """Raise ValueError for layouts that could expand beyond their declared size."""
    if rows is not None and metadata.num_rows != rows:
        raise ValueError(f"it has {metadata.num_rows} rows, not {rows}")
    if metadata.num_columns > _MAX_COLUMNS:
        raise ValueError(f"it has {metadata.num_columns} columns, more than {_MAX_COLUMNS}")
    if metadata.num_rows * metadata.num_columns * _CELL_BYTES > MAX_TABLE_BYTES:
        raise ValueError(f"its {metadata.num_rows} rows of {metadata.num_columns} columns are too many")
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.max_repetition_level > 0 or column.path != column.name:
            raise ValueError(f"its column {column.path!r} holds lists or records")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise ValueError("its row groups do not add up to its rows")
    for group in groups:
        for number in range(group.num_columns):
            chunk = group.column(number)
            if chunk.compression not in _CODECS or chunk.num_values != group.num_rows:
                raise ValueError(
                    f"its column {chunk.path_in_schema!r} must be uncompressed or compressed with snappy and have all "
                    f"rows; its compression is {chunk.compression.lower()}"
                )


def _check_types(schema: "pa.Schema") -> None:
    import pyarrow.types as kinds

    plain = (
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_boolean,
        kinds.is_null,
        kinds.is_timestamp,
        kinds.is_date,
        _is_text,
    )
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("it has two columns with the same name")
    for field in schema:
        kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
        if not any(is_kind(kind) for is_kind in plain):
            raise ValueError(
                f"its column {field.name!r} must have numbers, booleans, text or dates; it has {kind}"
            )


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind)


def _check_texts(table: "pa.Table") -> None:
    """Raise ValueError if texts would take too much memory once every row has its own copy."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type) and _is_text(chunk.type.value_type):
                lengths = pc.take(pc.cast(pc.binary_length(chunk.dictionary), pa.int64()), chunk.indices)
                total += pc.sum(lengths).as_py() or 0
    if total > MAX_TABLE_BYTES:
        raise ValueError(f"its texts have {total} bytes, more than {MAX_TABLE_BYTES}")


def _plain(value: Any) -> Any:
    """Return a value that JSON can store, or its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return str(value) if isinstance(value, date) else value
