"""Keys and tokens: read once, never shown."""

import os
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

from llm_annotator.config import BackendConfig
from llm_annotator.errors import ConfigError

BLOTTED = "***"
"""What stands in the place of a secret."""


def clean_secret(text: str | None, name: str) -> str | None:
    """Returns a key or token as it can stand in an HTTP header: without white space around it, None if it is empty.

    Files and shells like to add a line end to what they hold.

    Raises:
        ConfigError: it holds a character that no header takes. The message gives `name`, never the secret.
    """
    secret = (text or "").strip()
    if not secret.isascii() or any(char.isspace() or not char.isprintable() for char in secret):
        raise ConfigError(f"{name} holds characters that no key can have")
    return secret or None


def backend_secrets(config: BackendConfig) -> tuple[str, ...]:
    """Returns what a backend is told that nobody else may see: the API key, and passwords in addresses."""
    secrets = {os.environ.get(config.api_key_env, "").strip()}
    for url in filter(None, (config.base_url, *config.endpoints)):
        try:
            password = urlsplit(url).password or ""
        except ValueError:
            continue  # no address: whoever uses it says so
        secrets |= {password, unquote(password)}
    return tuple(secrets - {""})


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Returns a function that blots secrets out of a text: servers like to repeat a key that they refuse."""
    longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, BLOTTED)
        return text

    return redact
