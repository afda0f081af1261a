"""deploy/kubernetes as kustomize renders it: every object by its schema, and what the objects promise."""

from __future__ import annotations

import copy
import json
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import support
import yaml
from dockerfile import ROOT, stage

from tools import prometheus_rule
from worker import __version__
from worker.policy.registry import load_directory
from worker.settings import PREFIX, Settings

SCHEMAS = ROOT / "tests" / "data" / "schemas"
#: Kinds that Kubernetes does not have itself.
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"), ("keda.sh/v1alpha1", "TriggerAuthentication"),
    ("monitoring.coreos.com/v1", "PodMonitor"), ("monitoring.coreos.com/v1", "PrometheusRule"),
}  # fmt: skip
OVERLAYS = ("cpu", "gpu")
Objects = dict[tuple[str, str], Any]


def render(overlay: str) -> Objects:
    """Return what `kubectl kustomize` makes of an overlay, by kind and name."""
    command = [support.SLUICE.with_name("kubectl"), "kustomize", ROOT / "deploy" / "kubernetes" / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def check(document: dict[str, Any]) -> None:
    """Check an object by its schema; of a kind that has none, fail."""
    if (document["apiVersion"], document["kind"]) in CUSTOM:
        schema = json.loads((SCHEMAS / f"{document['kind'].lower()}.json").read_text())
        jsonschema.validate(document, schema)
    else:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.fixture(scope="module")
def rendered() -> dict[str, Objects]:
    return {overlay: render(overlay) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest, rendered: dict[str, Objects]) -> Objects:
    return copy.deepcopy(rendered[request.param])


def pod(objects: Objects, name: str) -> Any:
    return objects["Deployment", name]["spec"]["template"]["spec"]


# -- by their schemas ------------------------------------------------------------------------------------------------


def test_every_object_is_what_its_schema_asks_for_and_in_one_namespace(objects: Objects) -> None:
    assert {kind for kind, _ in objects} == {
        "ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget", "NetworkPolicy",
        "PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication",
    }  # fmt: skip
    for document in objects.values():
        check(document)
        assert document["metadata"]["namespace"] == "sluice"


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("Deployment", "sluice-worker", "spec"), ("Deployment", "sluice-worker", "spec.template.spec.containers.0"),
        ("NetworkPolicy", "sluice", "spec"), ("PodDisruptionBudget", "sluice-worker", "spec"),
        ("ConfigMap", "sluice-policies", ""), ("ScaledObject", "sluice-worker", "spec"),
        ("ScaledObject", "sluice-worker", "spec.triggers.0"),
        ("ScaledObject", "sluice-worker", "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown"),
        ("PodMonitor", "sluice", "spec.podMetricsEndpoints.0"), ("PrometheusRule", "sluice", "spec"),
        ("TriggerAuthentication", "sluice-redis", "spec.secretTargetRef.0"),
    ],
)  # fmt: skip
def test_a_slip_in_an_object_would_be_found(objects: Objects, kind: str, name: str, path: str) -> None:
    document = objects[kind, name]
    place = document
    for part in filter(None, path.split(".")):
        place = place[int(part)] if part.isdecimal() else place[part]
    place["slip"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_a_kind_without_a_schema_would_be_found() -> None:
    document = {"apiVersion": "keda.sh/v1", "kind": "ScaledObject", "metadata": {"name": "x"}}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check(document)


# -- pods ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sluice-worker", "sluice-deliver"])
def test_a_pod_may_nothing_that_it_need_not_and_has_a_minute_to_leave(objects: Objects, name: str) -> None:
    spec = pod(objects, name)
    user = int(stage("final").one("USER").partition(":")[0])
    assert spec["terminationGracePeriodSeconds"] == 60
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == user
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]
    assert {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} <= {
        "/tmp", "/var/cache/huggingface",
    }  # fmt: skip
    assert container["image"].partition(":")[2].startswith(f"{__version__}-")


