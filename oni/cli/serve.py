"""`oni serve`: an annotator that several runs share."""

import argparse
import logging
import sys
from pathlib import Path

from oni.cli._annotator_config import add_config_option, load_annotator_config, report_errors, split_overrides
from oni.cli._arguments import port_number

PROG = "oni serve"
DEFAULT_PORT = 8765


def main(argv: list[str]) -> int:
    """Serves until it is interrupted. Returns the exit status."""
    return report_errors(PROG, lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(PROG, description="Serves an annotator for several runs.", allow_abbrev=False)
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("annotations.sqlite"),
        help="SQLite file of all labels (default: %(default)s)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port", type=port_number, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    add_config_option(parser)
    own, overrides = split_overrides(argv)
    args = parser.parse_args(own)
    config = load_annotator_config(args.config, overrides, prog=PROG)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from llm_annotator.service import serve

    def on_ready(url: str) -> None:
        print(url, flush=True)
        print(f"Pages for people: {url}/inspect/ Ctrl-C ends the annotator.", file=sys.stderr)

    serve(args.store, args.host, args.port, config, on_ready=on_ready)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
