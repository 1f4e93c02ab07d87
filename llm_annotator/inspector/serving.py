"""The pages in a process of their own, for one person at this machine: `oni inspect RUN`."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from llm_annotator.access import Guard
from llm_annotator.inspector.app import PREFIX, inspector_routes
from llm_annotator.inspector.mending import make_mending
from llm_annotator.listening import listen, serve_app
from llm_annotator.person import login_name
from llm_annotator.store.reading import Reading

if TYPE_CHECKING:
    from llm_annotator.askagain import AskAgain

HOST = "127.0.0.1"


def serve_pages(
    store: Path,
    *,
    run_dir: Path | None,
    port: int,
    on_ready: Callable[[str], None],
    asking: "AskAgain | None" = None,
) -> None:
    """Serves the pages about a store on loopback until SIGTERM or SIGINT.

    port: 0 takes a free one. on_ready: called with the address of the pages once they can be opened.
    asking: what asks an LLM again about a caption, None if none can be reached from here.

    Raises:
        StoreError: the store cannot be read. PortInUse, ServiceError: the address cannot be had.
    """
    Reading(store).close()  # what cannot be read at all is said now
    guard = Guard(None, loopback_only=True)
    mending = make_mending(store, author=login_name(), asking=asking)
    app = Starlette(routes=inspector_routes(store, run_dir=run_dir, guard=guard, mending=mending))
    with listen(HOST, port) as listener:
        asyncio.run(serve_app(app, listener, on_ready=lambda url: on_ready(f"{url}{PREFIX}/"), on_stop=lambda: None))
