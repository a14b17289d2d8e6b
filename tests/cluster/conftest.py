"""A cluster of several nodes, an S3 server and an MLflow server for the tests that need them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import ENVIRONMENT, Door, Nodes, Service, free_port


@pytest.fixture(scope="session")
def environment() -> Iterator[None]:
    """What every process started from here inherits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@pytest.fixture(scope="session")
def door(environment, tmp_path_factory) -> Iterator[Door]:
    """The way to an S3 server."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    server = Service(command, port, "/moto-api/", tmp_path_factory.mktemp("s3") / "log.txt")
    server.start()
    yield Door(port)
    server.kill()


@pytest.fixture
def bucket(door) -> str:
    """URI of an empty store on S3."""
    query = f"endpoint_override=127.0.0.1:{door.port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    return f"s3://bucket/{uuid.uuid4().hex}?{query}"


@pytest.fixture
def mlflow_server(environment, tmp_path) -> Iterator[Service]:
    """`mlflow server` with a database of its own."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        f"{tmp_path}/served",
    ]
    server = Service(command, port, "/health", tmp_path / "mlflow.log")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def nodes(environment) -> Iterator[Nodes]:
    """Two workers and a head."""
    made = Nodes(2)
    yield made
    made.cluster.shutdown()
