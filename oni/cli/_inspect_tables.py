"""The tables of `oni inspect`. Whatever a game or a model wrote is shown as text and never obeyed."""

import sys
from collections.abc import Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_annotator.captions import decode_caption, printable
from llm_annotator.store.records import LabelerRow, RunRow
from oni.cli._inspect_query import Overview, RankedCaption, label_word

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""
MAX_CAPTION_CHARS = 300
"""Characters of a caption in a table; --show and --json give it whole."""

COLUMNS = ("ID", "Reward", "Share", "So far", "Count", "Episodes", "First step", "Last step", "Label", "P")
NARROW_COLUMNS = ("ID", "Reward", "So far", "Count", "Label", "P")
WIDE = 120
"""Columns of a terminal that shows `COLUMNS`, with room for the caption; a narrower one shows `NARROW_COLUMNS`."""

LABEL_STYLES = {"helpful": "green", "unhelpful": "dim", "unparsed": "yellow", "failed": "red", "unlabelled": "cyan"}

_ORDER_WORDS = {
    "reward": "by intrinsic reward earned",
    "count": "by how often they came up",
    "label": "helpful ones first, the highest score first",
    "newest": "newest first",
}


def make_console() -> Console:
    """Returns a console on stdout. What its encoding cannot write comes out as escapes."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def when(seconds: float) -> str:
    """Returns a moment, given in seconds since 1970, in local time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def field_grid(fields: dict[str, str]) -> Table:
    """Returns names and values, one a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def print_overview(found: Overview, console: Console) -> None:
    """Prints totals and the list of captions."""
    console.print(field_grid(_summary(found)))
    if found.run is None and len(found.runs) > 1:
        console.print(Text("\nCounted over all runs of this store; --run-id ID for one of them:"))
        console.print(_runs_table(found.runs))
    if len(found.labelers) > 1:
        console.print(Text("\nLabels are those of the labeler above; --labeler ID for another:"))
        console.print(_labelers_table(found.labelers))
    console.print()
    if not found.captions:
        console.print(Text("No caption has come up yet." if not found.totals.seen else "No caption fits."))
        return
    shown = len(found.captions)
    some = f"{shown:,} of {found.matching:,} captions" if shown < found.matching else f"{shown:,} captions"
    console.print(Text(f"{some}, {_ORDER_WORDS[found.query.sort]}", style="bold"))
    wide = console.width >= WIDE
    console.print(_captions_table(found, COLUMNS if wide else NARROW_COLUMNS))
    hints = ["--show ID tells the whole history of a caption."]
    if any(item.row.source == "human" for item in found.captions):
        hints.append("* labelled by hand.")
    if not wide:
        hints.append(f"A terminal of {WIDE} columns shows more.")
    console.print(Text(" ".join(hints)))


def _summary(found: Overview) -> dict[str, str]:
    totals, cost, labeler = found.totals, found.cost, found.labeler
    fields = {"Store": printable(str(found.store))}
    run = found.run or (found.runs[0] if len(found.runs) == 1 else None)
    if run is not None:
        fields["Run"] = f"{printable(run.name)} (id {run.run_id}), since {when(run.created_at)}"
    if labeler is not None:
        fields["Goal"] = printable(str(labeler.spec.get("goal", "?")))
        fields["Labeler"] = f"{labeler.labeler_id}, model {printable(labeler.model)}"
    fields["Captions"] = (
        f"{totals.seen:,} seen, {totals.labelled:,} labelled ({totals.helpful:,} helpful, {totals.unhelpful:,} "
        f"unhelpful, {totals.overruled:,} by hand), {totals.unparsed:,} unparsed, {totals.failed:,} failed, "
        f"{totals.unlabelled:,} unlabelled"
    )
    if cost.comparisons:
        fields["Comparisons"] = f"{cost.comparisons:,} of ordered pairs, listed by --preferences"
    fields["Earned"] = f"{_reward(totals.reward_sum)} intrinsic reward"
    mean = "" if cost.latency_s is None else f", {cost.latency_s:.3f} s an answer"
    fields["Cost"] = (
        f"{cost.annotations:,} annotations, {cost.tokens_in:,} tokens in, {cost.tokens_out:,} tokens out{mean}"
    )
    return fields


def _captions_table(found: Overview, columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name == "Label" else "right", no_wrap=True)
    table.add_column("Caption", overflow="fold", min_width=20)
    for item in found.captions:
        cells = _caption_cells(item)
        table.add_row(*(cells[name] for name in columns), caption_text(item.row.text))
    return table


def _caption_cells(item: RankedCaption) -> dict[str, Text]:
    row = item.row
    numbers = {
        "ID": str(row.caption_id),
        "Reward": _reward(row.reward_sum),
        "Share": _percent(item.share),
        "So far": _percent(item.cumulative_share),
        "Count": short_number(row.count),
        "Episodes": short_number(row.episode_count),
        "First step": short_number(row.first_step),
        "Last step": short_number(row.last_step),
        "P": "-" if row.p_helpful is None else f"{row.p_helpful:.2f}",
    }
    cells = {name: Text(number) for name, number in numbers.items()}
    word = label_word(row)
    cells["Label"] = Text(f"{word}*" if row.source == "human" else word, style=LABEL_STYLES[word])
    return cells


def caption_text(caption: bytes) -> Text:
    """Returns a caption for a cell of a table, cut if it is long."""
    text = printable(decode_caption(caption))
    return Text(text if len(text) <= MAX_CAPTION_CHARS else text[: MAX_CAPTION_CHARS - 3] + "...")


def _runs_table(runs: Sequence[RunRow]) -> Table:
    table = Table("ID", "Name", "Since", "Captions", "Goal", box=SIMPLE_HEAD, pad_edge=False)
    for run in runs:
        cells = (run.run_id, run.name, when(run.created_at), f"{run.captions:,}", run.goal)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _labelers_table(labelers: Sequence[LabelerRow]) -> Table:
    table = Table("ID", "Model", "Since", "Labelled", "Helpful", "Goal", box=SIMPLE_HEAD, pad_edge=False)
    for item in labelers:
        goal = str(item.spec.get("goal", "?"))
        cells = (item.labeler_id, item.model, when(item.created_at), f"{item.labelled:,}", f"{item.helpful:,}", goal)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def short_number(number: int | None) -> str:
    """Returns a count in a few characters: 950, 12.3k, 4.56M; "-" for None."""
    if number is None:
        return "-"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}{unit}"
    return str(number)


def _reward(reward: float) -> str:
    return f"{reward:,.1f}" if abs(reward) >= 100 else f"{reward:.3g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
