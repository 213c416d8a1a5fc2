"""Every error that a user can meet, each with a message and a hint."""


class WarpwiseError(Exception):
    """Base of all errors raised on purpose; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(WarpwiseError, ValueError):
    """Something given cannot be used; raised before any work or output (exit code 2)."""

    exit_code = 2


class RunError(WarpwiseError, RuntimeError):
    """A run failed although its input was in order (exit code 1)."""
