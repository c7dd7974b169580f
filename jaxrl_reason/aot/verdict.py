"""Whether a run fits its devices, what limits it, and how fast it can be at most."""

import math
from dataclasses import dataclass

from jaxrl_reason.aot.chips import Chip
from jaxrl_reason.aot.compile_step import CompiledStep
from jaxrl_reason.aot.mesh_sizes import mesh_text
from jaxrl_reason.aot.run_steps import prompts_at_once, untold_models
from jaxrl_reason.aot.topology import Topology
from jaxrl_reason.train.train_settings import TrainSettings

COMPUTE, MEMORY, NETWORK = "compute", "memory", "interconnect"


@dataclass(frozen=True)
class TimeLimits:
    """Seconds that one call takes at least, by what bounds it.

    Each is the work over the public peak of the chip; nothing reaches its peak.

    Attributes:
      compute: of matrix products.
      memory: of reading and writing.
      interconnect: of exchanges, one after the other.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def by_name(self) -> dict[str, float]:
        """The three of them."""
        return {
            COMPUTE: self.compute,
            MEMORY: self.memory,
            NETWORK: self.interconnect,
        }

    @property
    def bottleneck(self) -> str:
        """The largest."""
        return max(self.by_name, key=lambda name: self.by_name[name])

    @property
    def overlapped(self) -> float:
        """Seconds if everything happens at the same time."""
        return max(self.by_name.values())

    @property
    def in_turn(self) -> float:
        """Seconds if nothing does."""
        return sum(self.by_name.values())


def time_limits(step: CompiledStep, chip: Chip) -> TimeLimits:
    """The limits of one call of a compiled step.

    Args:
      step: of a device.
      chip: whose figures count.
    """
    return TimeLimits(
        compute=step.flops / chip.peak_flops,
        memory=step.memory_bytes / chip.bandwidth,
        interconnect=sum(x.seconds for x in step.traffic),
    )


@dataclass(frozen=True)
class Speed:
    """What a step may reach, between no overlap and perfect overlap.

    Attributes:
      seconds: of a call: with overlap, and without.
      tokens: a second over all devices: without overlap, and with.
      utilisation: of the peak by the model's own operations (MFU), likewise.
    """

    seconds: tuple[float, float]
    tokens: tuple[float, float]
    utilisation: tuple[float, float]


def expected_speed(step: CompiledStep, chip: Chip) -> Speed:
    """The range in which a step's speed is to be expected, from its limits.

    Args:
      step: compiled.
      chip: of its devices.
    """
    limits = time_limits(step, chip)
    seconds = (limits.overlapped, limits.in_turn)
    slow, fast = seconds[1], seconds[0]
    used = step.model_flops / chip.peak_flops
    return Speed(
        seconds, (step.tokens / slow, step.tokens / fast), (used / slow, used / fast)
    )


@dataclass(frozen=True)
class Verdict:
    """All steps of a run on its devices.

    Attributes:
      settings: of the run.
      topology: the devices.
      steps: compiled.
      nearest: settings that fit where these do not, in words; empty where they fit or
        where none was found.
    """

    settings: TrainSettings
    topology: Topology
    steps: tuple[CompiledStep, ...]
    nearest: str = ""

    @property
    def fits(self) -> bool:
        """Whether every step does."""
        return all(step.fits for step in self.steps)

    @property
    def peak(self) -> float:
        """Bytes a device of the largest step."""
        return max(step.held for step in self.steps)

    def calls(self, step: str) -> int:
        """How often an iteration of the run calls a step at least.

        Args:
          step: one of `STEPS`.
        """
        rl = self.settings.rl
        if step == "sample":
            return math.ceil(rl.prompts_per_step / prompts_at_once(self.settings))
        if step == "score":
            return rl.updates_per_rollout if rl.old_logprobs == "trainer" else 0
        return rl.updates_per_rollout

    @property
    def iteration_seconds(self) -> tuple[float, float]:
        """Of one iteration with full-length responses: with overlap, and without.

        The steps follow each other, but those of devices of their own that draw ahead.
        """
        fast, slow = (
            {
                step.step: self.calls(step.step)
                * expected_speed(step, self.topology.chip).seconds[i]
                for step in self.steps
            }
            for i in (0, 1)
        )
        return self._together(fast), self._together(slow)

    @property
    def samples_meanwhile(self) -> bool:
        """Whether a sampler on devices of its own works while the others train."""
        return bool(self.settings.sampler.mesh) and self.settings.rl.async_level > 0

    def _together(self, seconds: dict[str, float]) -> float:
        sampling = seconds.pop("sample", 0.0)
        training = sum(seconds.values())
        if self.samples_meanwhile:
            return max(sampling, training)
        return sampling + training


def verdict_text(verdict: Verdict) -> str:
    """The verdict for a terminal.

    Args:
      verdict: of a run.
    """
    chip, settings = verdict.topology.chip, verdict.settings
    name = f"{settings.method} of {settings.model.source} on {verdict.topology}"
    meshes = dict.fromkeys(mesh_text(step.mesh) for step in verdict.steps)
    answer = "fits" if verdict.fits else "does not fit"
    lines = [
        f"{name}, mesh {' and '.join(meshes)}: {answer}",
        f"peak {verdict.peak / 1e9:.2f} of {chip.memory / 1e9:.2f} GB a device",
    ]
    for step in verdict.steps:
        lines += ["", *step_lines(step, chip)]
    if verdict.fits and len(verdict.steps) > 1:
        fast, slow = verdict.iteration_seconds
        rl = settings.rl
        calls = ", ".join(f"{verdict.calls(x.step)} {x.step}" for x in verdict.steps)
        meanwhile = ", sampling at the same time" if verdict.samples_meanwhile else ""
        lines += [
            "",
            f"iteration ({calls}; {rl.sequences} responses of full length"
            f"{meanwhile}): {number_range(fast, slow)} s",
        ]
    others = untold_models(settings)
    if others:
        lines += ["", f"not compiled: the models of {', '.join(others)}"]
    if verdict.nearest:
        lines += ["", verdict.nearest]
    versions = " ".join(f"{k} {v}" for k, v in verdict.steps[0].versions.items())
    lines += ["", f"compiled with {versions}; times are limits from public peaks"]
    return "\n".join(lines)


def step_lines(step: CompiledStep, chip: Chip) -> list[str]:
    """A step's part of the text.

    Args:
      step: compiled.
      chip: of its devices.
    """
    parts = " + ".join(f"{name} {held / 1e9:.2f}" for name, held in step.parts.items())
    lines = [f"{step.step}: peak {step.peak / 1e9:.2f} GB = {parts}"]
    if step.besides:
        lines.append(
            f"  and {step.besides / 1e9:.2f} GB of the training state held besides"
        )
    if not step.fits:
        return [*lines, f"  more than the {chip.memory / 1e9:.2f} GB of a device"]
    limits, speed = time_limits(step, chip), expected_speed(step, chip)
    lines.append(
        f"  {step.model_flops / 1e12:.1f} TFLOP a device of the model, "
        f"{step.flops / 1e12:.1f} executed; {step.memory_bytes / 1e9:.0f} GB of memory "
        f"traffic; {sum(x.payload for x in step.traffic) / 1e9:.1f} GB in exchanges"
    )
    lines += [
        f"  {x.kind} over {'+'.join(x.axes)}: {x.count:.0f} of together "
        f"{x.payload / 1e9:.2f} GB, {x.seconds:.3f} s"
        for x in step.traffic
        if x.payload > 1e6
    ]
    times = ", ".join(f"{name} {s:.3f} s" for name, s in limits.by_name.items())
    lines.append(f"  limits: {times}; bottleneck: {limits.bottleneck}")
    lines.append(
        f"  expect {number_range(*speed.tokens)} tokens a second, "
        f"MFU {number_range(*(100 * x for x in speed.utilisation))}%"
    )
    return lines


def number_range(low: float, high: float) -> str:
    """Two numbers with three digits, or one where they are the same.

    Args:
      low: of them.
      high: of them.

    Example:
      >>> number_range(0.5, 1234.5)
      '0.5 to 1,234'
    """
    texts = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"
