"""Checking the settings of an annotator before anything starts."""

from llm_annotator.addresses import endpoint_configs
from llm_annotator.backends import create_backend
from llm_annotator.budget import check_budget
from llm_annotator.config import AnnotatorConfig


def check_settings(config: AnnotatorConfig) -> None:
    """Sees that there is such a backend, for each of the servers, and that the budgets can be kept.

    Raises:
        ConfigError: what cannot be used, and what to do about it.
    """
    for backend in endpoint_configs(config.backend).values():
        create_backend(backend)
    check_budget(config.engine, config.backend)
