"""Runs in stages: what is carried, what is dropped, and that every place resumes."""

import dataclasses
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl_reason.data.adaptive_streams import EasyPoolStream, HistoryResampling
from jaxrl_reason.data.pass_rates import with_ids
from jaxrl_reason.data.strategies import hard_set, not_solved
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.pass_rate_filter import (
    keep_by_pass_rate,
    measure_pass_rates,
    pass_rates,
)
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_learner import RLState, init_rl_state
from jaxrl_reason.rl.rl_loop import tell_source
from jaxrl_reason.rl.rollouts import concatenate
from jaxrl_reason.rl.stage_parts import Stage, build_stages
from jaxrl_reason.rl.stages import (
    begin_stage,
    carry_models,
    fit_surplus,
    resume_stages,
    train_stages,
)
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics import MetricsLog, read_metrics, truncate_after
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    EndlessProblems,
    LuckyTask,
    Toy,
    copied,
    fake_rollouts,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
    toy_dapo,
)

LAST = 7
PROBLEMS = [Toy(i) for i in range(24)]
COMMON = {"model": "tiny"}
CLOCK = ("time/", "_per_s")


class Progress:
    """Keeps what a bar would show."""

    def __init__(self):
        self.steps, self.stages = [], []

    def stage(self, name, total, start):
        self.stages.append((name, total, start))

    def update(self, step, row):
        self.steps.append(step)


def toy_method(**switches):
    """DAPO with a KL to a reference, so that one compiled update serves two stages."""
    method = toy_dapo(**switches)
    return dataclasses.replace(
        method,
        loss=partial(method.loss, kl_coef=0.1),
        loss_inputs=(*method.loss_inputs, "ref_logprobs"),
    )


def toy_stages():
    """Three stages: other limit, other data and stream, other method and reference."""
    slower = dataclasses.replace(OPTIMIZER, learning_rate=1e-2)
    short = dataclasses.replace(SETTINGS, max_new_tokens=4, steps=3)
    full = dataclasses.replace(SETTINGS, steps=2)
    return (
        Stage(
            name="short",
            settings=short,
            method=toy_method(),
            optimizer=OPTIMIZER,
            problems=lambda _: EasyPoolStream(PROBLEMS, batch_size=4, seed=0),
        ),
        Stage(
            name="long",
            settings=full,
            method=toy_method(),
            optimizer=slower,
            problems=lambda ids: HistoryResampling(
                with_ids(PROBLEMS, ids), batch_size=4, seed=1
            ),
            prepare=keep_by_pass_rate(PROBLEMS, not_solved),
        ),
        Stage(
            name="refreshed",
            settings=full,
            method=toy_method(dynamic_sampling=False),
            optimizer=slower,
            problems=lambda _: HistoryResampling(PROBLEMS, batch_size=4, seed=2),
            fresh_optimizer=True,
            fresh_reference=True,
        ),
    )


@pytest.fixture(scope="module")
def run():
    run = build_stages(tiny_model(), LuckyTask(), toy_stages(), one_device())
    # The last two stages have the same shapes: compile them once.
    short, long, last = run.learner
    last = dataclasses.replace(
        last, sample=long.sample, score=long.score, update=long.update
    )
    return dataclasses.replace(run, learner=(short, long, last))


@dataclasses.dataclass
class Ran:
    state: object
    rows: list
    drawn: list  # (keys, tokens) of every rollout, evaluations included
    progress: Progress
    checkpoints: CheckpointFolder


def listening(run, drawn):
    """The run with samplers that keep what they were asked and what they gave."""

    def sampler(learner):
        def sample(params, prompts, lengths, keys):
            done = learner.sample(params, prompts, lengths, keys)
            # A copy: the array's buffer may be used again.
            drawn.append((np.array(jax.random.key_data(keys)), np.array(done.tokens)))
            return done

        return dataclasses.replace(learner, sample=sample)

    return dataclasses.replace(run, learner=tuple(map(sampler, run.learner)))


def go(run, path, *, stop_after=None, resume=False, step=None, change=None, every=1):
    """What a process does: starts or goes on, until the end or an interrupt."""
    progress, drawn = Progress(), []
    run = listening(run, drawn)
    checkpoints = CheckpointFolder(path / "checkpoints", keep=9)
    now = None
    if resume:
        now = resume_stages(run, checkpoints, COMMON, first_policy(), step)
        truncate_after(path / "metrics.jsonl", now.state.step)
        if change is not None:
            now = change(now)
    interrupt = SimpleNamespace(requested=False)
    if stop_after is not None:
        update = progress.update

        def stop(step, row):
            update(step, row)
            interrupt.requested = step >= stop_after

        progress.update = stop
    with MetricsLog(path, tensorboard=False) as log:
        hooks = Hooks(log, checkpoints, COMMON, progress, interrupt, every)
        state = train_stages(run, first_policy(), hooks, now)
    rows = [
        {k: v for k, v in row.items() if not any(word in k for word in CLOCK)}
        for row in read_metrics(path / "metrics.jsonl")
    ]
    return Ran(state, rows, drawn, progress, checkpoints)


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


