"""What asking may cost: requests, tokens and money of a store, and how fast they may be spent."""

from collections.abc import Callable
from dataclasses import dataclass

from llm_annotator.config import BackendConfig, EngineConfig
from llm_annotator.errors import BackendError, ConfigError
from llm_annotator.store.spending import Spent
from llm_annotator.types import Completion, Request

CHARS_PER_TOKEN = 4
"""Of English text, about; for servers that do not count, and for what is under way."""

NOTHING = Spent()

PER_MILLION = 1e-6
"""Prices are those of a million tokens."""


@dataclass(frozen=True)
class _Limit:
    """One of the budgets. unit: what is counted. setting: where its size is set."""

    unit: str
    setting: str
    most: float

    def say(self) -> str:
        return f"the budget of {self.most:g} {self.unit} (engine.{self.setting})"


class Budget:
    """Counts what is spent and says when to stop asking.

    Requests under way are counted as the requests before them came out on average, so that many in flight do not pass
    the limit by more than chance.

    spent: what this store's questions have cost before.

    Raises:
        ConfigError: a limit of money, and no prices.
    """

    def __init__(self, engine: EngineConfig, backend: BackendConfig, spent: Spent = NOTHING) -> None:
        check_budget(engine, backend)
        self._price_in = (backend.price_in or 0.0) * PER_MILLION
        self._price_out = (backend.price_out or 0.0) * PER_MILLION
        self.priced = backend.price_in is not None or backend.price_out is not None
        """Whether it is known what tokens cost."""
        self._limits: dict[str, _Limit] = {}
        if engine.max_requests is not None:
            self._limits["requests"] = _Limit("requests", "max_requests", engine.max_requests)
        if engine.max_tokens is not None:
            self._limits["tokens"] = _Limit("tokens", "max_tokens", engine.max_tokens)
        if engine.max_cost is not None:
            self._limits["cost"] = _Limit("money", "max_cost", engine.max_cost)
        self.spent = spent
        """All that was spent on this store."""
        self._unsaved = Spent()
        self._answered = Spent()  # of this process: what an answered request takes
        self._under_way = 0

    def begin(self) -> None:
        """Counts a request that goes out, or is about to."""
        self._under_way += 1
        self._add(Spent(requests=1))

    def give_up(self) -> None:
        """Takes a request back that did not go out, or came to nothing."""
        self._under_way -= 1
        self._add(Spent(requests=-1))

    def end(self, request: Request, completion: Completion | None) -> Spent:
        """Counts what a request took, now that it has ended; returns its tokens and their price."""
        self._under_way -= 1
        if completion is None:
            return Spent()
        tokens_in, tokens_out = completion.tokens_in, completion.tokens_out
        if tokens_in is None:
            tokens_in = (len(request.text_prefix) + len(request.text_suffix)) // CHARS_PER_TOKEN
        if tokens_out is None:
            tokens_out = max(1, len(completion.text) // CHARS_PER_TOKEN)
        cost = tokens_in * self._price_in + tokens_out * self._price_out
        spent = Spent(0, tokens_in, tokens_out, cost)
        self._add(spent)
        self._answered = self._answered.plus(spent._replace(requests=1))
        return spent

    def fail(self, request: Request, error: BackendError) -> None:
        """Counts a request that got no answer, now that it has ended; it costs nothing if nobody took it up."""
        if error.may_cost:
            self.end(request, None)
        else:
            self.give_up()

    @property
    def ended(self) -> Spent:
        """What was spent on this store, without the requests under way, which may yet come to nothing."""
        return self.spent._replace(requests=self.spent.requests - self._under_way)

    @property
    def is_open(self) -> bool:
        """Whether another request may go out now."""
        if self._under_way and self._is_unknown:
            return False  # nobody can say what those under way will come to
        return all(self._ahead(name, self._under_way + 1) <= limit.most for name, limit in self._limits.items())

    @property
    def exhausted(self) -> str:
        """Which budget is used up, in words; empty while a request may go out, be it after those under way."""
        for name, limit in self._limits.items():
            if self._ahead(name, 1) > limit.most:
                return limit.say()
        return ""

    @property
    def left(self) -> dict[str, float]:
        """What is left of each budget: "requests", "tokens", "cost"."""
        return {name: max(0.0, limit.most - _of(self.spent, name)) for name, limit in self._limits.items()}

    @property
    def left_share(self) -> float | None:
        """The smallest share that is left of a budget, from 0 to 1; None if there is no limit."""
        shares = [left / self._limits[name].most for name, left in self.left.items()]
        return min(shares, default=None)

    def take_unsaved(self) -> Spent:
        """Returns what was spent since the last call."""
        unsaved, self._unsaved = self._unsaved, Spent()
        return unsaved

    def give_back(self, unsaved: Spent) -> None:
        """Takes back what could not be saved."""
        self._unsaved = self._unsaved.plus(unsaved)

    def saved(self, total: Spent) -> None:
        """Takes note of the account of the store, to which others add too: commands, and people who ask again."""
        self.spent = total.plus(self._unsaved)

    def _add(self, spent: Spent) -> None:
        self.spent = self.spent.plus(spent)
        self._unsaved = self._unsaved.plus(spent)

    @property
    def _is_unknown(self) -> bool:
        """Whether a limit counts what is known of no request yet."""
        nothing_ended = self._answered.requests == self.ended.requests == 0
        return nothing_ended and bool(self._limits.keys() - {"requests"})

    def _ahead(self, name: str, requests: int) -> float:
        """Returns what will be spent once so many requests have ended, those under way among them."""
        if name == "requests":
            return self.ended.requests + requests
        known = self._answered if self._answered.requests else self.spent
        return _of(self.spent, name) + requests * _of(known, name) / max(1, known.requests)


def _of(spent: Spent, name: str) -> float:
    return spent.tokens_in + spent.tokens_out if name == "tokens" else getattr(spent, name)


def check_budget(engine: EngineConfig, backend: BackendConfig) -> None:
    """Checks that the budgets can be kept.

    Raises:
        ConfigError: a limit of money, and no prices.
    """
    if engine.max_cost is not None and (backend.price_in is None or backend.price_out is None):
        raise ConfigError(
            f"engine.max_cost ({engine.max_cost:g}) needs the prices of a million tokens: set "
            "annotator.backend.price_in and annotator.backend.price_out (0 where nothing is charged)"
        )


class Pace:
    """Spreads requests and tokens over time.

    requests_per_minute, tokens_per_minute: None for no limit. A second's worth may go out at once. Tokens are charged
    when they are known, so that a limit of tokens is kept on average.
    """

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, *, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._rates = {"requests": (requests_per_minute or 0.0) / 60.0, "tokens": (tokens_per_minute or 0.0) / 60.0}
        self._debts = dict.fromkeys(self._rates, 0.0)
        self._at = clock()

    def charge(self, *, requests: int = 0, tokens: int = 0) -> None:
        """Counts what went out or was answered."""
        self._settle()
        self._debts["requests"] += requests
        self._debts["tokens"] += tokens

    def delay_s(self) -> float:
        """Returns the seconds until another request may go out."""
        self._settle()
        delays = [(self._debts[name] + 1.0 - max(rate, 1.0)) / rate for name, rate in self._rates.items() if rate > 0]
        return max(0.0, *delays) if delays else 0.0

    def _settle(self) -> None:
        now = self._clock()
        for name, rate in self._rates.items():
            self._debts[name] = max(0.0, self._debts[name] - rate * (now - self._at))
        self._at = now
