"""`oni override`: a person's word on one caption, or its taking back."""

import argparse
import contextlib
import json
from typing import Any

from llm_annotator.captions import decode_caption, printable
from llm_annotator.errors import StoreError
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import CaptionHistory
from llm_annotator.store.writer import Store
from oni.cli._store_choice import Choice, add_choice, add_word, choose
from oni.errors import ConfigError

UNDO = "undo"

_IDS_END = 2**63
"""Ids are less."""

_VERDICTS = {"yes": (True, False), "no": (False, False), "mute": (False, True)}
"""Helpful or not, muted or not."""

EPILOG = """examples:
  oni override runs/NAME 12 no --note "a trap"       caption 12 (`oni inspect RUN --text` lists them) is not helpful
  oni override runs/NAME "You eat the key." mute     it earns nothing, whatever the reward model makes of it
  oni override runs/NAME 12 undo                     what was said last is taken back; what counted before counts again

Works while the run goes on, which learns it within seconds. What the LLM said is kept: `oni inspect RUN --show ID`.
"""


def main(argv: list[str]) -> int:
    """Overrules, or takes back, and prints what counts now; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, caption, run or labeler of that name, nothing to take back, or it cannot be written.
        ConfigError: a word that this labeler does not take.
    """
    args = _parser().parse_args(argv)
    chosen = choose(args)
    with StoreReader(chosen.store) as reader:
        history = reader.history(_find(reader, args.caption))
    if args.word == UNDO:
        _undo(chosen, history)
    else:
        _override(chosen, history, args)
    _report(chosen, history, as_json=args.json)
    return 0


def _find(reader: StoreReader, caption: str) -> int:
    if caption.isdecimal() and int(caption) < _IDS_END:
        with contextlib.suppress(StoreError):
            return reader.history(int(caption)).caption_id
    found = reader.find(caption.encode("utf-8", "surrogateescape"))
    if found is None:
        raise StoreError(
            f"{reader.path} holds no caption {printable(caption)!r}: give its whole text, or its id, which "
            "`oni inspect RUN --search TEXT` tells"
        )
    return found


def _override(chosen: Choice, history: CaptionHistory, args: argparse.Namespace) -> None:
    helpful, muted = _VERDICTS[args.word]
    if chosen.labeler.spec.get("question", "label") != "label" and not muted:
        raise ConfigError(
            f"labeler {chosen.labeler.labeler_id} compares captions and calls none helpful: a caption can only be muted"
        )
    with Store(chosen.store) as store:
        store.override(
            history.text,
            chosen.labeler.labeler_id,
            helpful=helpful,
            muted=muted,
            note=args.note,
            author=args.author,
        )


def _undo(chosen: Choice, history: CaptionHistory) -> None:
    labeler_id = chosen.labeler.labeler_id
    standing = [item for item in history.overrides if item.labeler_id == labeler_id and item.revoked_at is None]
    if not standing:
        raise StoreError(f"nobody has overruled labeler {labeler_id} on caption {history.caption_id}: nothing to undo")
    with Store(chosen.store) as store:
        store.revoke_override(standing[-1].override_id)


def _report(chosen: Choice, history: CaptionHistory, *, as_json: bool) -> None:
    labeler_id = chosen.labeler.labeler_id
    with Store(chosen.store) as store:
        (label,) = store.labels_of(labeler_id, [history.caption_id])
    assert label is not None  # there was an override at least
    word = "no label" if label.helpful is None else "helpful" if label.helpful else "unhelpful"
    document: dict[str, Any] = {
        "schema": 1,
        "caption_id": history.caption_id,
        "labeler_id": labeler_id,
        "label": "muted" if label.muted else word,
        "source": label.source,
    }
    if as_json:
        print(json.dumps(document))
        return
    by = (
        "by hand"
        if label.source == "human"
        else "as the LLM said"
        if label.helpful is not None
        else "the LLM gave none"
    )
    shown = printable(decode_caption(history.text))
    print(f"caption {history.caption_id} ({shown}): {document['label']}, {by}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni override",
        description="Overrules the LLM on one caption.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_choice(parser)
    parser.add_argument("caption", metavar="CAPTION", help="its id, or its whole text")
    parser.add_argument("word", choices=[*_VERDICTS, UNDO], help="helpful, unhelpful, earns nothing, or take that back")
    add_word(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser
