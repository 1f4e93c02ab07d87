"""Messages about a name that does not exist."""

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, names: Iterable[str], *, hint: str = "") -> str:
    """Returns a sentence that names what is wrong, the nearest name, and all names.

    Example: `there is no goal 'minigird': did you mean 'minigrid'? There are: doorkey, minigrid`.
    """
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f": did you mean {near[0]!r}?" if near else "."
    listing = f"There are: {', '.join(known)}" if known else "There are none"
    return f"there is no {kind} {name!r}{guess} {listing}{hint}"
