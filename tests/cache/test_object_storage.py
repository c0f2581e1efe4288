"""Storages keep their contract, in folders, in memory and on an S3 server; what fails there is one sentence."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obstore.store import S3Store

from cache import ActivationCache, CacheError, CacheWriter, UserError
from cache.local_storage import LocalStorage
from cache.maintenance import verify
from cache.object_storage import ObjectStorage, memory_storage
from cache.storage import Storage, open_storage
from tests.cache.helpers import contents, make_clips, make_plan, make_values, shard_values, write_cache

KINDS = ["folder", "memory", "server"]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return LocalStorage(tmp_path / "a")
    if request.param == "memory":
        return memory_storage()
    new_store: Callable[[], ObjectStorage] = request.getfixturevalue("object_server")
    return new_store()


# The contract


def test_pieces_of_any_kind_become_one_name(storage: Storage) -> None:
    assert not storage.is_there()
    pieces = [
        b"one ",
        bytearray(b"two "),
        memoryview(b"three "),
        memoryview(np.array([1, 2], np.uint32)),
        b"",
    ]
    storage.put("a/b.c", pieces)
    content = b"one two three \1\0\0\0\2\0\0\0"
    assert storage.is_there()
    assert storage.read("a/b.c") == content
    assert storage.size("a/b.c") == len(content)
    storage.put("a/b.c", iter([b"shorter"]))
    assert storage.read("a/b.c") == b"shorter"
    storage.put("empty", [])
    assert (storage.size("empty"), storage.read("empty")) == (0, b"")


def test_large_names_arrive_whole(storage: Storage) -> None:
    """Larger than the parts in which they are sent."""
    pieces = [np.random.default_rng(i).bytes(3 * 2**20 + 1) for i in range(6)]
    storage.put("large", iter(pieces))
    assert storage.read("large") == b"".join(pieces)


def test_a_name_stored_as_new_is_refused_when_it_exists(storage: Storage) -> None:
    storage.put("a/b", [b"first"], new=True)
    with pytest.raises(FileExistsError, match="a/b already exists"):
        storage.put("a/b", [b"second"], new=True)
    assert storage.read("a/b") == b"first"
    storage.delete(["a/b"])
    storage.put("a/b", [b"th", b"ird"], new=True)
    assert storage.read("a/b") == b"third"


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("length", [10, 9 * 2**20])
@pytest.mark.parametrize("error", [ValueError, UserError, OSError, KeyboardInterrupt])
def test_a_put_that_raises_half_way_stores_nothing(
    storage: Storage, new: bool, length: int, error: type[BaseException]
) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(length)
        raise error("half-way")

    storage.put("b", [b"before"])
    for name in ("a", "b"):
        if new and name == "b":
            continue
        with pytest.raises(error, match="half-way"):
            storage.put(name, pieces(), new)
    assert storage.size("a") is None
    assert storage.read("b") == b"before"
    assert storage.sizes() == {"b": 6}


def test_a_part_of_a_name(storage: Storage) -> None:
    storage.put("a", [bytes(range(100))])
    buffer = bytearray(10)
    storage.read_into("a", 85, memoryview(buffer))
    assert buffer == bytes(range(85, 95))
    storage.read_into("a", 90, memoryview(buffer))
    assert buffer == bytes(range(90, 100))
    storage.read_into("a", 3, memoryview(bytearray(0)))
    first, second, third = bytearray(7), bytearray(0), bytearray(2)
    storage.read_into("a", 50, memoryview(first), memoryview(second), memoryview(third))
    assert first + third == bytes(range(50, 59))
    with pytest.raises(EOFError, match="a ends before byte 102"):
        storage.read_into("a", 93, memoryview(first), memoryview(third))
    for offset in (91, 99, 100, 1000):
        with pytest.raises(EOFError, match="a ends before byte"):
            storage.read_into("a", offset, memoryview(buffer))


def test_what_is_not_there(storage: Storage) -> None:
    storage.put("a/b", [b"x"])
    for name in ("c", "a/c"):  # a folder with the name of a file is refused: test_opening
        assert storage.size(name) is None
    for name in ("c", "a/c"):
        with pytest.raises(FileNotFoundError):
            storage.read(name)
        with pytest.raises(FileNotFoundError):
            storage.read_into(name, 0, memoryview(bytearray(1)))
    storage.delete(["c", "a/c"])
    assert storage.sizes() == {"a/b": 1}
    assert storage.sizes("c/") == {}


def test_names_by_prefix_and_without_hidden_ones(storage: Storage) -> None:
    names = ["zarr.json", "a/zarr.json", "a/c.0.0", "ab/c", "manifest/0.json", "manifest.jsonl"]
    for size, name in enumerate([*names, ".writers/0-1", "a/.hidden"]):
        storage.put(name, [bytes(size)])
    assert storage.sizes() == {name: size for size, name in enumerate(names)}
    assert storage.sizes("a/") == {"a/zarr.json": 1, "a/c.0.0": 2}
    assert storage.sizes("manifest/") == {"manifest/0.json": 4}
    storage.delete([*names, "a/.hidden"])
    assert storage.sizes() == {}
    assert not storage.is_there()


def test_a_storage_is_a_location(storage: Storage) -> None:
    assert isinstance(storage, Storage)
    assert open_storage(storage) is storage


# Whole caches


@pytest.mark.parametrize("zstd_level", [0, 3])
def test_a_cache_has_the_same_bytes_everywhere(storage: Storage, tmp_path: Path, zstd_level: int) -> None:
    dtypes = {"tf0.cross_attn": "bfloat16", "tf1.mlp": "float32"}
    plan = make_plan(dtypes=dtypes, zstd_level=zstd_level)
    write_cache(storage, plan, order=[2, 0])
    with pytest.raises(CacheError, match=rf"^{storage.location} is half-written"):
        ActivationCache(storage)
    with CacheWriter(storage, plan, make_clips(plan)) as writer:
        assert writer.missing() == [1]
        writer.write_shard(1, shard_values(plan, 1))
    assert contents(storage) == contents(write_cache(tmp_path / "reference", plan))

    cache = ActivationCache(storage)
    np.testing.assert_array_equal(cache.read("tf1.mlp"), make_values(plan, "tf1.mlp"))
    chosen = cache.dataset("tf1.mlp").sel({"step": 21, "pass": "null"}).isel(clip=[4, 0])
    np.testing.assert_array_equal(chosen.values, make_values(plan, "tf1.mlp")[[4, 0], 2, 1])
    assert cache.clips.equals(make_clips(plan))
    assert verify(storage) == []


def test_damage_is_found_everywhere(storage: Storage) -> None:
    write_cache(storage, make_plan())
    name = "tf1.mlp/c.1.0.0.0.0"
    content = storage.read(name)
    storage.put(name, [content[:40] + bytes([content[40] ^ 1]) + content[41:]])
    with pytest.raises(CacheError, match=rf"{storage.location}/{name} \(clips 2 to 3\) is damaged"):
        ActivationCache(storage).read("tf1.mlp", clips=[3])
    storage.delete([name])
    with pytest.raises(
        CacheError, match=rf"{name} \(clips 2 to 3\) is missing or does not have {len(content)} bytes"
    ):
        ActivationCache(storage).read("tf1.mlp", clips=[3])
    assert write_cache(storage, make_plan()).read(name) == content


def test_other_names_where_a_cache_should_be(storage: Storage) -> None:
    storage.put("thesis.txt", [b"chapter 1"])
    with pytest.raises(CacheError, match=r"is not an activation cache \(no zarr.json\)"):
        CacheWriter(storage, make_plan(), make_clips(make_plan()))
    assert contents(storage) == {"thesis.txt": b"chapter 1"}


def test_object_stores_have_room(object_server: Callable[[], ObjectStorage], tmp_path: Path) -> None:
    assert object_server().free_bytes() is None
    assert memory_storage().free_bytes() is None
    assert (LocalStorage(tmp_path / "not" / "there").free_bytes() or 0) > 0


# Addresses and networks


@pytest.mark.parametrize("url", ["nothing://bucket/a", "s3://", "://a"])
def test_urls_that_are_no_address(url: str) -> None:
    for opened in (ActivationCache, lambda url: CacheWriter(url, make_plan(), make_clips(make_plan()))):
        with pytest.raises(CacheError) as caught:
            opened(url)
        assert str(caught.value).startswith(f"{url} is not the URL of an object store: ")
        assert "\n" not in str(caught.value)


def test_a_url_without_a_cache() -> None:
    with pytest.raises(CacheError, match=r"^memory:///a is not an activation cache \(no zarr.json\)"):
        ActivationCache("memory:///a")


@pytest.mark.usefixtures("s3_environment")
def test_a_cache_by_its_url(object_server: Callable[[], ObjectStorage]) -> None:
    storage = write_cache(object_server(), make_plan())
    by_url = ActivationCache(f"{storage.location}/")
    assert by_url.storage.location == storage.location
    np.testing.assert_array_equal(by_url.read("tf1.mlp"), ActivationCache(storage).read("tf1.mlp"))


def unreachable(port: int) -> ObjectStorage:
    store = S3Store(
        "caches",
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    return ObjectStorage(store, "s3://caches")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize(
    "act",
    [
        lambda storage: storage.read("zarr.json"),
        lambda storage: storage.read_into("a", 0, memoryview(bytearray(1))),
        lambda storage: storage.size("a"),
        lambda storage: storage.sizes(),
        lambda storage: storage.is_there(),
        lambda storage: storage.put("a", [b"1"]),
        lambda storage: storage.put("a", [b"1"], new=True),
        lambda storage: storage.delete(["a"]),
        lambda storage: storage.claim(0, 1),
        ActivationCache,
        lambda storage: CacheWriter(storage, make_plan(), make_clips(make_plan())),
    ],
    ids=[
        "read",
        "read_into",
        "size",
        "sizes",
        "is_there",
        "put",
        "put new",
        "delete",
        "claim",
        "reader",
        "writer",
    ],
)
def test_a_server_that_is_not_there(closed_port: int, act: Callable[[Storage], Any]) -> None:
    with pytest.raises(CacheError) as caught:
        act(unreachable(closed_port))
    assert str(caught.value).startswith("s3://caches")
    assert "cannot be reached: " in str(caught.value)
    assert str(caught.value).endswith(
        ". Check the address, the network and the credentials, and run this again."
    )
    assert "\n" not in str(caught.value)


def test_a_server_that_goes_away_while_reading(closed_port: int) -> None:
    storage = write_cache(memory_storage(), make_plan())
    cache = ActivationCache(storage)
    storage.store = unreachable(closed_port).store
    with pytest.raises(CacheError, match="cannot be reached"):
        cache.read("tf1.mlp")


def test_a_server_that_goes_away_while_writing_loses_nothing(closed_port: int) -> None:
    plan, storage = make_plan(), memory_storage()
    store = storage.store
    writer = CacheWriter(storage, plan, make_clips(plan))
    writer.write_shard(0, shard_values(plan, 0))
    storage.store = unreachable(closed_port).store
    with pytest.raises(CacheError, match="cannot be reached"):
        writer.write_shard(1, shard_values(plan, 1))
    storage.store = store
    writer.write_shard(1, shard_values(plan, 1))
    writer.close()
    assert list(ActivationCache(storage, allow_partial=True).manifest.entries) == [0, 1]
