"""MiniHack: small levels of NetHack, each a task."""
