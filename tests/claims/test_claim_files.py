"""A claim's file: what it may hold, and what makes it another claim."""

import dataclasses

import pytest

from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, load_claim
from jaxrl_reason.claims.claim import WORDING, claim_paths
from tests.claims.planted import claim_of, planted_file

pytestmark = pytest.mark.fast


def test_wording_is_of_fields():
    assert set(WORDING) <= {field.name for field in dataclasses.fields(Claim)}


def test_the_parts_of_a_claim_are_data():
    claim = claim_of(1.0)
    assert claim.comparison == Comparison("a", "b")
    assert str(claim.comparison) == "a − b"
    assert claim.panels[0] == Panel("x", "x", "units", x="step")
    assert isinstance(claim.measure, Measure)
    rows = claim.run_arm("b", 1, 3)
    assert claim.measure.of(rows) == pytest.approx(sum(r["x"] for r in rows) / 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"direction": 0}, "direction must be 1 or -1, got 0"),
        ({"smallest": 0.0}, "smallest must be > 0, got 0.0"),
        ({"controls": ()}, "controls must hold at least one comparison"),
        ({"seeds": (1, 2)}, "seeds must be at least 3 different ones"),
        ({"seeds": (1, 2, 2)}, "seeds must be at least 3 different ones"),
        ({"tuned_on": (100, 2)}, "tuned_on must hold none of the seeds, got 2"),
        ({"arms": {"a": "", "b": ""}}, "a comparison must name arms, got 'c'"),
    ],
)
def test_what_cannot_be_decided_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(claim_of(1.0), **change)


def test_a_name_is_a_file_of_the_folder_or_a_path(tmp_path, monkeypatch):
    file = planted_file(tmp_path / "experiments" / "claims", "mine")
    monkeypatch.chdir(tmp_path)
    by_name, by_path = load_claim("mine"), load_claim(str(file))
    assert by_name.name == by_path.name == "mine"
    assert by_name.key == by_path.key
    with pytest.raises(
        ValueError, match=r"one of experiments/claims .*\(mine\), got no"
    ):
        load_claim("no")
    file.write_text("CLAIM = 1\n")
    with pytest.raises(ValueError, match="must be a Claim called CLAIM"):
        load_claim("mine")


def test_there_are_no_more_claims_than_the_level_is_divided_by(tmp_path):
    with pytest.raises(ValueError, match=r"1 to 20 claims .* got 0"):
        claim_paths(tmp_path)
    for n in range(21):
        (tmp_path / f"c{n}.py").touch()
    with pytest.raises(ValueError, match=r"1 to 20 claims .* got 21"):
        claim_paths(tmp_path)


def test_all_but_wording_makes_another_claim(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = planted_file(tmp_path, "mine")
    (tmp_path / "planted_steps.py").write_text("ROWS = 2\n")
    text = file.read_text().replace(
        "import numpy", "import planted_steps\nimport numpy"
    )
    file.write_text(text)

    def keys(changed):
        file.write_text(changed)
        found = load_claim(str(file))
        return found.key, found.code_key

    before = keys(text)
    assert keys("# a comment\n" + text) == before
    assert keys(text.replace('sentence="', 'sentence="Mended: ')) == before
    assert keys(text.replace('"""A planted', '"""Another planted')) == before
    assert keys(text.replace("smallest=1.0", "smallest=0.5"))[0] != before[0]
    assert keys(text.replace("EFFECT = ", "EFFECT = 1 + "))[0] != before[0]
    # What it imports decides whether runs are used again.
    (tmp_path / "planted_steps.py").write_text("ROWS = 3\n")
    after = keys(text)
    assert after[0] == before[0]
    assert after[1] != before[1]
