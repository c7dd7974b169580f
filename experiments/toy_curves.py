"""Every method on a toy task, a small picture each, for the pages of the methods.

    python experiments/toy_curves.py                  # all of them
    python experiments/toy_curves.py --only gspo dpo  # these alone
    python experiments/toy_curves.py --draw-only      # no runs, new pictures

Runs each value of `jaxrl_reason.rl.recipes.RECIPES` through the real loop on the setup
of `experiments/toys/toy_setup.py`, a few seeds of it, and draws the accuracy of the
samples of each step: the mean of the seeds, a band from the worst to the best, and
plain GRPO in grey. Preference training, RFT and STaR go in rounds
(`experiments/toys/toy_rounds.py`) and stand alone: a round is not a step. On-policy
distillation and GKD have a teacher (`experiments/toys/toy_teacher.py`); SDPO starts
from another fine-tuned model (`experiments/toys/toy_self_teacher.py`). --runs holds the
accuracies as JSON, from which --draw-only draws. A method keeps its objective, its
coefficients and its filters; learning rate, batch and length limit are the setup's, the
same for all. The curves show that a method runs and what it does on a toy; they do not
rank methods.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.toys.toy_rounds import ROUNDS, run_rounds
from experiments.toys.toy_self_teacher import (
    SELF_TAUGHT,
    copying,
    self_taught_learner,
)
from experiments.toys.toy_setup import SETUP, ToySetup, method_learner, run_method
from experiments.toys.toy_teacher import TAUGHT, student_learner
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.runs.metrics_log import Row

ROOT = Path(__file__).resolve().parent.parent
# Clip 0.2 / 0.2, the mean over sequences, no KL, no filter: what others stand beside.
PLAIN_GRPO = "dapo_0_naive_grpo"
BLUE, GREY = "#0072B2", "#888888"
# Dynamic sampling may look longer for signal: a toy is learned to nearly 100%.
CURVES = replace(SETUP, settings=replace(SETUP.settings, max_rounds=50))
DISTILLED = (*TAUGHT, *SELF_TAUGHT)
# Steps in which the critic alone learns, a tenth of VAPO's 50.
VALUE_PRETRAINING = {"vc_ppo": 5, "vapo": 5}


@dataclass(frozen=True)
class Options:
    """What is run and where it goes."""

    only: tuple[str, ...] = ()
    """Names of recipes, or of methods in rounds; none for all."""
    steps: int = 40
    """RL steps of a run."""
    rounds: int = 20
    """Rounds of a method in rounds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each method; they share what is compiled."""
    out: Path = ROOT / "docs" / "images" / "methods"
    """Folder of the pictures."""
    runs: Path = ROOT / "runs" / "toy_curves"
    """Folder of the accuracies, a JSON file a method."""
    draw_only: bool = False
    """Draw from the accuracies of former runs."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - {*RECIPES, *DISTILLED, *ROUNDS})
        if unknown:
            raise ValueError(
                f"only must name recipes or methods in rounds, got {', '.join(unknown)}"
            )
        for name in ("steps", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.seeds:
            raise ValueError("seeds must hold at least one, got none")

    @property
    def names(self) -> list[str]:
        """What was asked for, plain GRPO first: the others are drawn over it."""
        names = self.only or (*RECIPES, *DISTILLED, *ROUNDS)
        if self.draw_only and not self.only:
            names = tuple(n for n in names if (self.runs / f"{n}.json").is_file())
        return sorted(names, key=lambda name: name != PLAIN_GRPO)


def accuracies(name: str, options: Options, setup: ToySetup = CURVES) -> np.ndarray:
    """[seeds, steps or rounds] accuracy of the samples, before any filter.

    A task that is learned gives no more signal: the curve ends with the first seed that
    finds nothing to learn from.

    Raises:
      NoSignalError: that is so from the start.
    """
    if name in ROUNDS:
        found = [
            run_rounds(name, seed, rounds=options.rounds, setup=setup)
            for seed in options.seeds
        ]
    else:
        found = recipe_runs(name, options, setup)
    shortest = min(map(len, found))
    return np.array([values[:shortest] for values in found])


def recipe_runs(name: str, options: Options, setup: ToySetup) -> list[list[float]]:
    """Accuracies of each step, for each seed of a recipe."""
    if name in TAUGHT:
        learner = student_learner(name, setup)
    elif name in SELF_TAUGHT:
        learner, setup = self_taught_learner(setup), copying(setup)
    else:
        method = RECIPES[name].build(setup.settings.max_new_tokens)
        learner = method_learner(method, setup)
    alone = VALUE_PRETRAINING.get(name, 0)
    settings = replace(learner.settings, value_pretraining_steps=alone)
    learner = replace(learner, settings=settings)
    found = []
    for seed in options.seeds:
        rows: list[Row] = []

        def keep(done: Sequence[Row], rows: list[Row] = rows) -> bool:
            rows[:] = done  # what there is when a run finds no signal any more
            return False

        try:
            run_method(
                learner.method,
                seed,
                steps=options.steps,
                setup=setup,
                learner=learner,
                until=keep,
            )
        except NoSignalError as error:
            if not rows:
                raise
            print(f"{name}, seed {seed}, after {len(rows)} steps: {error}")
        found.append([row["reward/accuracy"] for row in rows])
    return found


def saved(name: str, options: Options) -> np.ndarray:
    """The accuracies of a former run."""
    text = (options.runs / f"{name}.json").read_text("utf-8")
    return np.array(json.loads(text)["accuracy"])


def save(name: str, found: np.ndarray, options: Options) -> None:
    """Keeps accuracies for `saved`."""
    options.runs.mkdir(parents=True, exist_ok=True)
    content = {"seeds": list(options.seeds), "accuracy": found.round(4).tolist()}
    (options.runs / f"{name}.json").write_text(json.dumps(content), "utf-8")


def draw(name: str, found: np.ndarray, plain: np.ndarray, path: Path) -> Path:
    """One small picture: mean and band of the seeds, the mean of plain GRPO in grey."""
    figure = Figure(figsize=(4.2, 2.7), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = [(found, BLUE, name)]
    # Neither rounds nor another start compare with plain GRPO.
    if name != PLAIN_GRPO and name not in (*ROUNDS, *SELF_TAUGHT):
        lines.insert(0, (plain, GREY, "GRPO"))
    for values, colour, label in lines:
        steps = np.arange(1, values.shape[1] + 1)
        axes.plot(steps, values.mean(0), color=colour, linewidth=1.8, label=label)
    steps = np.arange(1, found.shape[1] + 1)
    axes.fill_between(steps, found.min(0), found.max(0), color=BLUE, alpha=0.2, lw=0)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlim(1, max(2, found.shape[1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("round" if name in ROUNDS else "RL step")
    axes.set_ylabel("right samples")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Above the panel, where no curve can be.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64).save(path, optimize=True)  # a third of the bytes
    return path


def run_all(options: Options, setup: ToySetup = CURVES) -> list[str]:
    """Runs and draws what was asked for; the names that found no signal at all."""
    plain, failed = None, []
    if options.draw_only or PLAIN_GRPO not in options.names:
        plain = plain_grpo(options, setup)
    for name in options.names:
        start = time.perf_counter()
        try:
            found = found_or_kept(name, options, setup)
        except NoSignalError as error:
            failed.append(name)
            print(f"{name}: {error}")
            continue
        plain = found if plain is None else plain
        path = draw(name, found, plain, options.out / f"{name}.png")
        print(
            f"{name}: {found[:, 0].mean():.2f} -> {found[:, -1].mean():.2f}, "
            f"{time.perf_counter() - start:.0f} s, {path.name}",
            flush=True,
        )
    return failed


def found_or_kept(name: str, options: Options, setup: ToySetup) -> np.ndarray:
    """Accuracies of a run that is kept, or of a former one if only to be drawn."""
    if options.draw_only:
        return saved(name, options)
    found = accuracies(name, options, setup)
    save(name, found, options)
    return found


def plain_grpo(options: Options, setup: ToySetup) -> np.ndarray:
    """Plain GRPO's accuracies, of a former run where there is one."""
    if (options.runs / f"{PLAIN_GRPO}.json").is_file():
        return saved(PLAIN_GRPO, options)
    return found_or_kept(PLAIN_GRPO, options, setup)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the script; 1 if a method found nothing to learn from."""
    options = tyro.cli(Options, description=__doc__, args=args)
    # Recipes of one loss compile the same programs: the second finds the first one's.
    jax.config.update("jax_compilation_cache_dir", str(options.runs / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return 1 if run_all(options) else 0


if __name__ == "__main__":
    sys.exit(main())
