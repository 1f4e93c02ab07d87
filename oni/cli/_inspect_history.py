"""What `oni inspect --show ID` prints for people: one caption, whole."""

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_annotator.captions import decode_caption, printable
from llm_annotator.store.onecaption import Part
from llm_annotator.store.records import CaptionHistory, StoredAnnotation
from oni.cli._inspect_tables import field_grid, when

SHOWN_ALTERNATIVES = 8
"""Alternatives of the first answer token that are listed; --json gives all."""


def print_history(history: CaptionHistory, parts: Mapping[int, Sequence[Part]], held_by: int, console: Console) -> None:
    """Prints the caption, where it came up, each question with its answer, and what people said.

    parts: from which captions the label of an annotation (its id) was combined. held_by: captions it is a part of.
    """
    console.print(Text(f"Caption {history.caption_id}, first seen {when(history.first_seen_at)}", style="bold"))
    console.print(_indented(printable(decode_caption(history.text))))
    if not _is_utf8(history.text):
        console.print(Text("It is not UTF-8 and shown as latin-1; --json gives its bytes."))
    if held_by:
        console.print(Text(f"Captions that it is a part of: {held_by:,}. Their labels follow from its label."))
    console.print()
    _print_occurrences(history, console)
    _print_overrides(history, console)
    if not history.annotations:
        console.print(Text("No model has been asked about it."))
    for number, annotation in enumerate(history.annotations, start=1):
        its_parts = parts.get(annotation.annotation_id, ())
        _print_annotation(annotation, its_parts, f"Annotation {number} of {len(history.annotations)}", console)


def _print_occurrences(history: CaptionHistory, console: Console) -> None:
    if not history.occurrences:
        console.print(Text("It has come up in no run.\n"))
        return
    table = Table(
        "Run", "Name", "Count", "Episodes", "First step", "Last step", "Reward", box=SIMPLE_HEAD, pad_edge=False
    )
    for item in history.occurrences:
        episodes = "-" if item.episode_count is None else f"{item.episode_count:,}"
        steps = (f"{item.first_step:,}", f"{item.last_step:,}")
        cells = (item.run_id, item.run_name, f"{item.count:,}", episodes, *steps, f"{item.reward_sum:.6g}")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(Text("Where it came up", style="bold"))
    console.print(table)


def _print_overrides(history: CaptionHistory, console: Console) -> None:
    if not history.overrides:
        return
    table = Table("ID", "Label", "By", "When", "Taken back", "Labeler", "Note", box=SIMPLE_HEAD, pad_edge=False)
    for item in history.overrides:
        label = "muted" if item.muted else "helpful" if item.helpful else "unhelpful"
        revoked = "-" if item.revoked_at is None else when(item.revoked_at)
        cells = (str(item.override_id), label, item.author, when(item.created_at), revoked, item.labeler_id, item.note)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(Text("Overruled by hand", style="bold"))
    console.print(table)


def _print_annotation(annotation: StoredAnnotation, parts: Sequence[Part], title: str, console: Console) -> None:
    heading = f"{title}, {when(annotation.created_at)}"
    console.print(Text(heading + (", its label counts" if annotation.in_force else ""), style="bold"))
    console.print(Padding(field_grid(_fields(annotation)), (0, 0, 0, 2)))
    if parts:
        _print_parts(parts, console)
        return
    console.print(Text("  Prompt, exactly as sent", style="bold"))
    console.print(_indented(printable(annotation.prompt, keep_lines=True)))
    if annotation.answer is not None:
        console.print(Text("  Answer", style="bold"))
        console.print(_indented(printable(annotation.answer, keep_lines=True)))
    console.print()


def _print_parts(parts: Sequence[Part], console: Console) -> None:
    table = Table("ID", "Label", "P", "Part", box=SIMPLE_HEAD, pad_edge=False)
    for part in parts:
        label = {None: "-" if part.status is None else part.status.value, True: "helpful", False: "unhelpful"}
        probability = "-" if part.p_helpful is None else f"{part.p_helpful:.2f}"
        text = Text(printable(decode_caption(part.text)), overflow="fold")
        table.add_row(str(part.caption_id), label[part.helpful], probability, text)
    console.print(Text("  Asked by parts (`--show ID` tells how each was answered)", style="bold"))
    console.print(Padding(table, (0, 0, 0, 2)))


def _fields(annotation: StoredAnnotation) -> dict[str, str]:
    label = annotation.status.value
    if annotation.helpful is not None:
        label = "helpful" if annotation.helpful else "unhelpful"
    fields = {"Label": label}
    if annotation.detail:
        fields["Why no label" if annotation.helpful is None else "Why"] = printable(annotation.detail)
    if annotation.p_helpful is not None:
        fields["P(helpful)"] = f"{annotation.p_helpful:.4f}"
    if annotation.score is not None:
        fields["Score"] = f"{annotation.score:+.3f} nats"
    fields["Model"] = f"{printable(annotation.model)} ({annotation.backend})"
    fields["Labeler"] = annotation.labeler_id
    if annotation.tokens_in is not None or annotation.tokens_out is not None:
        fields["Tokens"] = f"{_count(annotation.tokens_in)} in, {_count(annotation.tokens_out)} out"
    if annotation.latency_s is not None:
        fields["Latency"] = f"{annotation.latency_s:.3f} s"
    fields["Requests"] = str(annotation.attempts)
    if annotation.logprobs:
        best = sorted(annotation.logprobs.items(), key=lambda item: -item[1])[:SHOWN_ALTERNATIVES]
        fields["First token"] = ", ".join(f"{printable(token)!r} {math.exp(value):.4f}" for token, value in best)
    return fields


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _indented(text: str) -> Padding:
    return Padding(Text(text, overflow="fold"), (0, 0, 0, 4))


def _is_utf8(caption: bytes) -> bool:
    try:
        caption.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
