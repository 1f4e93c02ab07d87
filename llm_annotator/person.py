"""Who sits at this machine."""

import getpass


def login_name() -> str:
    """Returns the name by which the person at this machine is logged in; empty if there is none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
