"""A folder for people: the same model again, and a card that says what it is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

import jaxrl_reason
from jaxrl_reason.cli.main import main
from jaxrl_reason.pretrained import model_folder
from jaxrl_reason.pretrained.model_card import (
    Figure,
    ModelCard,
    quote_yaml,
    render_card,
)
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.symbols import SymbolTokenizer
from jaxrl_reason.weights import WeightsError, load_pretrained
from tests.pretrained.tiny import CONFIG, random_params, write_gguf
from tests.text.tokenizer_families import family
from tests.weights.test_folders import same_bits

PARAMS, TOKENIZER = random_params(), family("llama3")
CARD = ModelCard(
    name="Tiny",
    base_model="owner/base",
    license="apache-2.0",
    data="Twelve sums.\n\nAnd one more.",
    recipe="DAPO for 3 steps.",
    summary="Adds | subtracts.",
    figures=(Figure("sums | held out", 0.125, 0.5), Figure("length", None, 40)),
    measured="Greedy, 400 questions.",
    language=("en", "de"),
    tags=("reasoning",),
)
HOSTILE = (
    "a: b",
    "---",
    "x\n---\ny: 1",
    "'\"\\",
    "# no comment",
    "[1, {",
    "no",
    "\u2028\u2029\x85\x7f\x00\x1b\ufeff\U0001f600",
    "&a *b !!python/object:os.system",
    "- - ?",
)


def front_matter(text: str) -> dict[str, Any]:
    """Read as hubs do: what stands between the first two lines of dashes."""
    start, middle, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(middle)


def test_the_folder_is_the_model_again(tmp_path: Path) -> None:
    sampling = SamplingSettings(64, (7, 384), temperature=0.6, top_p=0.95)
    folder = export_model(
        tmp_path / "out", CONFIG, PARAMS, TOKENIZER, CARD, sampling=sampling
    )
    again, tokenizer = load_pretrained(folder), load_tokenizer(folder)
    assert again.config == CONFIG
    assert same_bits(again.params, PARAMS)
    text = "1 + 2 \u2764 <|eot_id|>"
    assert tokenizer.encode_prompt(text) == TOKENIZER.encode_prompt(text)
    chat = [{"role": "user", "content": text}]
    assert tokenizer.encode_chat(chat) == TOKENIZER.encode_chat(chat)
    assert tokenizer.chat_template == TOKENIZER.chat_template
    ends = (*TOKENIZER.eos_token_ids, 7)
    assert tokenizer.eos_token_ids == again.special.eos_token_ids == ends
    assert tokenizer.special_tokens == replace(
        TOKENIZER.special_tokens, eos_token_ids=ends
    )
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": TOKENIZER.bos_token_id,
        "eos_token_id": list(ends),
        "pad_token_id": TOKENIZER.pad_token_id,
        "do_sample": True,
        "max_new_tokens": 64,
        "temperature": 0.6,
        "top_k": 0,
        "top_p": 0.95,
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    shown = (folder / "README.md").read_text("utf-8")
    count = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert f"| parameters | {count:,} in float32 |" in shown
    for name, number in (
        ("jaxrl_reason", jaxrl_reason.__version__),
        ("jax", jax.__version__),
    ):
        assert f"| {name} | {number} |" in shown


def test_the_card_says_it_all() -> None:
    text = render_card(CARD, {}, {})
    assert front_matter(text) == {
        "base_model": "owner/base",
        "license": "apache-2.0",
        "language": ["en", "de"],
        "tags": ["reasoning"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    for part in (CARD.summary, CARD.data, CARD.recipe, CARD.measured):
        assert f"\n\n{part}\n" in text
    assert "\n| sums \\| held out | 0.125 | 0.5 |\n" in text
    assert "\n| length | not measured | 40 |\n" in text
    assert "## Figures" not in render_card(
        replace(CARD, figures=(), measured=""), {}, {}
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_in_yaml(text: str) -> None:
    assert yaml.safe_load(quote_yaml(text)) == text
    assert len(quote_yaml(text).splitlines()) == 1
    card = replace(CARD, tags=(text, "b"), data=text, recipe=text, summary=text)
    made = front_matter(render_card(card, {}, {}))
    assert made["tags"] == [text, "b"]
    assert made.keys() == front_matter(render_card(CARD, {}, {})).keys()


def test_a_base_that_is_no_hub_id_stays_out_of_yaml() -> None:
    for base, said in ((None, "none: trained from random"), ("my: own", "my: own")):
        text = render_card(replace(CARD, base_model=base), {}, {})
        assert "base_model" not in front_matter(text)
        assert f"| base model | {said}" in text


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"name": "two\nlines"}, "name must be one line"),
        ({"name": "two\u2028lines"}, "name must be one line"),
        ({"base_model": "a\n---"}, "base_model must be one line"),
        ({"data": " "}, "data must not be empty"),
        ({"recipe": 7}, "recipe must be text, got 7"),
        ({"summary": "\ud800"}, "summary must not hold half a surrogate"),
        ({"license": "My: Own"}, "license must be an identifier"),
        ({"language": "en"}, "language must be a tuple of words, got 'en'"),
        ({"tags": ("a", "")}, "tags must not hold empty words"),
        ({"measured": ""}, "must come with measured.*got 2 figures and ''"),
        ({"figures": ()}, "got 0 figures and 'Greedy"),
    ],
)
def test_a_card_is_checked_when_it_is_made(wrong: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(CARD, **wrong)


@pytest.mark.parametrize(("name", "after"), [("", 1.0), ("x", float("nan"))])
def test_a_figure_is_checked_when_it_is_made(name: str, after: float) -> None:
    with pytest.raises(ValueError, match="a figure must"):
        Figure(name, None, after)


def test_an_unfinished_folder_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(model_folder, "render_card", full)
    with pytest.raises(OSError, match="no space"):
        export_model(tmp_path, CONFIG, PARAMS, TOKENIZER, CARD)
    with pytest.raises(WeightsError, match=r"config\.json: the file is missing"):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folder must be absent or empty"):
        export_model(tmp_path, CONFIG, PARAMS, TOKENIZER, CARD)


def test_what_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    toy: Any = SymbolTokenizer(3)
    small = replace(CONFIG, vocab_size=385)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((small, PARAMS, TOKENIZER), {}, r"most the model's ids \(385\), got 386"),
        ((CONFIG, PARAMS, toy), {}, "load_tokenizer's, got SymbolTokenizer"),
        ((CONFIG, {}, TOKENIZER), {}, "params must be the model's"),
        ((CONFIG, PARAMS, TOKENIZER), {"dtype": "int8"}, "dtype must be"),
        (
            (CONFIG, PARAMS, TOKENIZER),
            {"sampling": SamplingSettings(4, (), banned_tokens=(3,))},
            "no logit_bias and no banned_tokens",
        ),
        (
            (CONFIG, PARAMS, TOKENIZER),
            {"sampling": SamplingSettings(4, (386,))},
            "eos_token_ids must be below",
        ),
    ]
    for arguments, options, rule in wrong:
        with pytest.raises(ValueError, match=rule):
            export_model(folder, *arguments, CARD, **options)
    assert not folder.exists()


def test_a_gguf_file_becomes_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", PARAMS, TOKENIZER)
    out = tmp_path / "out"
    main(["export", "--model", str(file), "--out", str(out), "--language", "en"])
    assert capsys.readouterr().out == f"written: {out}\n"
    assert same_bits(load_pretrained(out).params, PARAMS)
    inside, again = load_tokenizer(file), load_tokenizer(out)
    assert again.encode_prompt("hi") == inside.encode_prompt("hi")
    assert (again.eos_token_ids, again.chat_template) == (
        inside.eos_token_ids,
        inside.chat_template,
    )
    card = (out / "README.md").read_text("utf-8")
    assert front_matter(card)["license"] == "apache-2.0"
    assert "`tiny.gguf`" in card
    assert str(tmp_path) not in card
    # And that folder another one, of half the size.
    half = tmp_path / "half"
    made = ["export", "--model", str(out), "--out", str(half), "--dtype", "bfloat16"]
    with pytest.raises(SystemExit, match="error: --license must be given"):
        main(made)
    main([*made, "--license", "mit", "--base-model", "owner/tiny"])
    wanted = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), PARAMS)
    assert same_bits(load_pretrained(half, param_dtype="bfloat16").params, wanted)
    assert front_matter((half / "README.md").read_text("utf-8"))["base_model"]
    for bad in (["--model", "nowhere"], ["--out", str(half)]):
        with pytest.raises(SystemExit, match="error: "):
            main([*made, "--license", "mit", *bad])
