"""The error of reading and writing weights."""


class WeightsError(ValueError):
    """A file of weights is missing, damaged, hostile or of an unsupported model.

    The message names the file, the tensor or field, and what was expected and found.
    """
