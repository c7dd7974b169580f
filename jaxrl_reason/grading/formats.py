"""Tags in a response, in time linear in the text."""

_WHITESPACE = " \t\r\n"


def last_tagged(text: str, tag: str) -> str | None:
    """The text inside the last `<tag>...</tag>`, matched from the left.

    The same as the last match of the regex `<tag>(.*?)</tag>`, without its quadratic
    time on texts with many opening tags.

    Args:
      text: the response.
      tag: the tag's name.

    Returns:
      The text between the tags, or None if there is no such pair.

    Example:
      >>> last_tagged("<answer>1</answer> no: <answer>2</answer>", "answer")
      '2'
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    found = None
    position = 0
    while True:
        start = text.find(opening, position)
        if start < 0:
            return found
        start += len(opening)
        end = text.find(closing, start)
        # No closing tag here means none further on either, so stop searching.
        if end < 0:
            return found
        found = text[start:end]
        position = end + len(closing)


def think_answer_format(text: str, *, opened: bool = True) -> bool:
    """Whether a response is reasoning, then an answer, in tags and nothing else.

    `<think> ... </think> <answer> ... </answer>`, each tag exactly once and in this
    order, with only white space before, between and after. The tags must match exactly;
    empty reasoning is allowed.

    Args:
      text: the response, without the prompt.
      opened: whether the prompt ends with `<think>`; it counts, and the response must
        not open it again.

    Returns:
      True if the format is correct.

    Example:
      >>> think_answer_format("3 + 4 = 7 </think> <answer> 3 + 4 </answer>")
      True
      >>> think_answer_format("<answer> 3 + 4 </answer>")
      False
    """
    if not isinstance(text, str):
        return False
    whole = "<think>" + text if opened else text.strip(_WHITESPACE)
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if any(whole.count(tag) != 1 for tag in tags):
        return False
    if not whole.startswith("<think>"):
        return False
    if not whole.rstrip(_WHITESPACE).endswith("</answer>"):
        return False
    closed, answer = whole.find("</think>"), whole.find("<answer>")
    between = whole[closed + len("</think>") : answer]
    return closed < answer and not between.strip(_WHITESPACE)


def after_reasoning(text: str, opened: bool | None = None) -> str | None:
    """What a response says after its reasoning, `<think> ... </think>`.

    Args:
      text: the response, without the prompt.
      opened: True: the prompt opens the reasoning, so that the response must close it;
        None: it has reasoning if it has one of the two tags; False: the tags are text
        as any other.

    Returns:
      The text after the last `</think>`; None if reasoning is not closed.

    Example:
      >>> after_reasoning("perhaps 9 </think> It is 7.", opened=True)
      ' It is 7.'
      >>> after_reasoning("<think> perhaps 9") is None
      True
      >>> after_reasoning("It is 7.")
      'It is 7.'
    """
    if opened is False:
        return text
    _, closed, rest = text.rpartition("</think>")
    if not closed:
        return None if opened or "<think>" in text else text
    return None if "<think>" in rest else rest
