"""One page that holds everything, to send to somebody: no other file, no network, and nothing that it could reach."""

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from llm_annotator.inspector.captionpage import caption_view
from llm_annotator.inspector.liststate import ListState
from llm_annotator.inspector.metricsfile import MetricsFile
from llm_annotator.inspector.overview import overview
from llm_annotator.inspector.scope import find_scope
from llm_annotator.inspector.site import make_templates, static_file
from llm_annotator.store.listing import CaptionFilter, list_captions
from llm_annotator.store.reading import Reading

MAX_MOMENTS = 20
"""Captions, those that earned most, of which a replay is in the page: one has some ten kilobytes."""


def export_page(store: Path, *, run_dir: Path | None, limit: int, parameters: Mapping[str, str]) -> str:
    """Returns one page of HTML: the overview, the `limit` captions that earned most, and all about each of them.

    run_dir: directory of the run whose figures are shown, None where there is none.
    parameters: `run` and `labeler`, whole ids; by default all runs, and the newest run's labeler.

    Raises:
        StoreError: the store cannot be read. NotFound: no such run or labeler.
    """
    style, script = (static_file(name).decode("utf-8") for name in ("style.css", "app.js"))
    with Reading(store) as reading, reading.snapshot():
        scope = find_scope(reading, parameters)
        curves = None if run_dir is None else MetricsFile(run_dir / "metrics.jsonl").read()
        view = overview(reading, scope, curves, ListState())
        wanted = CaptionFilter(run_id=scope.run_id, labeler_id=scope.labeler_id, score_run=scope.score_run)
        listing = list_captions(reading, wanted, limit=limit)
        captions = [caption_view(reading, scope, item.row.caption_id, "") for item in listing.captions]
    captions[MAX_MOMENTS:] = [replace(item, replay=None) for item in captions[MAX_MOMENTS:]]
    included = {item.history.caption_id for item in captions}

    def link_to(caption_id: int) -> str:
        return f"#c{caption_id}" if caption_id in included else ""

    context: dict[str, Any] = {
        "source": (run_dir or store).name,
        "now": time.time(),
        "goes_on": False,
        "mends": False,
        "scope": scope,
        "state": ListState(),
        "view": view,
        "listed": listing.captions,
        "captions": captions,
        "matching": listing.matching,
        "list_url": "",
        "link_to": link_to,
        "policy": _policy(style, script),
        "style": Markup(style),  # noqa: S704 - a file of ours
        "script": Markup(script),  # noqa: S704 - likewise
    }
    return make_templates().get_template("export.html").render(context)


def _policy(style: str, script: str) -> str:
    """Returns what the page may do: use its own style and script, and show the pictures that it holds."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'; "
        "img-src data:; form-action 'none'; base-uri 'none'"
    )
