"""`jaxrl-reason claim`: verdicts as statuses, runs that are kept, pages."""

import json
import re

import pytest

from jaxrl_reason.claims import claim_runs
from jaxrl_reason.cli import claim as command
from tests.claims.planted import planted_file

MARKS = "# All\n\n<!-- claims -->\n<!-- end of claims -->\n\nThe end.\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout of three claims: with, without and with half an effect."""
    for name, effect in {"large": 2.0, "nothing": 0.0, "small": 0.5}.items():
        planted_file(tmp_path / "experiments" / "claims", name, effect)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "claims.md").write_text(MARKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(*arguments):
    """That of the command."""
    try:
        command.main(arguments)
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture
def undrawn(monkeypatch):
    """No pictures: a second each."""
    monkeypatch.setattr(command, "plot_claim", lambda *args: args[-1])


@pytest.mark.usefixtures("undrawn")
def test_the_verdict_is_the_status(folder, capsys):
    assert status("large", "--seeds", "5") == 0
    assert "large: shown" in capsys.readouterr().out
    assert status("nothing") == 1
    assert status("small") == 1
    file = folder / "experiments" / "claims" / "large.py"
    file.write_text(file.read_text().replace('if arm == "a"', 'if arm in "ac"'))
    capsys.readouterr()
    assert status("large") == 2
    assert "large: unresolved: c − d shows it too\n" in capsys.readouterr().out
    pages = folder / "runs" / "claims" / "pages"
    assert "unresolved: c − d shows it too.**" in (pages / "large.md").read_text()
    assert status() == 2  # all three: the highest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no"], "a claim must be a file my_claim.py or one of"),
        (["large", "--seeds", "6"], "seeds must be <= 5, the number that large has"),
        (["large", "--arms", "e"], "arms must be among a, b, c, d, got e"),
        (["large", "--jobs", "0"], "jobs must be >= 1, got 0"),
        (["large", "--seeds", "3", "--try-seeds", "7"], "must not both be given"),
    ],
)
def test_an_error_has_a_status_of_its_own(folder, capsys, arguments, said):
    assert status(*arguments) == 3
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_try_has_no_verdict(folder, capsys):
    for more in (["--seeds", "4"], ["--steps", "1"], ["--arms", "a", "b"]):
        assert status("large", *more) == 2
        said = capsys.readouterr().out
        assert "no verdict, a try" in said
        assert "| the claim | a − b |" in said
    assert status("large", "--try-seeds", "100", "--arms", "a") == 2
    assert "comparison" not in capsys.readouterr().out  # there is none to show
    page = (folder / "runs" / "claims" / "pages" / "large.md").read_text()
    assert "**Verdict: not run.**" in page


@pytest.mark.usefixtures("undrawn")
def test_finished_runs_are_kept_and_those_of_a_changed_claim_are_not(
    folder, monkeypatch
):
    ran = []
    run_one = claim_runs.run_one

    def killed_after_six(plan, arm, seed):
        if len(ran) == 6:
            raise OSError("killed")
        ran.append((seed, arm))
        run_one(plan, arm, seed)

    def counted(plan, arm, seed):
        ran.append((seed, arm))
        run_one(plan, arm, seed)

    monkeypatch.setattr(claim_runs, "run_one", killed_after_six)
    assert status("large") == 3
    monkeypatch.setattr(claim_runs, "run_one", counted)
    assert status("large") == 0
    assert len(ran) == len(set(ran)) == 20
    assert status("large") == 0
    assert len(ran) == 20
    file = folder / "experiments" / "claims" / "large.py"
    file.write_text(file.read_text().replace("EFFECT = 2.0", "EFFECT = 2.5"))
    assert status("large") == 0
    assert len(ran) == 40


@pytest.mark.usefixtures("undrawn")
def test_processes_give_the_same_files(folder):
    def runs(out):
        status("large", "--out", out, "--jobs", "2" if out == "two" else "1")
        files = sorted((folder / out / "large").rglob("*.json"))
        return [(f.name, json.loads(f.read_text())["rows"]) for f in files]

    one, two = runs("one"), runs("two")
    assert len(one) == 20
    assert one == two
    assert all("y" not in row for _, rows in one for row in rows)  # nan is left out


def test_pages_are_written_beside_the_table_of_all(folder):
    status("large", "nothing", "--pages", "docs/claims")
    pages = folder / "docs" / "claims"
    assert {p.name for p in pages.iterdir()} == {
        f"{name}.{kind}"
        for name in ("large", "nothing")
        for kind in ("md", "json", "png")
    }
    page = (pages / "large.md").read_text()
    assert "**Verdict: shown.**" in page
    assert "| the claim | a − b | 1.9" in page or "| the claim | a − b | 2.0" in page
    assert "| excess | the claim over c − d |" in page
    table = (folder / "docs" / "claims.md").read_text()
    assert table.startswith("# All\n")
    assert table.endswith("\n\nThe end.\n")
    rows = re.findall(r"^\| \[A planted effect\].*\| ([a-z ]+) \|$", table, re.M)
    assert rows == ["shown", "refuted", "not run"]
    assert "![A planted effect](claims/large.png)" in table
    # Written again from the results alone, with the claim as it now stands.
    status("large", "--pages", "docs/claims", "--only-pages")
    assert (folder / "docs" / "claims.md").read_text() == table
    file = folder / "experiments" / "claims" / "large.py"
    file.write_text(file.read_text().replace("smallest=1.0", "smallest=0.5"))
    status("large", "--pages", "docs/claims", "--only-pages")
    assert "**Verdict: not run.**" in (pages / "large.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_claim_of_the_page_is_shown(folder, root, capsys):
    page = (root / "docs" / "claims.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n# (my_claim\.py)\n(.*?)```", page, re.DOTALL)
    (folder / block[0]).write_text(block[1])
    assert status("my_claim.py") == 0
    written = folder / "runs" / "claims" / "pages" / "my_claim.md"
    assert "```sh\njaxrl-reason claim my_claim.py\n```" in written.read_text()
    assert "written: runs/claims/pages/my_claim.md" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_arms_may_share_what_they_keep_in_the_folder_of_their_runs(folder):
    file = folder / "experiments" / "claims" / "large.py"
    text = file.read_text().replace(
        "def run_arm(arm, seed, steps):\n",
        "def run_arm(arm, seed, steps, folder):\n"
        '    with (folder / f"base{seed}").open("a") as base:\n'
        "        base.write(arm)\n",
    )
    file.write_text(text)
    assert status("large") == 0
    bases = (folder / "runs" / "claims" / "large").glob("*-2steps/base*")
    assert {base.name: base.read_text() for base in bases} == {
        f"base{seed}": "abcd" for seed in range(1, 6)
    }
