"""How far two who labelled the same captions agree. Pure functions of four counts."""

import math
from typing import NamedTuple

Z_95 = 1.959963984540054
"""Standard normal deviate of a two-sided 95% interval."""


class Counts(NamedTuple):
    """Captions that both labelled, by what the first and the second said."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self)


def agreement(counts: Counts) -> float | None:
    """Returns the share of captions on which they agree; None without any."""
    return (counts.both + counts.neither) / counts.total if counts.total else None


def kappa(counts: Counts) -> float | None:
    """Returns Cohen's kappa, agreement beyond that of chance: 1 is full agreement, 0 no more than chance gives.

    None without captions, or where chance alone gives full agreement: both always say the same word.
    Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    share, chance = agreement(counts), _chance(counts)
    return None if share is None or chance == 1.0 else (share - chance) / (1.0 - chance)


def kappa_interval(counts: Counts, *, z: float = Z_95) -> tuple[float, float] | None:
    """Returns an interval that holds the kappa of all captions with 95% confidence, within [-1, 1]; None as `kappa`.

    From the large-sample standard error of Fleiss, Cohen and Everitt, "Large sample standard errors of kappa and
    weighted kappa", 1969, which is 0 at full agreement. There, and wherever it reaches further down, the lower end is
    the kappa of the lower end of Wilson's interval of the share of agreement, chance taken as it is.
    """
    value, share, chance = kappa(counts), agreement(counts), _chance(counts)
    if value is None or share is None:
        return None
    half = z * _standard_error(counts, value, chance)
    n = counts.total
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    wilson = centre - z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = min(value - half, (wilson - chance) / (1.0 - chance))
    return max(low, -1.0), min(value + half, 1.0)


def _standard_error(counts: Counts, value: float, chance: float) -> float:
    n = counts.total
    both, only_first, only_second, neither = (count / n for count in counts)
    first, second = both + only_first, both + only_second
    rest = 1.0 - value
    agreeing = both * (1 - (first + second) * rest) ** 2 + neither * (1 - (2 - first - second) * rest) ** 2
    # Of a caption that only the first calls helpful: the share that the second does, and that the first does not.
    apart = only_first * (second + 1 - first) ** 2 + only_second * (1 - second + first) ** 2
    variance = agreeing + rest**2 * apart - (value - chance * rest) ** 2
    return math.sqrt(max(variance, 0.0) / n) / (1.0 - chance)


def _chance(counts: Counts) -> float:
    """Returns how often they would agree if each said its words at random, as often as it does; 1 without captions."""
    if not counts.total:
        return 1.0
    first = (counts.both + counts.only_first) / counts.total
    second = (counts.both + counts.only_second) / counts.total
    return first * second + (1.0 - first) * (1.0 - second)
