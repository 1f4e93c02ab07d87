"""Errors of the environments.

EnvError
├── UnknownEnv       no environment has that id
├── EnvUnavailable   its library is not installed
└── EnvContractError an environment breaks the contract (raised by `envs.testing`)
"""


class EnvError(Exception):
    """Base of every error that this package raises on purpose. The message says what to do."""


class UnknownEnv(EnvError):
    """No environment has that id."""


class EnvUnavailable(EnvError):
    """The library that the environment comes from is not installed."""


class EnvContractError(EnvError):
    """An environment breaks the contract of `envs.types`; the message names the rule and the value."""
