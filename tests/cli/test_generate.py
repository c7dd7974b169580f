"""A completion as it streams, and the command line around it."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jaxrl_reason.cli.generate import GenerateSettings, encode_prompt
from jaxrl_reason.cli.main import main
from jaxrl_reason.models import Transformer
from jaxrl_reason.pretrained.text_generation import StopFilter, generate_text
from jaxrl_reason.sampler import SamplingSettings, make_sampler, sampling_keys
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from tests.pretrained.tiny import CONFIG, random_params, write_gguf
from tests.text.tokenizer_families import family

NEW, SEED = 30, 3
MODEL, TOKENIZER, PARAMS = Transformer(CONFIG), family("llama3"), random_params()
PROMPT = TOKENIZER.encode_prompt("hi")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return str(write_gguf(folder / "tiny.gguf", PARAMS, TOKENIZER))


def settings(
    eos_token_ids: Sequence[int] = TOKENIZER.eos_token_ids,
) -> SamplingSettings:
    return SamplingSettings(NEW, tuple(eos_token_ids))


@pytest.fixture(scope="module")
def reference() -> list[int]:
    """What the plain sampler draws, without an end."""
    run = make_sampler(MODEL, settings(()), 1)
    keys = sampling_keys(SEED, 0, jnp.zeros(1, jnp.uint32), 1)
    got = run(PARAMS, jnp.asarray([PROMPT]), jnp.asarray([len(PROMPT)]), keys)
    return got.tokens[0].tolist()


def generate(eos_token_ids: Sequence[int], **options: Any) -> tuple[Any, list[str]]:
    pieces: list[str] = []
    done = generate_text(
        MODEL,
        PARAMS,
        TOKENIZER,
        PROMPT,
        settings(eos_token_ids),
        seed=SEED,
        on_text=pieces.append,
        **options,
    )
    return done, pieces


def test_tokens_are_the_plain_sampler_s_and_flow(reference: list[int]) -> None:
    done, pieces = generate(())
    assert list(done.tokens) == reference
    assert done.ended == "length limit"
    assert "".join(pieces) == done.text == TOKENIZER.decode(reference)
    assert len(pieces) > 3
    assert done.first_tokens == 4
    assert 0 < done.first_seconds < done.seconds
    assert done.figures.startswith(f"{NEW} tokens in ")


def test_an_end_token_ends_it_and_is_not_text(reference: list[int]) -> None:
    # One that is an ordinary word, drawn for the first time in the second half.
    at = next(i for i in range(10, NEW) if reference[i] not in reference[:i])
    assert not TOKENIZER.is_control(reference[at])
    done, _ = generate((7, reference[at]))
    assert list(done.tokens) == reference[: at + 1]
    assert done.ended == "EOS token"
    assert done.text == TOKENIZER.decode(reference[:at])


def test_a_stop_string_ends_it_and_is_not_text(reference: list[int]) -> None:
    text = TOKENIZER.decode(reference)
    middle = len(text) // 2
    stop = next(text[i : i + 3] for i in range(middle, len(text)) if text[i].isascii())
    done, pieces = generate((), stop=["never drawn", stop])
    assert done.ended == "stop string"
    assert "".join(pieces) == done.text == text[: text.index(stop)]
    assert list(done.tokens) == reference[: len(done.tokens)]
    assert stop in TOKENIZER.decode(done.tokens)
    assert stop not in TOKENIZER.decode(done.tokens[:-1])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("text", ["aab", "xaabaabay", "xaaay", "abaabb", "ab"])
def test_stop_strings_in_pieces_of_any_size(size: int, text: str) -> None:
    stops = ["aab", "abb", "ay"]
    stream, given = StopFilter(stops), ""
    for start in range(0, len(text), size):
        given += stream.push(text[start : start + size])
        # Only what is part of the text before any stop was given out.
        assert text.startswith(given)
    ends = [text.find(stop) for stop in stops if stop in text]
    assert stream.stopped == bool(ends)
    given += stream.finish()
    assert given == (text[: min(ends)] if ends else text)


@pytest.mark.parametrize("length", [0, 131])
def test_a_prompt_must_fit(length: int) -> None:
    said = rf"must have 1 to 130 tokens .*160.*, got {length}"
    with pytest.raises(ValueError, match=said):
        generate_text(MODEL, PARAMS, TOKENIZER, [5] * length, settings())


def test_prompts_begin_with_bos_once() -> None:
    bos = TOKENIZER.bos_token_id
    for raw in (True, False):
        ids = encode_prompt(TOKENIZER, "<|begin_of_text|>hi<|eot_id|>", raw=raw)
        assert ids[0] == bos
        assert ids.count(bos) == 1
    assert encode_prompt(TOKENIZER, "hi", raw=True) == [bos, *TOKENIZER.encode("hi")]
    chat = TOKENIZER.encode_chat([{"role": "user", "content": "hi"}])
    assert encode_prompt(TOKENIZER, "hi", raw=False) == chat
    bare = TextTokenizer(TOKENIZER.spec, TOKENIZER.special_tokens)
    assert encode_prompt(bare, "hi", raw=True) == PROMPT
    with pytest.raises(ValueError, match=r"must have a chat template.*: --raw"):
        encode_prompt(bare, "hi", raw=False)


def test_the_command_streams_a_prompt_from_its_input(
    gguf_file: str,
    reference: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    options = f"--raw --prompt - --temperature 1 --seed {SEED} --max-new-tokens {NEW}"
    main(["generate", "--model", gguf_file, *options.split()])
    shown = capsys.readouterr()
    ends = [i for i, t in enumerate(reference) if t in TOKENIZER.eos_token_ids] or [NEW]
    assert shown.out == TOKENIZER.decode(reference[: ends[0]]) + "\n"
    assert shown.err.count("\n") == 1
    assert " tokens in " in shown.err


BAD: dict[str, tuple[list[str], str]] = {
    "path": (["--model", "nowhere"], "error: nowhere: there is no such folder"),
    "file": (["--model", __file__], "must be a folder or a .gguf file"),
    "folder": (["--model", str(Path(__file__).parent)], "config.json: the file is"),
    "long": (["--raw", "--max-new-tokens", "160"], "a prompt must have 1 to 0 tokens"),
    "surrogate": (["--prompt", "\udcff"], "error: .*surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_said_in_a_sentence(name: str, gguf_file: str) -> None:
    arguments, said = BAD[name]
    with pytest.raises(SystemExit, match=said) as caught:
        main(["generate", "--model", gguf_file, "--prompt", "hi", *arguments])
    # A text as the code means: printed without a traceback, exit status 1.
    assert str(caught.value).startswith("error: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"stop": ("",)}, {"temperature": -1.0}, {"top_p": 0.0}]
)
def test_settings_are_checked_before_anything_is_read(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* must .*, got"):
        GenerateSettings("model", "prompt", **wrong)


@pytest.mark.skipif(
    "JAXRL_SMOLLM2_GGUF" not in os.environ, reason="JAXRL_SMOLLM2_GGUF names no file"
)
def test_a_real_model_knows_paris(capsys: pytest.CaptureFixture[str]) -> None:
    model = os.environ["JAXRL_SMOLLM2_GGUF"]
    main(["generate", "--model", model, "--prompt", "What is the capital of France?"])
    assert capsys.readouterr().out == "The capital of France is Paris.\n"
