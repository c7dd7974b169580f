"""Errors of libraries that read files, the panics of those in Rust among them."""


def is_of_library(error: BaseException) -> bool:
    """Whether an error is one of reading and not a wish to stop.

    A panic of a library in Rust arrives as a PanicException of pyo3, which is no
    `Exception`, so that `except Exception` lets it pass.

    Args:
      error: anything that was raised.

    Example:
      >>> is_of_library(OSError()), is_of_library(KeyboardInterrupt())
      (True, False)
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
