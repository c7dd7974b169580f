"""A run in stages: what is carried, and that every place resumes."""

import dataclasses
import shutil
from functools import partial

import numpy as np
import pytest

from jaxrl_reason.data.adaptive_streams import HistoryResampling
from jaxrl_reason.data.pass_rates import with_ids
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.stages import (
    resume_stages,
)
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from tests.rl.helpers import (
    SETTINGS,
    copied,
    first_policy,
)
from tests.rl.stage_helpers import (
    COMMON,
    LAST,
    PROBLEMS,
    assert_same_end,
    go,
    toy_run,
)


@pytest.fixture(scope="module")
def run():
    return toy_run()


@pytest.fixture(scope="module")
def straight(run, tmp_path_factory):
    """The run that nobody stops."""
    ran = go(run, tmp_path_factory.mktemp("straight"))
    ran.state = copied(ran.state)
    return ran


@pytest.fixture
def folder(straight, tmp_path):
    """A copy of the folder that the straight run left."""
    path = tmp_path / "run"
    shutil.copytree(straight.checkpoints.path.parent, path)
    return path


def test_the_straight_run_goes_through_all_stages(straight):
    assert [row["step"] for row in straight.rows] == list(range(1, LAST + 1))
    assert [row["run/stage"] for row in straight.rows] == [1, 1, 1, 2, 2, 3, 3]
    assert straight.progress.stages == [
        ("short", 3, 0),
        ("long", 5, 3),
        ("refreshed", 7, 5),
    ]
    saved = straight.checkpoints
    assert saved.steps() == list(range(1, LAST + 1))
    found = [saved.fingerprint(step)["stage"] for step in (3, 4, 5, 6)]
    assert found == ["short", "long", "long", "refreshed"]
    assert straight.state.step == LAST
    names = [set(row) for row in straight.rows]
    assert [("groups/surplus_dropped" in n) for n in names] == [1, 0, 0, 1, 0, 1, 0]
    assert ["data/problems_pool" in n for n in names] == [1, 1, 1, 0, 0, 0, 0]
    assert ["data/problems_active" in n for n in names] == [0, 0, 0, 1, 1, 1, 1]
    # Far from its reference, until the policy itself becomes it.
    kl = [row["policy/kl"] for row in straight.rows]
    assert kl[5] < kl[4] / 3
    # Groups of the short stage start the long one's first batch.
    surplus = straight.rows[2]["groups/surplus"]
    assert surplus > straight.rows[3]["groups/surplus_dropped"] == 0
    # The limit of the stage.
    assert all(row["rollout/length_max"] <= 4 for row in straight.rows[:3])
    assert max(row["rollout/length_max"] for row in straight.rows[3:]) > 4


def test_the_optimiser_is_carried_unless_a_stage_asks_for_a_fresh_one(straight):
    rates = [row["policy/learning_rate"] for row in straight.rows]
    assert rates == pytest.approx([3e-2] * 3 + [1e-2] * 4)
    updates = SETTINGS.updates_per_rollout
    assert int(straight.state.policy.step) == 2 * updates  # the third stage's alone


def test_no_random_number_is_drawn_twice(straight):
    rollouts = [keys for keys, _ in straight.drawn]
    keys = np.concatenate([k.reshape(-1, k.shape[-1]) for k in rollouts])
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_counting_rollouts_anew_in_a_stage_would_repeat_them(run, straight, folder):
    # Trap 40, kept as a mutant.
    def forget(now):
        return dataclasses.replace(now, state=dataclasses.replace(now.state, draws=0))

    again = go(run, folder, resume=True, step=4, change=forget)
    keys = [k for k, _ in straight.drawn[: -len(again.drawn)] + again.drawn]
    seen = np.concatenate([k.reshape(-1, k.shape[-1]) for k in keys])
    assert len(np.unique(seen, axis=0)) < len(seen)


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_interrupted_anywhere_goes_on_as_the_other(run, straight, tmp_path, stop):
    first = go(run, tmp_path, stop_after=stop, every=100)
    assert first.state.step == stop
    assert first.checkpoints.steps()[-1] == stop
    # An interrupt does not start the next stage.
    stages = 1 + (stop > 3) + (stop > 5)
    assert len(first.progress.stages) == stages
    again = go(run, tmp_path, resume=True)
    assert_same_end(again, straight)


@pytest.mark.parametrize("step", [6, 5, 2])
def test_every_checkpoint_is_a_place_to_go_on_from(run, straight, folder, step):
    assert_same_end(go(run, folder, resume=True, step=step, every=100), straight)


def test_a_finished_run_makes_no_step(run, straight, folder):
    again = go(run, folder, resume=True)
    assert again.drawn == []
    assert again.rows == straight.rows


