"""The one error of reading and writing weights."""


class WeightsError(ValueError):
    """A file of weights is missing, damaged, hostile or of a model that is not built.

    The message names the file, the tensor or field, and what was expected and found.
    """
