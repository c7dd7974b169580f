"""The abstract inputs are those of a run, and its steps lower for both platforms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from jaxrl_reason.aot.compile_worker import memory_parts
from jaxrl_reason.aot.run_steps import prompts_at_once, run_steps
from jaxrl_reason.learner.packing import pack_sequences
from jaxrl_reason.sampler import sampling_keys
from jaxrl_reason.sharding import MESH_AXES, make_mesh
from jaxrl_reason.train.group_settings import SamplerSettings
from jaxrl_reason.train.model_settings import ModelSettings
from tests.aot.aot_helpers import tiny_model, tiny_run


def kinds(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def test_the_batch_is_what_a_run_packs_and_places(tmp_path: Path) -> None:
    steps = run_steps(tiny_run(tmp_path, ""), make_mesh())
    learner = steps.learner
    plan, put = learner.plan, learner.batch_sharding
    sequences = plan.groups_per_minibatch * learner.settings.group_size
    packed, places = pack_sequences(
        [np.arange(1, 9)] * sequences,
        [np.arange(1, 17)] * sequences,
        plan.shape,
        num_micro=plan.num_micro,
        response_width=learner.settings.max_new_tokens,
        prompt_ids=np.arange(sequences) // learner.settings.group_size,
    )
    values = places.place(np.zeros((sequences, 16), np.float32))
    inputs = {"old_logprobs": values, "advantages": values}
    real = put.put_batch(replace(packed, inputs=inputs), axis=1)
    assert kinds(real) == kinds(steps.batch)
    assert jax.tree.map(lambda x: x.sharding, real) == jax.tree.map(
        lambda x: x.sharding, steps.batch
    )


def test_prompts_are_what_a_run_samples(tmp_path: Path) -> None:
    settings = tiny_run(tmp_path, "")
    steps = run_steps(settings, make_mesh())
    ids = jnp.arange(8, dtype=jnp.uint32)
    real = (
        np.zeros((8, 16), np.int32),
        np.zeros(8, np.int32),
        sampling_keys(0, 0, ids, 4),
    )
    assert kinds(steps.prompts) == kinds(real)
    slots = replace(settings.sampler, slots=12)
    assert prompts_at_once(replace(settings, sampler=slots)) == 3
    with pytest.raises(ValueError, match="must hold a group of 4 responses, got 3"):
        prompts_at_once(replace(settings, sampler=replace(slots, slots=3)))


def test_a_sampler_may_have_devices_of_its_own(tmp_path: Path) -> None:
    """Parameters and prompts are on its mesh, and nothing of the training is."""
    auto = (AxisType.Auto,) * len(MESH_AXES)
    training = AbstractMesh((1, 2, 1, 2), MESH_AXES, axis_types=auto)
    own = AbstractMesh((1, 1, 1, 4), MESH_AXES, axis_types=auto)
    sampler = SamplerSettings(slots=0, mesh="tensor=4")
    settings = replace(tiny_run(tmp_path), sampler=sampler)
    steps = run_steps(
        settings,
        training,  # type: ignore[arg-type]
        sampler_mesh=own,  # type: ignore[arg-type]
        attention="chunked",
    )
    state, arguments = steps.state.params, steps.calls["sample"][1]
    meshes = {x.sharding.mesh for x in jax.tree.leaves(arguments)}
    assert meshes == {own}
    assert {x.sharding.mesh for x in jax.tree.leaves(state)} == {training}
    parts, besides = memory_parts("sample", steps)
    # Two key heads are whole on four devices: a little more than a quarter.
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert whole / 4 < parts["parameters"] < whole / 3
    assert besides == 0
    assert memory_parts("sample", run_steps(settings, training))[1] > 0  # type: ignore[arg-type]
    function, given = steps.calls["sample"]
    assert jax.export.export(function, platforms=["tpu"])(*given).nr_devices == 4
    fewer = AbstractMesh((1, 16, 1, 1), MESH_AXES, axis_types=auto)
    with pytest.raises(ValueError, match="prompts that the sampler draws for must be"):
        run_steps(settings, training, sampler_mesh=fewer)  # type: ignore[arg-type]


def test_every_step_lowers_for_tpu_and_cuda_on_a_large_mesh(tmp_path: Path) -> None:
    """As `jax.export` does it: no compiler and no devices of either are needed."""
    auto = (AxisType.Auto,) * len(MESH_AXES)
    mesh = AbstractMesh((4, 32, 1, 2), MESH_AXES, axis_types=auto)
    settings = tiny_run(
        tmp_path, "", prompts_per_step=256, rows_per_micro_batch=128, row_width=256
    )
    # A mesh without devices does not say whose kernels to take.
    for platform, attention, kernel in (
        ("tpu", "splash", "splash"),
        ("cuda", "flash", "flash_forward"),
    ):
        steps = run_steps(
            settings,
            mesh,  # type: ignore[arg-type]
            attention=attention,
        )
        for name, (function, arguments) in steps.calls.items():
            lowered = jax.export.export(
                function,
                platforms=[platform],
                # Triton's: its form may change between versions.
                disabled_checks=[
                    jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
                ],
            )(*arguments)
            assert lowered.nr_devices == 256
            assert lowered.platforms == (platform,)
            # A prompt of 16 columns needs no kernel.
            assert (kernel in lowered.mlir_module()) == (name != "sample")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"method": "dpo"}, "steps are compiled for methods of the RL loop, got dpo"),
        ({"rl": {"prompt_width": 0}}, "rl.prompt_width must be set"),
        ({"model": {"lora_rank": 4}}, "without factors, got model.lora_rank 4"),
        ({"model": {"source": "no-such-model"}}, "model must be one of smollm2-135m"),
    ],
)
def test_runs_that_have_no_such_steps_are_refused(
    tmp_path: Path, changes: dict[str, Any], rule: str
) -> None:
    settings = replace(
        tiny_run(tmp_path, ""), model=ModelSettings(tiny_model(tmp_path))
    )
    for name, value in changes.items():
        old = getattr(settings, name)
        new = replace(old, **value) if isinstance(value, dict) else value
        settings = replace(settings, **{name: new})
    with pytest.raises(ValueError, match=rule):
        run_steps(settings, make_mesh())


def test_sequence_parallelism_is_a_setting_of_the_run(tmp_path: Path) -> None:
    settings = replace(tiny_run(tmp_path, ""), sequence_parallel=True)
    rules = run_steps(settings, make_mesh()).learner.batch_sharding.rules
    assert "tensor" in rules.mesh_axes("sequence")
    as_usual = run_steps(replace(settings, sequence_parallel=False), make_mesh())
    rules = as_usual.learner.batch_sharding.rules
    assert "tensor" not in rules.mesh_axes("sequence")
