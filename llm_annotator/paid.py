"""Asking in the foreground that obeys the budgets of a store, as its service does."""

import asyncio
from types import TracebackType
from typing import Self

from llm_annotator.backends.base import Backend
from llm_annotator.budget import Budget
from llm_annotator.errors import BackendError, BudgetUsedUp
from llm_annotator.types import Completion, Request


class PaidBackend:
    """An open backend, each question to which is paid for out of a budget."""

    def __init__(self, backend: Backend, budget: Budget) -> None:
        self.name, self.model, self.max_concurrent = backend.name, backend.model, backend.max_concurrent
        self._backend, self._budget = backend, budget
        self._ended = asyncio.Event()  # set, and replaced, when a question has ended

    async def complete(self, request: Request) -> Completion:
        """Asks once; waits for the questions under way where nobody can say what those will leave of the budget.

        Raises:
            BudgetUsedUp: nothing was asked. BackendError
        """
        budget = self._budget
        while not budget.is_open:
            if budget.exhausted:
                raise BudgetUsedUp(f"{budget.exhausted} is used up: raise it to go on")
            await self._ended.wait()
        budget.begin()
        try:
            completion = await self._backend.complete(request)
        except BackendError as error:
            budget.fail(request, error)
            raise
        except BaseException:
            budget.end(request, None)
            raise
        else:
            budget.end(request, completion)
            return completion
        finally:
            self._ended.set()
            self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the backend to whoever opened it."""
