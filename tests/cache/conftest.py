"""Fixtures of the cache's tests."""

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from obstore.store import S3Store

from cache import protocol
from cache.object_storage import ObjectStorage

BUCKET = "caches"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice (token, channel) is a chunk of its own."""
    monkeypatch.setattr(protocol, "MIN_CHUNK_BYTES", 1)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server of this process, with the empty bucket `caches`."""
    from moto.server import ThreadedMotoServer  # not at the top: it takes a second to import

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    import requests

    requests.put(f"{endpoint}/{BUCKET}", timeout=30).raise_for_status()
    yield endpoint
    server.stop()


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables that send URLs such as s3://caches/… to that server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(scope="session")
def object_server(s3_endpoint: str) -> Callable[[], ObjectStorage]:
    """A function that returns an empty storage on the S3 server, with a new prefix each time."""
    numbers = itertools.count()

    def new_store() -> ObjectStorage:
        prefix = f"{os.getpid()}/{next(numbers)}"
        store = S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=s3_endpoint,
            region="us-east-1",
            access_key_id="test",
            secret_access_key="test",
            client_options={"allow_http": True},
        )
        return ObjectStorage(store, f"s3://{BUCKET}/{prefix}")

    return new_store
