"""The addresses of the servers of one model."""

from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from llm_annotator.config import BackendConfig
from llm_annotator.errors import ConfigError


def endpoint_configs(config: BackendConfig) -> dict[str, BackendConfig]:
    """Returns the settings of each server by its name, as if it were the only one.

    Raises:
        ConfigError: both `base_url` and `endpoints` are set, or an address comes twice.
    """
    if not config.endpoints:
        return {_shown(config.base_url) if config.base_url else config.kind: config}
    if config.base_url:
        raise ConfigError(
            f"backend.base_url ({_shown(config.base_url)}) and backend.endpoints are both set: put all addresses "
            "into backend.endpoints"
        )
    configs = {_shown(url): replace(config, base_url=url, endpoints=()) for url in config.endpoints}
    if len(configs) < len(config.endpoints):
        raise ConfigError(f"backend.endpoints names an address twice: {', '.join(map(_shown, config.endpoints))}")
    return configs


def _shown(url: str) -> str:
    """Returns an address without what is secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no address)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
