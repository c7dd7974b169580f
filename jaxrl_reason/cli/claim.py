"""`jaxrl-reason claim`: a paper's claim as a test."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.claims.claim import FoundClaim, claim_paths, load_claim
from jaxrl_reason.claims.claim_page import (
    claim_page,
    fill_claims,
    result_text,
    verdict_line,
)
from jaxrl_reason.claims.claim_plot import plot_claim
from jaxrl_reason.claims.claim_results import (
    read_claim_results,
    results_of,
    verdict_of,
    write_claim_results,
)
from jaxrl_reason.claims.claim_runs import RunPlan, run_arms
from jaxrl_reason.claims.claim_verdict import Verdict

ERROR = 3  # 1 and 2 are verdicts


@dataclass(frozen=True)
class ClaimSettings:
    """Run the arms of papers' claims with several seeds, test them, write their pages.

    Ends with status 0 if the claim is shown, 1 if it is refuted, 2 if it is unresolved,
    3 after an error; with the highest of several claims. With `--arms`, `--steps`,
    `--try-seeds` or fewer seeds than the claim has registered it is a try without a
    verdict, which ends with 2.

    Attributes:
      names: of experiments/claims in the current folder, or my_claim.py; none for all.
      seeds: how many of the registered seeds, from the first on; all if left out.
      try_seeds: these seeds instead, to choose settings on.
      arms: only these.
      steps: of a run; the claim's own if left out.
      jobs: processes, each with some of the seeds; half of the cores if left out.
      out: folder of the runs. What is finished there is not run again.
      pages: folder of the pages; the folder `pages` in `out` if left out. If a page of
        the same name lies beside it, as docs/claims.md beside docs/claims, its table of
        all claims is written too.
      only_pages: run nothing; write the pages again from their results.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    seeds: int | None = None
    try_seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()
    steps: int | None = None
    jobs: int | None = None
    out: Path = Path("runs/claims")
    pages: Path | None = None
    only_pages: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "steps", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if self.seeds is not None and self.try_seeds:
            raise ValueError("seeds and try_seeds must not both be given, got both")


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      SystemExit: with the verdict as its status, or 3 after a sentence.
    """
    try:
        settings = tyro.cli(ClaimSettings, args=argv, prog="jaxrl-reason claim")
    except SystemExit as ended:  # help, or a flag that there is not
        raise SystemExit(ERROR if ended.code else 0) from None
    try:
        names = settings.names or tuple(map(str, claim_paths()))
        found = [load_claim(name) for name in names]
        verdicts = [Verdict.SHOWN]
        if not settings.only_pages:
            verdicts += [run_claim(one, settings) for one in found]
        write_pages(found, settings)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(ERROR) from error
    if max(verdicts):
        raise SystemExit(int(max(verdicts)))


def run_claim(found: FoundClaim, settings: ClaimSettings) -> Verdict:
    """Runs a claim, prints its tables, draws it and keeps its results.

    Args:
      found: the claim.
      settings: of the command.

    Returns:
      The verdict, unresolved for a try.

    Raises:
      ValueError: arms or seeds that the claim does not have.
    """
    claim = found.claim
    plan = plan_of(found, settings)
    jobs = settings.jobs or max(1, (os.cpu_count() or 1) // 2)
    runs = run_arms(plan, min(jobs, len(plan.seeds)))
    results = results_of(found, runs, plan.steps)
    print(result_text(claim, results))
    verdict = verdict_of(claim, results)
    folder = plan.folder if verdict is None else pages_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    picture = plot_claim(claim, results, runs, folder / f"{found.name}.png")
    write_claim_results(results, folder / f"{found.name}.json")
    said = "no verdict, a try" if verdict is None else verdict_line(found, results)
    print(f"\n{found.name}: {said}\nwritten: {picture}")
    return Verdict.UNRESOLVED if verdict is None else verdict


def plan_of(found: FoundClaim, settings: ClaimSettings) -> RunPlan:
    """Which runs are asked for.

    Args:
      found: the claim.
      settings: of the command.

    Raises:
      ValueError: arms or seeds that the claim does not have.
    """
    claim = found.claim
    unknown = sorted(set(settings.arms) - set(claim.arms))
    if unknown:
        raise ValueError(
            f"arms must be among {', '.join(claim.arms)}, got {', '.join(unknown)}"
        )
    if (settings.seeds or 0) > len(claim.seeds):
        raise ValueError(
            f"seeds must be <= {len(claim.seeds)}, the number that {found.name} has "
            f"registered, got {settings.seeds}"
        )
    seeds = settings.try_seeds or tuple(claim.seeds)[: settings.seeds]
    arms, steps = settings.arms or tuple(claim.arms), settings.steps or claim.steps
    return RunPlan(found, arms, seeds, steps, settings.out)


def pages_folder(settings: ClaimSettings) -> Path:
    """Where the pages go.

    Args:
      settings: of the command.
    """
    return settings.pages or settings.out / "pages"


def write_pages(found: Sequence[FoundClaim], settings: ClaimSettings) -> None:
    """Writes the claims' pages from their results, and the table of all.

    Args:
      found: the claims.
      settings: of the command.
    """
    folder = pages_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        page = folder / f"{one.name}.md"
        results = read_claim_results(folder / f"{one.name}.json")
        page.write_text(claim_page(one, results), encoding="utf-8")
        if results is not None:
            print(f"written: {page}")
    of_all = folder.with_suffix(".md")
    if of_all.is_file():
        every = [load_claim(str(path)) for path in claim_paths()]
        text = fill_claims(of_all.read_text(encoding="utf-8"), every, folder)
        of_all.write_text(text, encoding="utf-8")
