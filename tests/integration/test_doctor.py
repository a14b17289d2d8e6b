"""The doctor on a real Ray, a real store and a real MLflow database."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from autophagy.cli import main
from autophagy.common.rights import guard_token
from autophagy.doctor.nodes import ask_nodes, usable_gpus
from autophagy.doctor.tracking import EXPERIMENT, check_tracking, write_a_run
from autophagy.store.storage import Storage


def test_a_machine_where_loops_run(local_ray, tmp_path, capsys):
    store = tmp_path / "store"
    guard_token()  # as whoever starts Ray here does
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--store", str(store)])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0, printed
    lines = [line.split(":")[0].split() for line in printed.splitlines()]
    assert [check for _, check in lines] == ["python", "packages", "storage", "tracking", "ray", "cluster"]
    assert {level for level, _ in lines} <= {"ok", "note"}
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_problems_are_named_with_a_remedy(local_ray, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--store", str(tmp_path / "file" / "store"), "--tracking-uri", "http://127.0.0.1:9"])
    assert stopped.value.code == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert [line.split(":")[0].split()[1] for line in problems] == ["storage", "tracking"]
    assert all("; " in line for line in problems)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_the_run_that_is_written_is_deleted(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    write_a_run(uri)
    assert check_tracking(uri).level == "ok"
    client = MlflowClient(uri)
    experiments = [client.get_experiment_by_name(EXPERIMENT).experiment_id]
    assert client.search_runs(experiments) == []
    assert len(client.search_runs(experiments, run_view_type=ViewType.DELETED_ONLY)) == 2


def test_a_node_says_what_it_sees(local_ray, tmp_path):
    import ray

    storage = Storage(tmp_path / "store")
    storage.check()
    (found,) = ask_nodes(ray.nodes(), storage, None, ["ray", "torch", "no-such-package"])
    assert found.sees_the_store
    assert min(found.storage) > 0
    assert set(found.versions) == {"python", "ray", "torch"}


def test_gpus_are_those_that_torch_sees():
    import torch

    assert usable_gpus() == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def test_a_node_without_the_package_is_a_problem(local_ray, tmp_path):
    import ray

    (found,) = ask_nodes(ray.nodes(), Unknown(tmp_path), None, [])
    assert found.level == "problem"
    assert "run this as a job" in found.remedy


class Unknown(Storage):
    """Fails where it is unpickled, as it does on a node that the package has not reached."""

    def __reduce__(self) -> tuple[object, ...]:
        return __import__, ("no_such_module",)


def test_the_token_that_ray_makes_is_ours_alone_and_no_metrics_are_told(tmp_path):
    look = (
        "import os, ray; from autophagy.engine.cluster import start_ray; os.umask(0o022); start_ray(); "
        "home = os.path.expanduser('~/.ray'); "
        "print(*(oct(os.stat(p).st_mode)[-3:] for p in (home, home + '/auth_token'))); "
        "print(ray.nodes()[0]['MetricsExportPort'])"
    )
    names = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_enable_metrics_collection")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", look], env=environment | {"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["700", "600", "-1"], done.stderr
