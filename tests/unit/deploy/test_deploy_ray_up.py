"""cluster.yaml, read by Ray's own launcher and autoscaler; deploy/Dockerfile, which its image is built from."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def config() -> dict[str, Any]:
    """What `ray up` makes of cluster.yaml."""
    return prepare_config(copy.deepcopy(CONFIG))


def test_ray_accepts_it(config):
    validate_config(config)


@pytest.mark.parametrize(
    "change",
    [
        {"worker_nodes": {}},
        {"head_node_type": "main"},
        {"available_node_types": {"head": {"node_config": {}, "resources": {"CPU": 0.5}}}},
        {"available_node_types": {"head": {"node_config": {}, "resources": {}, "min_worker": 0}}},
        {"max_workers": "eight"},
    ],
)
def test_ray_would_refuse_what_is_wrong(config, change):
    with pytest.raises((ValidationError, ValueError)):
        validate_config(config | change)


def test_no_command_of_rays_defaults_is_left(config):
    assert config["setup_commands"] == config["head_setup_commands"] == config["worker_setup_commands"] == []
    assert not any("pip install" in str(value) for value in config.values())


def test_a_cpu_head_and_gpu_workers_from_zero_on_spot_with_a_fallback(config):
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    spot, fallback = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["min_workers"] == fallback["min_workers"] == 0
    assert spot["resources"] == fallback["resources"]
    assert spot["resources"]["GPU"] > 0
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in fallback["node_config"]
    assert 0 < config["idle_timeout_minutes"] <= 10


def test_authentication_is_on_and_secrets_are_files(config):
    options = " ".join(config["docker"]["run_options"])
    assert "--env RAY_AUTH_MODE=token" in options
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "mlflow server --app-name basic-auth" in start
    text = (ROOT / "cluster.yaml").read_text().lower()
    assert not re.search(r"(password|secret|token)\s*[:=]\s*['\"]?[a-z0-9/+]{12,}", text)


def test_the_store_is_shared_and_given_to_every_node(config):
    (option,) = (o for o in config["docker"]["run_options"] if "AUTOPHAGY_STORE" in o)
    assert re.search(r"AUTOPHAGY_STORE=s3://[\w-]+/[\w-]+$", option)


def test_the_tracking_server_answers_to_the_names_of_its_machine_alone(config, tmp_path):
    start = " ".join(config["head_start_ray_commands"])
    (hosts,) = re.findall(r"--allowed-hosts (\$\(.*?\)\)\S+)", start)
    (tmp_path / "hostname").write_text("#!/bin/sh\necho '10.0.0.7 172.17.0.1 '\n")
    (tmp_path / "hostname").chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", f"echo {hosts}"], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.strip() == "10.0.0.7:5000,172.17.0.1:5000,localhost:5000,127.0.0.1:5000"


def test_a_token_that_was_there_before_is_closed_to_others(tmp_path):
    (line,) = (line for line in (ROOT / "deploy" / "slurm.sh").read_text().splitlines() if line.startswith("chmod"))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o755)
    token.write_text("SECRET")
    token.chmod(0o644)
    subprocess.run(["bash", "-euc", line], check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_base_of_the_image_can_be_given_by_digest():
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    assert {"ARG BASE=python:3.11-slim-bookworm", "FROM $BASE"} <= set(lines)


def test_commands_are_shell():
    for command in [*CONFIG["head_start_ray_commands"], *CONFIG["worker_start_ray_commands"]]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    subprocess.run(["bash", "-n", ROOT / "deploy" / "slurm.sh"], check=True)


def launched(config: dict[str, Any], demand: dict[str, float], count: int, failed: str | None = None) -> dict[str, int]:
    """Node types that Ray's autoscaler starts for `count` tasks, after a machine of one type has not come up."""
    autoscaling = AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True)
    monitor = CloudResourceMonitor()
    if failed:
        monitor.notify([InstanceUpdateEvent(instance_type=failed, new_instance_status=Instance.ALLOCATION_TIMEOUT)])
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=autoscaling.get_node_type_configs(),
        max_num_nodes=autoscaling.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(demand)] * count),
        cloud_resource_availabilities=monitor.get_resource_availabilities(),
        recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
    )
    started = {
        launch.instance_type: launch.count for launch in ResourceDemandScheduler(None).schedule(request).to_launch
    }
    head = autoscaling.get_head_node_type()
    return {name: number for name, number in started.items() if name != head}


def kuberay() -> dict[str, Any]:
    """deploy/raycluster.yaml as the autoscaler beside the head reads it."""
    cluster = yaml.safe_load((ROOT / "deploy" / "raycluster.yaml").read_text())
    cluster["metadata"]["namespace"] = "default"
    return _derive_autoscaling_config_from_ray_cr(cluster)


@pytest.mark.parametrize(
    ("config", "spot", "on_demand"), [(CONFIG, "gpu_spot", "gpu_on_demand"), (kuberay(), "gpu-spot", "gpu-on-demand")]
)
class TestWhatTheAutoscalerStarts:
    def test_spot_first(self, config, spot, on_demand):
        assert launched(config, {"GPU": 1}, 2) == {spot: 2}
        assert launched(config, {"CPU": 1}, 4) == {spot: 1}

    def test_on_demand_once_all_spot_machines_are_asked_for(self, config, spot, on_demand):
        most = AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True).get_node_type_configs()[spot]
        asked = launched(config | {"max_workers": 100}, {"GPU": 1}, most.max_worker_nodes + 1)
        assert asked == {spot: most.max_worker_nodes, on_demand: 1}

    def test_on_demand_after_spot_has_not_come_up(self, config, spot, on_demand):
        assert launched(config, {"GPU": 1}, 2, failed=spot) == {on_demand: 2}

    def test_nothing_without_work(self, config, spot, on_demand):
        assert launched(config, {"GPU": 1}, 0) == {}


def test_the_image_is_pinned_and_the_same_everywhere():
    ray = next(Requirement(r) for r in PROJECT["dependencies"] if r.startswith("ray["))
    version = str(ray.specifier).removeprefix("==")
    places = [ROOT / "cluster.yaml", *(ROOT / "deploy").iterdir(), ROOT / "docs" / "clusters.md"]
    images = {image for p in places for image in re.findall(r"registry\.example\.com/\S+", p.read_text())}
    assert images == {f"registry.example.com/autophagy:{PROJECT['version']}-ray{version}"}


def test_everything_in_the_image_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for needed in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]):
        assert needed.name in pinned, f"{needed} is not in constraints.txt"
        assert needed.specifier.contains(pinned[needed.name]), needed


def test_the_image_has_the_dependencies_and_not_the_package():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^COPY (.*)$", text, re.MULTILINE) == ["pyproject.toml constraints.txt /tmp/build/"]
    assert "USER ray" in text
    assert "RAY_AUTH_MODE=token" in text
