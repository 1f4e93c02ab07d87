"""Keys and tokens: read once, never shown."""

from llm_annotator.errors import ConfigError


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