@pytest.mark.parametrize(
    ("step", "forget"),
    [
        (4, lambda now: now.problems.open(list(range(24)))),
        (4, lambda now: now.problems.set_state(now.problems.get_state() | {
            "source": HistoryResampling(
                with_ids(PROBLEMS, now.problems.get_state()["prepared"]),
                batch_size=4, seed=1,
            ).get_state()
        })),
        (6, lambda now: dataclasses.replace(
            now,
            state=dataclasses.replace(now.state, reference=first_policy().params),
        )),
    ],
    ids=["what was prepared", "the stream's state", "the fresh reference"],
)  # fmt: skip
def test_a_resume_that_forgets_something_would_not(run, straight, folder, step, forget):
    # Trap 40, kept as mutants.
    def change(now):
        changed = forget(now)
        return changed if dataclasses.is_dataclass(changed) else now

    again = go(run, folder, resume=True, step=step, change=change, every=100)
    with pytest.raises(AssertionError):
        assert_same_end(again, straight)


def test_stages_to_come_may_change_and_those_done_may_not(run, folder):
    checkpoints = CheckpointFolder(folder / "checkpoints")
    resume = partial(resume_stages, checkpoints=checkpoints, fingerprint=COMMON, step=4)

    def changed(index, **settings):
        stages = list(run.stages)
        new = dataclasses.replace(stages[index].settings, **settings)
        stages[index] = dataclasses.replace(stages[index], settings=new)
        return dataclasses.replace(run, stages=tuple(stages))

    assert (
        resume(changed(2, max_new_tokens=5), initial_policy=first_policy()).index == 1
    )
    # More rounds may be what a stage without signal needs.
    assert resume(changed(0, max_rounds=99), initial_policy=first_policy()).index == 1
    with pytest.raises(CheckpointError, match=r"short.*saved 4, asked 5"):
        resume(changed(0, max_new_tokens=5), initial_policy=first_policy())
    renamed = tuple(dataclasses.replace(s, name=s.name + "!") for s in run.stages)
    other = dataclasses.replace(run, stages=renamed)
    with pytest.raises(CheckpointError, match="stage: saved long, asked short!"):
        resume(other, initial_policy=first_policy())


def test_a_stage_without_signal_saves_itself_and_not_the_stage_before(run, folder):
    # Its first step fails: the checkpoint of that step number is then the new stage's.
    class Hopeless:
        def __iter__(self):
            return self

        def __next__(self):
            raise NoSignalError("nothing to learn from")

        def get_state(self):
            return {}

        def set_state(self, state):
            pass

    stages = list(run.stages)
    stages[1] = dataclasses.replace(stages[1], problems=lambda ids: Hopeless())
    hopeless = dataclasses.replace(run, stages=tuple(stages))
    with pytest.raises(NoSignalError):
        go(hopeless, folder, resume=True, step=3)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    assert checkpoints.steps()[-1] == 3
    now = resume_stages(hopeless, checkpoints, COMMON, first_policy())
    assert (now.index, now.state.step) == (1, 3)


def damaged(folder, step):
    """The checkpoint of a step, with a file that was cut off."""
    for file in sorted((folder / f"{step:08d}").rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            file.write_bytes(file.read_bytes()[:-1])
    return folder / f"{step:08d}"


@pytest.mark.parametrize("how", ["damaged", "deleted"])
def test_a_damaged_reference_is_made_again_to_the_bit(run, straight, folder, how):
    kept = folder / "checkpoints" / "references"
    before = {x.name: x.read_bytes() for x in (kept / "00000005").rglob("_METADATA")}
    bad = damaged(kept, 5)
    if how == "deleted":
        shutil.rmtree(bad)
    said = r"reference of stage refreshed in .*/00000005 is damaged .*auto makes it"
    with pytest.raises(CheckpointError, match=said):
        go(run, folder, resume=True, step=6)
    assert_same_end(go(run, folder, resume=True, step=6, mend=True), straight)
    assert {x.name: x.read_bytes() for x in bad.rglob("_METADATA")} == before
    assert (kept / "damaged" / "00000005").exists() == (how == "damaged")
    assert_same_end(go(run, folder, resume=True, step=6), straight)


def test_a_damaged_reference_whose_checkpoint_is_gone_is_said(run, folder):
    damaged(folder / "checkpoints" / "references", 5)
    shutil.rmtree(folder / "checkpoints" / "00000005")
    said = r"is damaged .* the checkpoint of step 5, .*, is not kept: go on from an ear"
    with pytest.raises(CheckpointError, match=said):
        go(run, folder, resume=True, step=6, mend=True)
    assert go(run, folder, resume=True, step=4).state.step == LAST
