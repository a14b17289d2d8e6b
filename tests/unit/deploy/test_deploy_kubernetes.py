"""The manifests in deploy/ against the fields of the API that they use; an unknown or misspelt field fails.

The fields of RayCluster and RayJob are those of ray.io/v1 in KubeRay 1.7, the others those of Kubernetes 1.30.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
Schema = dict[str, Any]


def fields(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object that has these fields and no others."""
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


TEXT: Schema = {"type": "string", "minLength": 1}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}  # numbers and truth values must be quoted here
QUANTITY: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
METADATA = {
    "oneOf": [
        fields({"name": NAME}, {"namespace": NAME, "labels": TEXTS}),
        fields({"generateName": TEXT}, {"namespace": NAME, "labels": TEXTS}),
    ]
}
SECRET_KEY = fields({"secretKeyRef": fields({"name": NAME, "key": TEXT})})
ENVIRONMENT = many({"oneOf": [fields({"name": TEXT, "value": TEXT}), fields({"name": TEXT, "valueFrom": SECRET_KEY})]})
RESTRICTED = fields(
    {"allowPrivilegeEscalation": {"const": False}, "capabilities": fields({"drop": {"const": ["ALL"]}})}
)  # with that of a pod below what Kubernetes calls the restricted standard
CONTAINER = fields(
    {
        "name": NAME,
        "image": TEXT,
        "resources": fields({"requests": QUANTITIES, "limits": QUANTITIES}),
        "securityContext": RESTRICTED,
    },
    {
        "command": many(TEXT),
        "args": many(TEXT),
        "workingDir": TEXT,
        "env": ENVIRONMENT,
        "envFrom": many(fields({"secretRef": fields({"name": NAME})})),
        "ports": many(fields({"containerPort": PORT}, {"name": NAME})),
        "readinessProbe": fields({"httpGet": fields({"path": TEXT, "port": PORT})}),
        "volumeMounts": many(fields({"name": NAME, "mountPath": TEXT})),
    },
)
POD = fields(
    {
        "spec": fields(
            {
                "containers": many(CONTAINER),
                "securityContext": fields(
                    {
                        "runAsNonRoot": {"const": True},
                        "runAsUser": COUNT,
                        "fsGroup": COUNT,
                        "seccompProfile": fields({"type": {"const": "RuntimeDefault"}}),
                    }
                ),
            },
            {
                "automountServiceAccountToken": BOOLEAN,
                "restartPolicy": one_of("Always", "OnFailure", "Never"),
                "nodeSelector": TEXTS,
                "tolerations": many(
                    fields(
                        {"key": TEXT, "operator": one_of("Exists", "Equal")},
                        {"value": TEXT, "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute")},
                    )
                ),
                "volumes": many(fields({"name": NAME, "persistentVolumeClaim": fields({"claimName": NAME})})),
            },
        )
    },
    {"metadata": fields({"labels": TEXTS})},
)
WORKERS = fields(
    {"groupName": NAME, "minReplicas": COUNT, "maxReplicas": COUNT, "rayStartParams": TEXTS, "template": POD},
    {"replicas": COUNT, "priority": {"type": "integer"}, "idleTimeoutSeconds": COUNT, "numOfHosts": COUNT},
)
CLUSTER = fields(
    {"headGroupSpec": fields({"rayStartParams": TEXTS, "template": POD}, {"serviceType": one_of("ClusterIP")})},
    {
        "rayVersion": TEXT,
        "authOptions": fields({"mode": one_of("token", "disabled")}, {"secretName": NAME}),
        "enableInTreeAutoscaling": BOOLEAN,
        "autoscalerOptions": fields(
            {},
            {
                "version": one_of("v1", "v2"),
                "upscalingMode": one_of("Default", "Aggressive", "Conservative"),
                "idleTimeoutSeconds": COUNT,
                "env": ENVIRONMENT,
                "securityContext": RESTRICTED,
            },
        ),
        "workerGroupSpecs": many(WORKERS),
    },
)
JOB = fields(
    {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
    {
        "runtimeEnvYAML": TEXT,
        "submitterPodTemplate": POD,
        "submissionMode": one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": BOOLEAN,
        "ttlSecondsAfterFinished": COUNT,
        "activeDeadlineSeconds": COUNT,
    },
)
LABELS = fields({"matchLabels": TEXTS})
PEERS = many({"anyOf": [fields({"podSelector": LABELS}, {"namespaceSelector": LABELS})]})
SPECS = {
    ("ray.io/v1", "RayCluster"): CLUSTER,
    ("ray.io/v1", "RayJob"): JOB,
    ("v1", "PersistentVolumeClaim"): fields(
        {
            "accessModes": many(one_of("ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod")),
            "resources": fields({"requests": QUANTITIES}),
        }
    ),
    ("v1", "Service"): fields(
        {
            "type": one_of("ClusterIP"),
            "selector": TEXTS,
            "ports": many(fields({"port": PORT}, {"name": NAME, "targetPort": PORT})),
        }
    ),
    ("networking.k8s.io/v1", "NetworkPolicy"): fields(
        {
            "podSelector": LABELS,
            "policyTypes": {"const": ["Ingress"]},
            "ingress": many(
                fields({"from": PEERS}, {"ports": many(fields({"port": PORT, "protocol": one_of("TCP")}))})
            ),
        }
    ),
    ("apps/v1", "Deployment"): fields(
        {"replicas": COUNT, "selector": LABELS, "template": POD},
        {"strategy": fields({"type": one_of("Recreate", "RollingUpdate")})},
    ),
}


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def check(manifest: dict[str, Any]) -> None:
    spec = SPECS[manifest["apiVersion"], manifest["kind"]]
    jsonschema.validate(manifest, fields({"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "spec": spec}))


def cluster(name: str) -> dict[str, Any]:
    spec = manifests(name)[0]["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml", "mlflow.yaml", "network.yaml"])
def test_fields(name):
    for manifest in manifests(name):
        check(manifest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["headGroupSpecs"], {}),
        (["workerGroupSpecs", 0, "minReplica"], 0),
        (["workerGroupSpecs", 0, "maxReplicas"], "8"),
        (["headGroupSpec", "rayStartParams", "num-cpus"], 0),  # must be text
        (["headGroupSpec", "template", "spec", "containers", 0, "env", 0, "value"], 3),
        (["autoscalerOptions", "upscalingMode"], "Fast"),
        (["workerGroupSpecs", 0, "template", "spec", "securityContext", "runAsNonRoot"], False),
        (["workerGroupSpecs", 0, "template", "spec", "securityContext", "seccompProfile"], {"type": "Unconfined"}),
        (["headGroupSpec", "template", "spec", "containers", 0, "securityContext", "capabilities"], {}),
        (["autoscalerOptions", "securityContext", "allowPrivilegeEscalation"], True),
    ],
)
def test_what_is_wrong_is_refused(path, value):
    manifest = copy.deepcopy(manifests("raycluster.yaml")[0])
    place = manifest["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_a_job_has_the_cluster_that_stands_by_itself():
    assert cluster("rayjob.yaml") == cluster("raycluster.yaml")


def test_a_cpu_head_and_gpu_workers_from_zero_on_spot_with_a_fallback():
    spec = cluster("raycluster.yaml")
    assert spec["enableInTreeAutoscaling"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    spot, fallback = spec["workerGroupSpecs"]
    assert spot["minReplicas"] == fallback["minReplicas"] == 0
    assert spot["priority"] > fallback["priority"]
    selectors = [list(group["template"]["spec"]["nodeSelector"].values()) for group in (spot, fallback)]
    assert selectors == [["spot"], ["on-demand"]]
    for group in (spot, fallback):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert any(t["key"] == "nvidia.com/gpu" for t in group["template"]["spec"]["tolerations"])


def test_authentication_is_on_and_secrets_are_references():
    assert cluster("raycluster.yaml")["authOptions"] == {"mode": "token", "secretName": "autophagy-token"}
    (server,) = manifests("mlflow.yaml")[2]["spec"]["template"]["spec"]["containers"]
    assert "--app-name=basic-auth" in server["args"]
    for name in ("raycluster.yaml", "rayjob.yaml", "mlflow.yaml"):
        assert all(manifest["kind"] != "Secret" for manifest in manifests(name))
        for variable in variables(manifests(name)):
            assert "value" not in variable or not any(word in variable["name"] for word in ("PASSWORD", "KEY", "TOKEN"))


def variables(node: Any) -> list[dict[str, Any]]:
    """All environment variables below a node."""
    below = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    here = node.get("env", []) if isinstance(node, dict) else []
    return [*here, *(variable for child in below for variable in variables(child))]


def test_the_server_answers_to_the_name_that_pods_use():
    _, service, deployment = manifests("mlflow.yaml")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = cluster("raycluster.yaml")["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    (uri,) = (variable["value"] for variable in environment if variable["name"] == "MLFLOW_TRACKING_URI")
    host = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert uri == f"http://{host}"
    (allowed,) = (argument for argument in server["args"] if argument.startswith("--allowed-hosts="))
    assert host in allowed.partition("=")[2].split(",")


def test_the_code_of_a_job_is_on_the_path():
    environment = yaml.safe_load(manifests("rayjob.yaml")[0]["spec"]["runtimeEnvYAML"])
    assert environment["env_vars"] == {"PYTHONPATH": "platform"}
    assert environment["working_dir"].startswith("s3://")


def test_the_code_of_a_job_is_not_where_workers_write():
    code = yaml.safe_load(manifests("rayjob.yaml")[0]["spec"]["runtimeEnvYAML"])["working_dir"]
    environment = cluster("rayjob.yaml")["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    (store,) = (variable["value"] for variable in environment if variable["name"] == "AUTOPHAGY_STORE")
    assert urlsplit(code).netloc != urlsplit(store).netloc


def pods() -> dict[str, dict[str, Any]]:
    """Templates of all pods but those of KubeRay itself, by what they are."""
    job, groups = manifests("rayjob.yaml")[0]["spec"], cluster("rayjob.yaml")["workerGroupSpecs"]
    return {
        "head": cluster("rayjob.yaml")["headGroupSpec"]["template"],
        "submitter": job["submitterPodTemplate"],
        "mlflow": manifests("mlflow.yaml")[2]["spec"]["template"],
        **{group["groupName"]: group["template"] for group in groups},
    }


def test_no_container_may_do_more_than_it_must():
    """Pods and containers of all manifests have a security context of the restricted standard: `check` asks for it."""
    assert cluster("rayjob.yaml")["autoscalerOptions"]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for name, template in pods().items():  # the head's autoscaler starts pods; nobody else talks to Kubernetes
        assert template["spec"].get("automountServiceAccountToken", True) == (name == "head")


def test_the_submitter_is_the_image_of_the_head():
    images = {container["image"] for template in pods().values() for container in template["spec"]["containers"]}
    assert len(images) == 1


OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}  # of its Helm chart, and of its own manifests


@pytest.mark.parametrize(
    ("who", "whom", "reached"),
    [
        ("head", "gpu-spot", "all"),
        ("gpu-spot", "head", "all"),
        ("gpu-spot", "gpu-on-demand", "all"),
        ("gpu-spot", "mlflow", [5000]),
        ("head", "mlflow", [5000]),
        ("submitter", "head", [8265]),
        ("operator", "head", [8265]),
        ("submitter", "mlflow", []),
        ("operator", "mlflow", []),
        ("stranger", "head", []),
        ("stranger", "gpu-spot", []),
        ("stranger", "mlflow", []),
        ("mlflow", "head", []),
    ],
)
def test_who_reaches_whom(who, whom, reached):
    labels = {name: template["metadata"]["labels"] for name, template in pods().items()}
    labels |= {"operator": OPERATOR, "stranger": {"app": "other"}}
    ports: list[Any] = []
    rules = [
        policy["spec"] for policy in manifests("network.yaml") if selects(policy["spec"]["podSelector"], labels[whom])
    ]
    assert rules, "whom no policy selects all reach"
    for rule in (rule for spec in rules for rule in spec["ingress"]):
        if any(selects(peer["podSelector"], labels[who]) for peer in rule["from"]):
            ports += [port["port"] for port in rule["ports"]] if "ports" in rule else ["all"]
    assert ports == (["all"] if reached == "all" else reached)


def test_a_peer_in_another_namespace_is_the_operator():
    peers = [
        peer for policy in manifests("network.yaml") for rule in policy["spec"]["ingress"] for peer in rule["from"]
    ]
    (elsewhere,) = (peer for peer in peers if "namespaceSelector" in peer)
    assert elsewhere["podSelector"]["matchLabels"] == OPERATOR


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a pod has all labels of a selector."""
    return selector["matchLabels"].items() <= labels.items()
