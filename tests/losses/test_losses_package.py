"""The package as others meet it: names, signatures, examples, imports, docs."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import jax.numpy as jnp
import pytest

import jaxrl_reason.losses as lib
from tests.losses.battery_pairs import PAIR_LOSSES
from tests.losses.every_loss import LOSSES
from tests.losses.worked import EXAMPLES

# Fixed for other people's code: positional arguments, then keyword-only ones.
SIGNATURES = {
    "batch_counts": "mask, group_ids=None, *, num_groups=None",
    "token_mean": "x, mask, counts",
    "sequence_mean": "x, mask, counts",
    "sequence_sum_mean": "x, mask, counts",
    "fixed_length_mean": "x, mask, counts, *, length",
    "prompt_mean": "x, mask, group_ids, counts, *, num_groups",
    "token_logprobs": "logits, tokens, *, temperature=1.0",
    "token_entropy": "logits, *, temperature=1.0",
    "chunked_logprobs": (
        "hidden, unembed, tokens, *, temperature=1.0, chunk_size=1024, vocab_size=None"
    ),
    "discounted_returns": "rewards, mask, *, gamma=1.0, bootstrap=None",
    "gae": "rewards, values, mask, *, gamma=1.0, lam=1.0, bootstrap=None",
    "grpo_advantages": (
        "rewards, group_ids, *, num_groups, ddof=1, eps=1e-06, valid=None"
    ),
    "dr_grpo_advantages": "rewards, group_ids, *, num_groups, valid=None",
    "rloo_advantages": "rewards, group_ids, *, num_groups, valid=None",
    "group_signal": "rewards, group_ids, *, num_groups, valid=None",
    "clipped_surrogate": (
        "logprobs, old_logprobs, advantages, mask, *, "
        "clip_low=0.2, clip_high=0.2, dual_clip=None"
    ),
    "policy_gradient": "logprobs, advantages, mask",
    "kl_penalty": (
        "logprobs, ref_logprobs, mask, *, "
        "estimator='k3', gradient=None, old_logprobs=None"
    ),
    "kl_k1": "logprobs, ref_logprobs",
    "kl_k2": "logprobs, ref_logprobs",
    "kl_k3": "logprobs, ref_logprobs",
    "kl_in_reward": ("rewards, logprobs, ref_logprobs, mask, *, coef, estimator='k1'"),
    "value_loss": "values, old_values, returns, mask, *, clip=None",
    "nll": "logprobs, mask",
    "soft_overlong_penalty": "lengths, *, max_length, cache_length",
    "overlong_mask": "mask, truncated",
    "length_adaptive_lambda": "lengths, *, alpha=0.05",
    "opo_advantages": "rewards, lengths, group_ids, *, num_groups, valid=None",
    "remax_advantages": "rewards, greedy_rewards, *, valid=None",
    "reinforce_pp_advantages": ("token_rewards, mask, *, gamma=1.0, ddof=1, eps=1e-08"),
    "gpg_advantages": "rewards, group_ids, *, num_groups, valid=None",
    "gspo": (
        "logprobs, old_logprobs, advantages, mask, *, clip_low=0.0003, clip_high=0.0004"
    ),
    "dpo_loss": (
        "policy_chosen, policy_rejected, ref_chosen, ref_rejected, *, "
        "beta=0.1, label_smoothing=0.0, valid=None, num_pairs=None"
    ),
    "adaptive_kl_update": "coef, kl, *, target, horizon, num_samples",
}
# Names fixed for other people's code whose settings are the library's own choice.
NAMES = [
    "cispo",
    "gmpo",
    "sapo",
    "kl_cov",
    "clip_cov",
    "importance_weights",
    "masked_importance_weights",
    "reinforce_pp_baseline_advantages",
    "gdpo_advantages",
    "gspo_loss",
    "cispo_loss",
    "gpg_loss",
    "reinforce_loss",
    "vapo_loss",
    "cosine_length_reward",
    "repetition_penalty",
    "adaptive_entropy_update",
    "ipo_loss",
    "simpo_loss",
    "orpo_loss",
    "nca_loss",
    "implicit_process_rewards",
    "pairwise_ranking_loss",
    "prover_rewards",
    "verifier_loss",
    "pcgrad",
    "mgda_weights",
    "dwa_weights",
    "uncertainty_weighting",
    "pass_at_k",
    "majority_at_k",
    "avg_at_k",
    "pdr",
    "asp",
]
ROOT = Path(lib.__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "losses").rglob("*.md"))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_kept(name: str) -> None:
    signature = inspect.signature(getattr(lib, name))
    bare = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in signature.parameters.values()
    ]
    assert str(inspect.Signature(bare)) == f"({SIGNATURES[name]})"


FUNCTIONS = [n for n in lib.__all__ if n != "Counts"]
ARRAYS = ["logprobs", "old_logprobs", "advantages", "mask", "counts"]
METHODS = [
    n
    for n in FUNCTIONS
    if list(inspect.signature(getattr(lib, n)).parameters)[:5] == ARRAYS
]


# Keyword arguments of every published policy loss, with their defaults.
OPTIONAL_TERMS = {
    "ref_logprobs": None,
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_gradient": None,
    "entropy": None,
    "entropy_coef": 0.0,
    "weights": None,
}


def test_all_methods_are_found() -> None:
    """Every policy loss takes the five arrays first; a new one is found by itself."""
    losses = {n: getattr(lib, n).__module__ for n in FUNCTIONS if n.endswith("_loss")}
    assert set(METHODS) == {n for n, module in losses.items() if ".policy." in module}
    assert len(METHODS) >= 14


@pytest.mark.parametrize("name", METHODS)
def test_methods_write_out_their_keywords(name: str) -> None:
    parameters = inspect.signature(getattr(lib, name)).parameters
    kinds = [p.kind for p in parameters.values()]
    assert kinds[5:] == [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 5)
    described = inspect.signature(lib.ppo_loss).parameters
    for term, default in OPTIONAL_TERMS.items():
        # GRPO's own: left out, it depends on whether there is a reference.
        if (name, term) != ("grpo_loss", "kl_coef"):
            assert parameters[term] == described[term]
            assert parameters[term].default == default


@pytest.mark.parametrize("name", METHODS)
def test_methods_refuse_unknown_keywords(name: str) -> None:
    message = rf"^{name}\(\) got an unexpected keyword argument 'clip_hi'"
    with pytest.raises(TypeError, match=message):
        getattr(lib, name)(clip_hi=0.3)


@pytest.mark.parametrize("name", METHODS)
def test_methods_name_all_arguments_in_their_docstrings(name: str) -> None:
    function = getattr(lib, name)
    arguments = (
        inspect.getdoc(function).partition("\nArgs:")[2].partition("\nReturns:")[0]
    )
    documented = re.findall(
        r"\w+", " ".join(re.findall(r"(?m)^  (\w[\w, ]*):", arguments))
    )
    assert set(inspect.signature(function).parameters) <= set(documented)


def test_a_loss_is_read_in_three_files() -> None:
    """A call of `dapo_loss` on arrays passes through few functions of the package."""
    folder = str(Path(lib.__file__).parent)
    arrays = (jnp.log(jnp.full((2, 2), 0.5)),) * 2
    mask, advantages = jnp.array([[1, 1], [1, 0]]), jnp.array([1.0, -1.0])
    counts = lib.batch_counts(mask)
    seen = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        lib.dapo_loss(*arrays, advantages, mask, counts)
    finally:
        sys.setprofile(None)
    assert len(seen) <= 10
    assert len({file for file, _ in seen}) <= 3


def test_all_names_are_exported() -> None:
    assert {*SIGNATURES, *NAMES} <= set(lib.__all__)
    assert lib.__all__ == sorted(lib.__all__)
    for name in lib.__all__:
        assert getattr(lib, name).__module__.startswith("jaxrl_reason.losses.")


def test_no_loss_is_left_out_of_the_batteries() -> None:
    listed = " ".join(case.name for case in [*LOSSES, *PAIR_LOSSES])
    losses = [n for n in lib.__all__ if n.endswith("_loss")]
    objectives = [
        "clipped_surrogate",
        "policy_gradient",
        "gspo",
        "gmpo",
        "cispo",
        "sapo",
        "dppo",
        "vespo",
        "log_ratio_pull",
        "kl_cov",
        "clip_cov",
        "kl_penalty",
        "nll",
        "dft",
    ]
    words = set(listed.replace(",", " ").split())
    assert [n for n in [*losses, *objectives] if n not in words] == []


def test_the_bare_name_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import losses"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "jaxrl_reason.losses" in done.stderr.splitlines()[-1]


def sections(function: Callable) -> list[str]:
    lines = inspect.getdoc(function).splitlines()
    return [line[:-1] for line in lines if line.endswith(":") and line[:1].isupper()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_docstring_says_what_it_must(name: str) -> None:
    function = getattr(lib, name)
    found = [
        s for s in sections(function) if s in ("Args", "Returns", "Raises", "Example")
    ]
    assert found == ["Args", "Returns", "Raises", "Example"]


def test_every_trap_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "losses" / "traps.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if "::" in line]
    assert [int(row[0]) for row in rows] == [*range(1, 24), *range(45, 50)]
    for *_, tests, mutant in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named
        assert mutant.strip()
        for file, name in named:
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            assert name in {n.name for n in tree.body if hasattr(n, "name")}


def test_every_name_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in lib.__all__ if f"`{name}`" not in text] == []


def test_the_worked_numbers_are_the_shared_ones(shared_file: Callable) -> None:
    shared = json.loads(shared_file("reference/worked_examples.json").read_text())
    assert {name: shared[name] for name in EXAMPLES} == EXAMPLES
