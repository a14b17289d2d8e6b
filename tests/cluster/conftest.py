"""A cluster of several nodes, an S3 server and an MLflow server for the tests that need them."""

from __future__ import annotations

import secrets
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Case, run_alone
from services import ENVIRONMENT, Door, Nodes, Service, free_port

from autophagy.config.sweep import parse_sweep


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
    """`mlflow server` with a database of its own, which asks for a password."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--app-name", "basic-auth", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", f"{tmp_path}/served"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # it keeps its users in the working folder
        patch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", ENVIRONMENT["MLFLOW_TRACKING_PASSWORD"])
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_hex(16))
        server = Service(command, port, "/health", tmp_path / "mlflow.log")
        server.start()
        yield server
        server.kill()


@pytest.fixture
def nodes(environment) -> Iterator[Nodes]:
    """A head and two workers."""
    made = Nodes(2)
    yield made
    made.shutdown()


@pytest.fixture(scope="session")
def pooled(environment, tiny_values, tmp_path_factory) -> Case:
    """Two loops whose stages take pooled workers."""
    values = {"name": "pooled", "base": tiny_values, "axes": {"selection.strategy": ["random", "lsf"]}}
    values["base"] |= {"metrics": {"feature_network": "pixels", "num_samples": 64}}
    values["base"]["training"] |= {"initial_epochs": 20, "epochs": 10, "checkpoint_every": 5}
    return run_alone(parse_sweep(values), tmp_path_factory.mktemp("pooled"))


@pytest.fixture(scope="session")
def distributed(environment, tiny_values, tmp_path_factory) -> Case:
    """A loop that trains with two workers of Ray Train: with one CPU a node they are on two nodes."""
    values = {"name": "distributed", "base": tiny_values, "axes": {"selection.strategy": ["random"]}}
    values["base"] |= {"metrics": {"feature_network": "pixels", "num_samples": 64}, "generations": 1}
    values["base"]["training"] |= {"num_workers": 2, "initial_epochs": 20, "checkpoint_every": 5}
    return run_alone(parse_sweep(values), tmp_path_factory.mktemp("distributed"))