def assert_same_end(ran, straight):
    assert ran.rows == straight.rows
    assert same_trees(ran.state, straight.state)
    tail = straight.drawn[len(straight.drawn) - len(ran.drawn) :]
    for one, other in zip(ran.drawn, tail, strict=True):
        assert same_trees(one, other)


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


# Models of a stage.


def staged(*methods, **more):
    stages = [
        Stage(f"{i}", SETTINGS, method, OPTIMIZER, lambda _: EndlessProblems(4), **more)
        for i, method in enumerate(methods)
    ]
    return build_stages(tiny_model(), LuckyTask(), stages, one_device())


def after(run, policy=None, **more):
    """The state at the end of a first stage that moved everything by 1."""
    start = begin_stage(run, 0, None, first_policy(), None).state
    move = partial(jax.tree.map, lambda x: x + 1)
    return dataclasses.replace(
        start,
        policy=move(start.policy),
        models=move(start.models),
        **more,
    )


@pytest.mark.parametrize("fresh", [False, True])
def test_a_critic_is_carried_and_made_where_it_is_first_needed(fresh):
    run = staged(ppo(), ppo(), grpo(kl_coef=0), ppo(), fresh_optimizer=fresh)
    before = after(run)
    found = carry_models(run, 1, before)
    policy, critic = found["policy"], found["models"]["critic"]
    old = before.models["critic"]
    assert same_trees(policy.params, before.policy.params)
    assert same_trees(critic.params, old.params)
    assert int(policy.step) == int(critic.step) == (0 if fresh else 1)
    assert same_trees(policy.opt_state, before.policy.opt_state) != fresh
    assert same_trees(critic.opt_state, old.opt_state) != fresh
    assert carry_models(run, 2, before)["models"] == {}
    without = dataclasses.replace(before, models={})
    made = carry_models(run, 3, without)["models"]["critic"]
    assert not np.any(made.params["value_head"])
    backbone = {k: v for k, v in before.policy.params.items() if k != "head"}
    assert same_trees(made.params["backbone"], backbone)


def test_a_reward_model_and_a_controller_are_carried_too():
    base = RECIPES["prime"].build(SETTINGS.max_new_tokens)
    more = RECIPES["skywork_or1"].build(SETTINGS.max_new_tokens).components
    method = dataclasses.replace(base, components=(*base.components, *more))
    run = staged(method, method, grpo(kl_coef=0))
    before = init_rl_state(run.learner[0], first_policy())
    moved = jax.tree.map(lambda x: x + 1, before.models)
    controls = {"entropy_bonus": 0.5, "entropy_coef": 0.0}
    before = dataclasses.replace(before, models=moved, controls=controls)
    found = carry_models(run, 1, before)
    assert same_trees(found["models"], moved)
    assert found["controls"] == controls
    gone = carry_models(run, 2, before)
    assert (gone["models"], gone["controls"]) == ({}, {})


def test_the_reference_is_the_initial_policy_until_a_stage_refreshes_it(tmp_path):
    kl, plain = grpo(kl_coef=0.1), grpo(kl_coef=0)
    run = staged(plain, kl)
    folder = CheckpointFolder(tmp_path)
    before = after(run, step=SETTINGS.steps)
    now = begin_stage(run, 1, before, first_policy(), folder)
    assert same_trees(now.state.reference, first_policy().params)
    refreshed = dataclasses.replace(run.stages[1], fresh_reference=True)
    run = dataclasses.replace(run, stages=(run.stages[0], refreshed))
    now = begin_stage(run, 1, before, first_policy(), folder)
    assert same_trees(now.state.reference, before.policy.params)
    # A copy: the first update donates the policy.
    ours = jax.tree.leaves(now.state.reference)[0].unsafe_buffer_pointer()
    theirs = jax.tree.leaves(before.policy.params)[0].unsafe_buffer_pointer()
    assert ours != theirs
    back = begin_stage(staged(kl, plain), 1, before, first_policy(), folder)
    assert back.state.reference is None


