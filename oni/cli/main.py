"""Finds the subcommand and turns errors into words."""

import importlib
import keyword
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "train": "train a policy, or go on with a run (--resume)",
    "eval": "play episodes with a trained policy: success and return with confidence intervals",
    "inspect": "see what was annotated, how it was answered and what it earned",
    "label": "label captions given by hand: try a prompt or a backend; --evaluate measures it",
    "relabel": "ask another goal, prompt or LLM about the captions of a run, and see how far the two agree",
    "override": "say what a caption is, or mute it, in place of the LLM; undo takes that back",
    "export": "write annotations or preferences into a file: JSON lines, CSV or Parquet",
    "import": "bring labels out of a file",
    "distill": "learn a reward model from stored annotations, to train with it frozen (reward.kind offline)",
    "envs": "list families of environments; `oni envs list FAMILY` names them, `oni envs check ID` checks one",
    "backends": "list LLM backends; `oni backends check` asks one",
    "serve": "run an annotator that several runs share",
    "salvage": "keep what is good in a damaged store of annotations",
}

EXIT_FAILED = 1
EXIT_USAGE = 2


def usage() -> str:
    """Returns the help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  oni {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "usage: oni COMMAND ...\n\n" + "\n".join(lines) + "\n\n`oni COMMAND --help` tells the options of one."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `oni`; returns 0 for done, 1 for failed, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else EXIT_USAGE
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        from importlib.metadata import version

        print(version("oni-jax"))
        return 0
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean `oni {near[0]}`?" if near else ""
        print(f"oni: no command {name!r}{hint}\n\n{usage()}", file=sys.stderr)
        return EXIT_USAGE
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    # a user's own environment or backend may be a module in the current folder; last, so that it hides nothing
    sys.path.append(str(Path.cwd()))

    from llm_annotator.errors import AnnotatorError
    from llm_annotator.errors import ConfigError as AnnotatorConfigError
    from oni.errors import ConfigError, OniError

    module = importlib.import_module(f"oni.cli.{name}_" if keyword.iskeyword(name) else f"oni.cli.{name}")
    try:
        return module.main(arguments)
    except (ConfigError, AnnotatorConfigError) as error:
        print(f"oni {name}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (OniError, AnnotatorError) as error:
        print(f"oni {name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"oni {name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
