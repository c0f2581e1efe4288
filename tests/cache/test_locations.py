"""Where a cache lies means the same in any working folder."""

from pathlib import Path

import pytest

from cache.errors import UserError
from cache.storage import absolute_location, open_storage


def test_folders_become_absolute_and_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_location("caches/a.zarr") == str(tmp_path / "caches" / "a.zarr")
    assert absolute_location("../a.zarr") == str(tmp_path.parent / "a.zarr")
    assert absolute_location("s3://bucket/a.zarr") == "s3://bucket/a.zarr"
    assert absolute_location("file:///a.zarr") == "file:///a.zarr"


def test_a_file_address_with_a_host_is_refused() -> None:
    with pytest.raises(UserError, match="names the host 'caches'"):
        open_storage("file://caches/a.zarr")