def test_stages_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"names that differ, got \['a', 'a'\]"):
        build_stages(
            tiny_model(),
            LuckyTask(),
            [dataclasses.replace(s, name="a") for s in toy_stages()[:2]],
            one_device(),
        )
    with pytest.raises(ValueError, match="fresh_reference needs a method with a ref"):
        staged(toy_dapo(), fresh_reference=True)
    with pytest.raises(ValueError, match="stages must have names"):
        staged()
    # A length limit of a later stage that the model has no room for shows at once.
    long = dataclasses.replace(SETTINGS, max_new_tokens=30, row_width=40)
    stages = [*toy_stages()[:2], dataclasses.replace(toy_stages()[2], settings=long)]
    with pytest.raises(ValueError, match=r"context_length \(24\), got 33"):
        build_stages(tiny_model(), LuckyTask(), stages, one_device())


# Surplus groups.


def fitted(surplus, method=None, **settings):
    s = dataclasses.replace(SETTINGS, **settings)
    return fit_surplus(
        surplus, SimpleNamespace(settings=s, method=method or toy_dapo())
    )


MIXED = [[True, False, True, False]] * 3


def test_surplus_is_padded_to_a_longer_limit_and_rewarded_anew():
    lengths = [[6, 1, 2, 3]] * 3
    surplus = fake_rollouts(MIXED, lengths=lengths)
    kept, dropped = fitted(surplus, max_new_tokens=9, prompt_width=5)
    assert dropped == 0
    assert (kept.width, kept.prompt_tokens.shape[-1]) == (9, 5)
    np.testing.assert_array_equal(kept.tokens[..., :6], surplus.tokens)
    np.testing.assert_array_equal(
        kept.sampler_logprobs[..., :6], surplus.sampler_logprobs
    )
    assert not kept.tokens[..., 6:].any()
    assert not kept.prompt_tokens[..., 3:].any()
    np.testing.assert_array_equal(kept.mask().sum(-1), surplus.lengths)
    np.testing.assert_array_equal(kept.rewards, toy_dapo().rewards(surplus))
    fresh = fake_rollouts(MIXED, width=9)
    fresh = dataclasses.replace(fresh, prompt_tokens=np.zeros((3, 5), int))
    assert concatenate([kept, fresh]).num_prompts == 6


def test_surplus_is_cut_only_where_nothing_but_padding_goes():
    lengths = [[4, 1, 2, 3], [5, 1, 1, 1], [4, 4, 4, 4]]
    surplus = fake_rollouts(MIXED, lengths=lengths)
    kept, dropped = fitted(surplus, max_new_tokens=4)
    assert dropped == 1
    assert kept.problem_ids.tolist() == [0, 2]
    np.testing.assert_array_equal(kept.tokens, surplus.tokens[[0, 2], :, :4])


def test_surplus_that_a_stage_cannot_use_is_dropped_and_counted():
    surplus = fake_rollouts(MIXED)
    assert fitted(None) == (None, 0)
    assert fitted(surplus, group_size=8) == (None, 3)
    assert fitted(surplus, method=grpo()) == (None, 3)
    # Three groups fill a batch of two: no step may go without samples of its own.
    kept, dropped = fitted(surplus, prompts_per_step=2)
    assert (kept.problem_ids.tolist(), dropped) == ([2], 2)
    assert fitted(surplus, prompts_per_step=1, updates_per_rollout=1) == (None, 3)


# Pass rates.


def test_a_grader_that_failed_is_neither_right_nor_wrong():
    rollouts = fake_rollouts([[True, True, False, False], [False] * 4])
    failed = np.array([[True, False, False, True], [True] * 4])
    rates = pass_rates(dataclasses.replace(rollouts, failed=failed))
    assert rates.num_correct.tolist() == [1, 0]
    assert rates.num_samples.tolist() == [2, 0]
    stream = EasyPoolStream(PROBLEMS, batch_size=4, seed=0)
    always = dataclasses.replace(fake_rollouts([[True] * 4]), failed=failed[:1])
    assert tell_source(stream, always) == {"data/problems_pool": 1}
    assert tell_source(EndlessProblems(4), always) == {}


def test_a_filter_by_the_policys_own_pass_rates(run):
    learner, params = run.learner[1], first_policy().params
    rates = measure_pass_rates(learner, params, PROBLEMS[:6])
    assert rates.problem_ids.tolist() == list(range(6))
    assert rates.num_samples.tolist() == [SETTINGS.group_size] * 6
    again = measure_pass_rates(learner, params, PROBLEMS[:6])
    assert same_trees(tuple(rates), tuple(again))
    state = RLState(first_policy(), None, None, None, step=0, draws=0)
    keep = keep_by_pass_rate(PROBLEMS[:6], partial(hard_set, below=4, of=4))
    wanted = rates.problem_ids[rates.num_correct < 4].tolist()
    assert keep(learner, state) == wanted
    nothing = keep_by_pass_rate(PROBLEMS[:6], lambda c, n: c > n)
    with pytest.raises(ValueError, match=r"\(4\) or more, got 0 of 6"):
        nothing(learner, state)
