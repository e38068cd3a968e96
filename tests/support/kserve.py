"""The fields of KServe's resources that our manifests use, strictly: those of its CRDs of version 0.20, and no others.

The CRDs themselves are in no package that tests could install.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class Metadata(_Strict):
    name: Name
    annotations: dict[str, str] = {}


class _HttpGet(_Strict):
    path: Annotated[str, Field(pattern="^/")]
    port: Port


class _Probe(_Strict):
    http_get: _HttpGet
    period_seconds: Count = 10
    timeout_seconds: Count = 1
    failure_threshold: Count = 3


class _ContainerPort(_Strict):
    name: Annotated[str, Field(pattern="^[a-z0-9-]{1,15}$")]
    container_port: Port
    protocol: Literal["TCP", "UDP", "SCTP"]


class _Capabilities(_Strict):
    drop: list[str]


class _SeccompProfile(_Strict):
    type: Literal["RuntimeDefault", "Localhost", "Unconfined"]


class _SecurityContext(_Strict):
    run_as_non_root: bool
    run_as_user: Count
    privileged: bool
    allow_privilege_escalation: bool
    read_only_root_filesystem: bool
    capabilities: _Capabilities
    seccomp_profile: _SeccompProfile


class _Sleep(_Strict):
    seconds: Count


class _Handler(_Strict):
    sleep: _Sleep


class _Lifecycle(_Strict):
    pre_stop: _Handler


class _Resources(_Strict):
    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity]


class Container(_Strict):
    name: Name
    image: str
    args: list[str]
    ports: list[_ContainerPort]
    startup_probe: _Probe
    readiness_probe: _Probe
    liveness_probe: _Probe
    lifecycle: _Lifecycle
    resources: _Resources
    security_context: _SecurityContext


class _ModelFormat(_Strict):
    name: str
    version: str = ""


class _SupportedModelFormat(_ModelFormat):
    auto_select: bool
    priority: Count


class _RuntimeSpec(_Strict):
    supported_model_formats: list[_SupportedModelFormat]
    protocol_versions: list[Literal["v1", "v2", "grpc-v1", "grpc-v2"]]
    multi_model: bool
    annotations: dict[str, str]
    containers: list[Container]


class ServingRuntime(_Strict):
    api_version: Literal["serving.kserve.io/v1alpha1"]
    kind: Literal["ServingRuntime"]
    metadata: Metadata
    spec: _RuntimeSpec


class _Model(_Strict):
    model_format: _ModelFormat
    runtime: Name
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"]
    storage_uri: Annotated[str, Field(pattern="^[a-z0-9]+://")]


class _Predictor(_Strict):
    min_replicas: Count
    max_replicas: Count
    termination_grace_period_seconds: Count
    model: _Model


class _ServiceSpec(_Strict):
    predictor: _Predictor


class InferenceService(_Strict):
    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: _ServiceSpec
