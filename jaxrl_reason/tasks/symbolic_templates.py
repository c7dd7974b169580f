"""Word problems as templates: names, numbers, steps that may follow, idle sentences."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """A word problem with symbols in braces.

    Expressions have + - * / and brackets, and symbols of numbers; "{x}" is the value so
    far. `{name}` and `{friend}` are drawn from first names.

    Attributes:
      story: the sentences without the question.
      question: the last sentence.
      answer: an expression.
      numbers: symbol -> the smallest and the largest number and the step between.
      words: symbol -> words to choose from.
      more: further sentences of the story, each with the expression that the value then
        has; they make the problem longer, in this order.
      idle: a sentence with a number that does not matter.
    """

    story: str
    question: str
    answer: str
    numbers: dict[str, tuple[int, int, int]]
    words: dict[str, tuple[str, ...]]
    more: tuple[tuple[str, str], ...]
    idle: str


TEMPLATES = (
    Template(
        "{name} picks {a} {fruit} on {day}. On the next day {name} picks {k} times as "
        "many.",
        "How many {fruit} does {name} have in the end?",
        "{a} + {a} * {k}",
        {"a": (5, 60, 1), "k": (2, 5, 1), "b": (2, 40, 1), "c": (2, 6, 1)},
        {
            "fruit": ("apples", "pears", "plums", "figs"),
            "day": ("Friday", "Monday", "Sunday"),
        },
        (
            ("Then {name} gives {b} of them to {friend}.", "{x} - {b}"),
            (
                "The rest goes into {c} baskets with equally many {fruit}, and {name} "
                "keeps one basket.",
                "{x} / {c}",
            ),
        ),
        "{i} of the {fruit} are a little smaller than the others.",
    ),
    Template(
        "A {shop} sells {thing} for ${p} each. {name} buys {a} of them and pays with "
        "${m}.",
        "How many dollars does {name} have left?",
        "{m} - {a} * {p}",
        {"p": (2, 12, 1), "a": (2, 15, 1), "m": (50, 300, 10), "b": (3, 40, 1)},
        {
            "shop": ("bakery", "market", "kiosk"),
            "thing": ("pies", "candles", "notebooks"),
        },
        (
            ("{friend} then gives {name} another ${b}.", "{x} + {b}"),
            ("{name} puts half of the money into a savings box.", "{x} / 2"),
        ),
        "Last year one of the {thing} cost ${i} less.",
    ),
    Template(
        "{name} reads {a} pages of a {book} every day for {d} days. The {book} has {t} "
        "pages.",
        "How many pages are left?",
        "{t} - {a} * {d}",
        {"a": (5, 40, 1), "d": (2, 14, 1), "t": (120, 600, 5), "b": (5, 30, 1)},
        {"book": ("novel", "biography", "travel book")},
        (
            ("On one more day {name} reads {b} pages.", "{x} - {b}"),
            ("{name} then skips a third of what is left.", "{x} * 2 / 3"),
        ),
        "{i} of the pages have a picture.",
    ),
    Template(
        "{n} {people} share a table. Each of them folds {a} paper {shape} in an hour. "
        "They work for {h} hours.",
        "How many paper {shape} are there in the end?",
        "{n} * {a} * {h}",
        {"n": (2, 9, 1), "a": (3, 20, 1), "h": (2, 6, 1), "b": (2, 30, 1)},
        {
            "people": ("children", "students", "neighbours"),
            "shape": ("cranes", "stars", "boats"),
        },
        (
            ("Of these, {b} get wet and are thrown away.", "{x} - {b}"),
            ("{name} brings as many again.", "{x} * 2"),
        ),
        "The table is {i} centimetres high.",
    ),
    Template(
        "A {vehicle} drives {a} kilometres in an hour. It drives for {h} hours, and "
        "then {b} kilometres more on a small road.",
        "How many kilometres does it drive in all?",
        "{a} * {h} + {b}",
        {"a": (30, 110, 5), "h": (2, 9, 1), "b": (3, 60, 1), "c": (10, 200, 10)},
        {"vehicle": ("bus", "van", "lorry")},
        (
            ("It returns by a road that is as long.", "{x} * 2"),
            ("In the evening it drives another {c} kilometres.", "{x} + {c}"),
        ),
        "The {vehicle} has {i} seats.",
    ),
    Template(
        "{name} has {a} {coins} and {friend} has {b} fewer. They put them together and "
        "make {k} equal piles.",
        "How many {coins} are in one pile?",
        "({a} + {a} - {b}) / {k}",
        {"a": (20, 90, 1), "b": (1, 19, 1), "k": (2, 6, 1), "c": (2, 9, 1)},
        {"coins": ("coins", "marbles", "stamps", "shells")},
        (
            ("Then {name} adds {c} {coins} to each pile.", "{x} + {c}"),
            ("After that each pile is trebled.", "{x} * 3"),
        ),
        "{i} of the {coins} are older than {name}.",
    ),
    Template(
        "A {place} has {r} rows of {s} seats. {p} percent of the seats are taken.",
        "How many seats are taken?",
        "{r} * {s} * {p} / 100",
        {"r": (5, 40, 1), "s": (6, 40, 2), "p": (10, 90, 10), "b": (3, 40, 1)},
        {"place": ("cinema", "theatre", "lecture hall")},
        (
            ("Then {b} more people sit down.", "{x} + {b}"),
            ("In the break half of them leave.", "{x} / 2"),
        ),
        "The first row is {i} metres from the stage.",
    ),
    Template(
        "{name} earns ${w} an hour. In a week {name} works {d} days of {h} hours and "
        "spends ${c} on {need}.",
        "How many dollars does {name} have then?",
        "{w} * {d} * {h} - {c}",
        {"w": (11, 40, 1), "d": (2, 6, 1), "h": (3, 9, 1), "c": (20, 200, 5)},
        {"need": ("food", "books", "tickets")},
        (
            ("A friend owes {name} as much as was spent, and pays.", "{x} + {c}"),
            ("{name} gives a tenth to {friend}.", "{x} * 9 / 10"),
        ),
        "On the way to work {name} passes {i} bridges.",
    ),
)
