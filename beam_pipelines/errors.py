"""Errors that a user can act on, and how a main reports them."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right: an input, a flag or a config.

    The message is one line that says what is wrong, where, what was received and what to do.
    """


def require(condition: bool, message: str) -> None:
    """Raises UserError with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def one_line(error: BaseException) -> str:
    """The error's type and first line: a reason that fits into one cell of a table."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def exit_with(main: Callable[[], None]) -> None:
    """Runs `main` and turns UserError into one line on stderr and exit code 2.

    Any other exception is a defect of the program and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
