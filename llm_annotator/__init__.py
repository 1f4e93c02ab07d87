"""The annotator: captions in, labels out. Runs on a machine without JAX.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_annotator.errors import (
    AnnotatorError,
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
    PortInUse,
    ServiceError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreNewerSchema,
)

if TYPE_CHECKING:
    from llm_annotator.backends import available_backends, create_backend
    from llm_annotator.client import AnnotatorClient
    from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
    from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
    from llm_annotator.mailbox import ClientHealth
    from llm_annotator.service import serve
    from llm_annotator.settings import check_settings
    from llm_annotator.store import Store, StoreReader
    from llm_annotator.supervisor import ServiceHealth, ServiceProcess
    from llm_annotator.types import (
        Comparison,
        Completion,
        LabelStatus,
        LabelUpdate,
        News,
        Occurrence,
        Request,
        SampledTransition,
        Subject,
    )

__all__ = [
    "AnnotatorClient",
    "AnnotatorConfig",
    "AnnotatorError",
    "BackendAnswerInvalid",
    "BackendConfig",
    "BackendError",
    "BackendOverloaded",
    "BackendRejected",
    "BackendUnreachable",
    "ClientHealth",
    "Comparison",
    "Completion",
    "ConfigError",
    "EngineConfig",
    "LabelStatus",
    "LabelUpdate",
    "Labeler",
    "LabelerConfig",
    "LabelerSpec",
    "News",
    "Occurrence",
    "PortInUse",
    "Request",
    "SampledTransition",
    "ServiceError",
    "ServiceHealth",
    "ServiceProcess",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreNewerSchema",
    "StoreReader",
    "Subject",
    "available_backends",
    "check_settings",
    "create_backend",
    "resolve_labeler",
    "serve",
]

_MODULES = {
    "AnnotatorClient": "client",
    "AnnotatorConfig": "config",
    "BackendConfig": "config",
    "ClientHealth": "mailbox",
    "Comparison": "types",
    "Completion": "types",
    "EngineConfig": "config",
    "LabelStatus": "types",
    "LabelUpdate": "types",
    "Labeler": "labeler",
    "LabelerConfig": "config",
    "LabelerSpec": "labeler",
    "News": "types",
    "Occurrence": "types",
    "Request": "types",
    "SampledTransition": "types",
    "ServiceHealth": "supervisor",
    "ServiceProcess": "supervisor",
    "Store": "store",
    "StoreReader": "store",
    "Subject": "types",
    "available_backends": "backends",
    "check_settings": "settings",
    "create_backend": "backends",
    "resolve_labeler": "labeler",
    "serve": "service",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
