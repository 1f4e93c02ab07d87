"""Errors of oni.

OniError
├── ConfigError       a setting is unknown, has the wrong type or is out of range (exit status 2)
├── RunError          a run directory cannot be used
│   ├── RunExists     it holds another run
│   ├── RunBusy       another process trains in it
│   └── NotARun       it holds no run
└── CheckpointError   no checkpoint can be read
"""


class OniError(Exception):
    """Base of every error that this package raises on purpose. The message says what to do."""


class ConfigError(OniError):
    """A setting is unknown, has the wrong type or is out of range."""


class RunError(OniError):
    """A run directory cannot be used."""


class RunExists(RunError):
    """The directory holds another run."""


class RunBusy(RunError):
    """Another process trains in this directory."""


class NotARun(RunError):
    """The directory holds no run."""


class CheckpointError(OniError):
    """No checkpoint can be read."""
