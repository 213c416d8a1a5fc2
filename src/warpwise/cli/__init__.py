"""The command line: one file a verb. Only typer is imported until a verb runs."""

import _thread
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Any, NoReturn

from warpwise.errors import InputError, WarpwiseError
from warpwise.extras import missing_from, refusal

STOPPED = 130  # the shell's code for Ctrl-C; typer turns the interrupt into an exit with it
MESSAGE = "Stopped. No result was written; what was there before is as it was."


def main() -> None:
    """Run `warpwise`; exit code 0, 1 (the run failed), 2 (bad input or usage) or 130 (Ctrl-C)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)
    sys.exit(execute(sys.argv[1:]))


def interrupted(_: int, __: FrameType | None) -> NoReturn:
    """Stop at Ctrl-C, and let no half-made object (of the compiler, say) complain while it is thrown away."""
    sys.unraisablehook = again
    raise KeyboardInterrupt


def again(what: "sys.UnraisableHookArgs") -> None:
    """An interrupt that came within a destructor or a callback, where Python drops it, comes anew when that is over."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        timer = threading.Timer(0.02, interrupt)
        timer.daemon = True
        timer.start()


def interrupt() -> None:
    """Ctrl-C for the main thread, whatever it waits for."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def execute(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    import typer

    from warpwise.cli.app import app

    # Newer typer carries a click of its own; BadParameter < UsageError < ClickException in either.
    usage_error: Any = typer.BadParameter.__mro__[2]

    debug = "--debug" in arguments
    try:
        code = app([a for a in arguments if a != "--debug"], prog_name="warpwise", standalone_mode=False)
        if code == STOPPED:
            print(MESSAGE, file=sys.stderr)
        return int(code) if isinstance(code, int) else 0
    except typer.Exit as stop:
        return int(stop.exit_code)
    except usage_error as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print(MESSAGE, file=sys.stderr)
        return STOPPED
    except WarpwiseError as error:
        if debug:
            traceback.print_exc()
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = missing_from(error)
        if package is None:
            raise
        print(f"Error: {refusal(package, what='This')}", file=sys.stderr)
        return InputError.exit_code
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