@pytest.mark.parametrize("name", ["sluice-worker", "sluice-deliver"])
def test_a_pod_is_asked_where_it_answers(objects: Objects, name: str) -> None:
    (container,) = pod(objects, name)["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == Settings.model_fields["metrics_port"].default
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/livez", "/readyz")


@pytest.mark.parametrize("name", ["sluice-worker", "sluice-deliver"])
def test_secrets_come_by_reference_as_files_that_are_settings(objects: Objects, name: str) -> None:
    spec = pod(objects, name)
    (container,) = spec["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert {variable.removeprefix(PREFIX).lower() for variable in variables} <= Settings.model_fields.keys()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert variables["SLUICE_SECRETS_DIR"] == mounts["secrets"]
    (volume,) = (volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets")
    paths = {item["path"].removeprefix(PREFIX.lower()) for item in volume["items"]}
    assert {"redis_url"} <= paths <= Settings.model_fields.keys()
    assert not [kind for kind, _ in objects if kind == "Secret"]


def test_a_gpu_is_asked_for_and_used(rendered: dict[str, Objects]) -> None:
    (container,) = pod(rendered["gpu"], "sluice-worker")["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "SLUICE_DEVICE", "value": "cuda"} in container["env"]
    (plain,) = pod(rendered["cpu"], "sluice-worker")["containers"]
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]
    assert plain["image"] != container["image"]


def test_a_drain_takes_one_worker_at_a_time(objects: Objects) -> None:
    budget = objects["PodDisruptionBudget", "sluice-worker"]["spec"]
    assert budget["maxUnavailable"] == 1
    labels = objects["Deployment", "sluice-worker"]["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert objects["Deployment", "sluice-worker"]["spec"]["replicas"] == 2


# -- policies --------------------------------------------------------------------------------------------------------


def test_the_policies_that_a_pod_is_given_are_those_of_the_repository(objects: Objects, tmp_path: Path) -> None:
    data = objects["ConfigMap", "sluice-policies"]["data"]
    (volume,) = (v["configMap"] for v in pod(objects, "sluice-worker")["volumes"] if v["name"] == "policies")
    assert volume["name"] == "sluice-policies"
    # As the kubelet lays it out: `..data` leads to a folder that is swapped, and what one sees leads to `..data`.
    directory = tmp_path / "policies"
    for item in volume["items"]:
        file = directory / "..2026_01_01" / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data[item["key"]])
        link = directory / item["path"].partition("/")[0]
        if not link.is_symlink():
            link.symlink_to(Path("..data") / link.name)
    (directory / "..data").symlink_to("..2026_01_01")
    assert load_directory(directory).at_work() == load_directory(ROOT / "policies").at_work()
    written = {str(file.relative_to(ROOT / "policies")) for file in (ROOT / "policies").glob("*/v*.yaml")}
    assert {item["path"] for item in volume["items"]} == {"rollout.yaml", *written}


# -- the network -----------------------------------------------------------------------------------------------------


def reaches(objects: Objects, address: str) -> bool:
    """Whether a pod may connect to the ports of the web at an address."""
    asked = ip_address(address)
    egress = objects["NetworkPolicy", "sluice"]["spec"]["egress"]
    for block in (peer["ipBlock"] for rule in egress for peer in rule["to"] if "ipBlock" in peer):
        network = ip_network(block["cidr"])
        if asked.version == network.version and asked in network:
            return not any(asked in ip_network(part) for part in block["except"])
    return False


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "0.0.0.0", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "2001::1", "2001:db8::1", "fec0::1", "100::1", "3fff::1",
    ],
)  # fmt: skip
def test_no_address_that_is_not_public_is_reached(objects: Objects, address: str) -> None:
    assert not reaches(objects, address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_a_public_address_is_reached(objects: Objects, address: str) -> None:
    assert reaches(objects, address)


def test_beside_the_web_a_pod_reaches_redis_and_names_and_only_monitoring_reaches_a_pod(objects: Objects) -> None:
    policy = objects["NetworkPolicy", "sluice"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [[(port["protocol"], port["port"]) for port in rule["ports"]] for rule in policy["egress"]] == [
        [("TCP", 6379)], [("UDP", 53), ("TCP", 53)], [("TCP", 80), ("TCP", 443)],
    ]  # fmt: skip
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert [port["port"] for port in rule["ports"]] == [9108]
    for name in ("sluice-worker", "sluice-deliver"):
        labels = objects["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()


# -- monitoring and scaling ------------------------------------------------------------------------------------------


def test_every_queue_and_the_oldest_job_ask_for_workers(objects: Objects) -> None:
    scaled = objects["ScaledObject", "sluice-worker"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in objects
    lists = [trigger["metadata"]["listName"] for trigger in scaled["triggers"] if trigger["type"] == "redis"]
    assert lists == [f"rq:queue:{queue}" for queue in Settings.model_fields["queues"].default]
    assert {trigger["authenticationRef"]["name"] for trigger in scaled["triggers"] if trigger["type"] == "redis"} == {
        "sluice-redis"
    }
    (age,) = (trigger["metadata"] for trigger in scaled["triggers"] if trigger["type"] == "prometheus")
    assert "sluice_queue_oldest_seconds" in age["query"]
    assert scaled["minReplicaCount"] == 1
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 300


def test_prometheus_finds_the_pods(objects: Objects) -> None:
    monitor = objects["PodMonitor", "sluice"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    for name in ("sluice-worker", "sluice-deliver"):
        template = objects["Deployment", name]["spec"]["template"]
        assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert template["spec"]["containers"][0]["ports"][0]["name"] == endpoint["port"]


def test_the_rules_of_the_cluster_are_those_of_prometheus() -> None:
    assert prometheus_rule.TARGET.read_text() == prometheus_rule.render(), "run `python -m tools.prometheus_rule`"
