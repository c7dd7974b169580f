"""Laws over the losses of other libraries: adapters, the faults they find, the matrix.

The checkouts here are small ones of our own, with the names that the adapters look for:
once with a fault and once without.
"""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from experiments.conformance import peer_losses
from experiments.conformance.extract import Missing, functions_of, version_of
from jaxrl_reason.testing.case import Law
from jaxrl_reason.testing.check import Verdict

ROLL_FUNCTIONS = """
import does_not_exist

def masked_mean(x, mask, dim=None):
    return (x * mask).sum(dim) / mask.sum(dim).clamp(min=1)

def masked_sum(x, mask, dim=None):
    return (x * mask).sum(dim)

@does_not_exist.registered
def agg_loss(
    loss_mat, loss_mask, loss_agg_mode, batch_num_tokens=None, global_valid_samples=None
) -> does_not_exist.Tensor:
    if loss_agg_mode == "token-mean":
        return SUM / batch_num_tokens.clamp(min=1)
    if loss_agg_mode == "seq-mean-token-sum":
        return masked_sum(loss_mat, loss_mask) / global_valid_samples.clamp(min=1)
    rows = masked_mean(loss_mat, loss_mask, dim=-1)
    return rows.sum() / global_valid_samples.clamp(min=1)
"""
ROLL_WORKER = """
class ActorPGWorker(does_not_exist.Worker):
    def _compute_ppo_loss(self, ratio, advantages, mask, tokens, samples):
        low = 1 - self.pipeline_config.pg_clip_low
        high = 1 + self.pipeline_config.pg_clip_high
        return -torch.min(ratio * advantages, ratio.clamp(low, high) * advantages)
"""
FAULTY, MENDED = "loss_mat.sum()", "(loss_mat * loss_mask).sum()"


def roll(folder: Path, total: str) -> Path:
    files = {
        "roll/utils/functionals.py": ROLL_FUNCTIONS.replace("SUM", total),
        "roll/pipeline/rlvr/actor_pg_worker.py": ROLL_WORKER,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def adapters() -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed: the extra is torch")
    return importlib.import_module("experiments.conformance.adapters")


def broken_in(library: peer_losses.Library, name: str) -> set[str]:
    found = {x.law.name for x in library.losses[name] if x.holds is False}
    return found - set(peer_losses.CALLERS)


@pytest.mark.parametrize(("total", "broken"), [(FAULTY, {"holes"}), (MENDED, set())])
def test_an_unmasked_token_mean_is_found(
    adapters: ModuleType, tmp_path: Path, total: str, broken: set[str]
) -> None:
    checkout = roll(tmp_path, total)
    found = peer_losses.look_at(
        "ROLL", version_of(checkout), adapters.roll_losses(checkout)
    )
    assert broken_in(found, "ppo, token-mean") == broken
    assert broken_in(found, "ppo, seq-mean-token-mean") == set()
    assert found.version == "no commit"


def test_advantages_that_count_zero_rewards_are_moved_by_a_constant() -> None:
    def by_zeros(rewards, groups):
        alpha = len(rewards) / max((rewards != 0).sum(), 1)
        return alpha * centred(rewards, groups)

    def centred(rewards, groups):
        means = [rewards[groups == group].mean() for group in groups]
        return rewards - means

    assert peer_losses.shift(by_zeros) > 0.1
    assert peer_losses.shift(centred) < 1e-6


def test_functions_leave_the_package_where_it_is(tmp_path: Path) -> None:
    path = roll(tmp_path, FAULTY) / "roll" / "utils" / "functionals.py"
    known = {"torch": None}
    total, mean = functions_of(path, ["masked_sum", "masked_mean"], known)
    assert total.__name__ == "masked_sum"
    assert known["masked_mean"] is mean
    with pytest.raises(Missing, match="must have gone, and has not"):
        functions_of(path, ["gone"], {})
    with pytest.raises(Missing, match="must be a file of the checkout"):
        functions_of(tmp_path / "gone.py", ["gone"], {})
    worker = tmp_path / "roll" / "pipeline" / "rlvr" / "actor_pg_worker.py"
    method = functions_of(worker, ["ActorPGWorker._compute_ppo_loss"], {})
    assert method.__name__ == "_compute_ppo_loss"


def test_the_matrix_tells_whose_a_fault_is() -> None:
    def verdict(name: str, holds: bool) -> Verdict:
        return Verdict(Law(name, "must hold", lambda case: None), holds, "got 1 for 2")

    laws = [verdict("padding", False), verdict("garbage", False), verdict("nan", True)]
    library = peer_losses.Library("one", "1.0", {"ppo": laws}, {"gpg": 0.5})
    lines = peer_losses.table([library]).splitlines()
    assert lines[0] == "Laws that hold for all: `nan`."
    assert lines[2] == "| loss | padding | garbage |"
    assert lines[5] == "| ppo | **×** | × |"
    assert lines[-1] == "| one | gpg | 0.5 |"
    assert "| one | ppo | padding | got 1 for 2 |" in peer_losses.details([library])
    assert "garbage" not in peer_losses.details([library])


def test_the_page_has_a_place_for_the_matrix(root: Path) -> None:
    text = (root / "docs" / "conformance.md").read_text(encoding="utf-8")
    table = text.split(peer_losses.START)[1].split(peer_losses.END)[0]
    for library in ("TRL", "verl", "OpenRLHF", "NeMo-RL", "ROLL", "slime"):
        assert f"| **{library}** (" in table
