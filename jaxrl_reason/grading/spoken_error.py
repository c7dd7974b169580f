"""An error in a line, for logs and for another process."""

import traceback
from pathlib import Path

_SHOWN = 2000


def spoken_error(error: BaseException) -> str:
    """The error's kind and text, and where it was raised.

    Args:
      error: that was raised.

    Returns:
      A line of text that can be encoded.

    Example:
      >>> spoken_error(ValueError("no"))
      'ValueError: no'
    """
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({Path(x.filename).name}, line {x.lineno})" for x in last)
    kind = type(error).__name__
    try:
        said = f"{kind}: {error}".rstrip(": ")
    except Exception:  # its text is somebody's program, too
        said = kind
    return said[:_SHOWN].encode(errors="replace").decode() + place
