"""The command line: one file a verb. Only typer is imported until a verb runs."""

import os
import sys
import traceback

from warpwise.errors import WarpwiseError


def main() -> None:
    """Run `warpwise`; exit code 0, 1 (the run failed), 2 (bad input or usage) or 130 (Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    from click.exceptions import Abort, ClickException, Exit

    from warpwise.cli.app import app

    debug = "--debug" in arguments
    try:
        code = app([a for a in arguments if a != "--debug"], prog_name="warpwise", standalone_mode=False)
        return int(code) if isinstance(code, int) else 0
    except Exit as stop:
        return stop.exit_code
    except ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        print("Stopped. Nothing was written.", file=sys.stderr)
        return 130
    except WarpwiseError as error:
        if debug:
            traceback.print_exc()
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        print("Error: memory ran out.", file=sys.stderr)
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"Error: {error.filename or 'output'}: {error.strerror or error}.", file=sys.stderr)
        return 1
