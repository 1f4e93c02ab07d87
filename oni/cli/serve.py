"""`oni serve`: an annotator that several runs share."""

import argparse
import logging
import sys
from pathlib import Path

from oni.cli._annotator_config import add_config_option, load_annotator_config, report_errors, split_overrides

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
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    add_config_option(parser)
    own, overrides = split_overrides(argv)
    args = parser.parse_args(own)
    config = load_annotator_config(args.config, overrides, prog=PROG)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from llm_annotator.service import serve

    serve(args.store, args.host, args.port, config, on_ready=lambda url: print(url, flush=True))
    return 0


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
