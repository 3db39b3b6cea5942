"""The workflow that builds, tests and hosts: what it may do, and that it does what the README says."""

import re
from pathlib import Path

import pytest
import yaml

from zhixing_site.execution import cache
from zhixing_site.site import cards, reuse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github/workflows/site.yml").read_text()
WORKFLOW = yaml.load(TEXT, yaml.BaseLoader)  # in which `on` is no truth value
BUILD, VERSIONS, DEPLOY = (WORKFLOW["jobs"][name] for name in ("build", "versions", "deploy"))


def step(job: dict, action: str) -> dict:
    """The only step of the job that uses the action."""
    (found,) = [each for each in job["steps"] if each.get("uses", "").startswith(f"{action}@")]
    return found


def test_every_push_and_pull_request_is_built():
    assert WORKFLOW["on"] == {"push": "", "pull_request": ""}
    assert "if" not in BUILD
    assert "if" not in VERSIONS


def test_it_runs_with_the_oldest_versions_and_as_on_other_processors():
    assert VERSIONS["strategy"]["matrix"] == {"session": ["oldest", "portable"]}
    *_, install, session = VERSIONS["steps"]
    assert install["run"] in step_that_builds()["run"]
    assert session["run"] == '.venv/bin/nox -s "$SESSION"'
    assert session["env"] == {"SESSION": "${{ matrix.session }}"}


def step_that_builds() -> dict:
    (build,) = [each for each in BUILD["steps"] if "nox -s docs" in each.get("run", "")]
    return build


def test_it_runs_the_readmes_commands_in_their_order():
    commands = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1].splitlines()
    said = [line for each in BUILD["steps"] for line in each.get("run", "").splitlines()]
    assert [line for line in said if line in commands] == commands
    assert ".venv/bin/nox -s lint" in said
    assert ".venv/bin/nox -s browser" in said


@pytest.mark.parametrize("line", re.findall(r"^.*\buses:.*$", TEXT, re.MULTILINE), ids=str.strip)
def test_action_is_pinned_to_a_commit_with_its_version_beside_it(line):
    assert re.fullmatch(r"[ -]+uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_each_job_may_do_what_it_needs_and_no_more():
    assert WORKFLOW["permissions"] == {}
    assert BUILD["permissions"] == {"contents": "read", "pages": "read"}
    assert DEPLOY["permissions"] == {"pages": "write", "id-token": "write"}
    assert VERSIONS["permissions"] == {"contents": "read"}
    for job in BUILD, VERSIONS:
        assert step(job, "actions/checkout")["with"]["persist-credentials"] == "false"
    assert "secrets." not in TEXT


def test_nothing_that_a_stranger_writes_is_run():
    assert not [each for each in BUILD["steps"] + VERSIONS["steps"] + DEPLOY["steps"] if "${{" in each.get("run", "")]
    assert not re.search(r"github\.(event\.|head_ref)", TEXT)


def test_only_what_is_pushed_to_main_is_deployed_when_it_is_built():
    assert DEPLOY["needs"] == ["build", "versions"]
    assert DEPLOY["if"] == "github.ref == 'refs/heads/main' && github.event_name == 'push'"
    assert DEPLOY["environment"]["name"] == "github-pages"
    step(DEPLOY, "actions/deploy-pages")


def test_site_is_kept_for_who_asks_and_for_its_host():
    kept, hosted = step(BUILD, "actions/upload-artifact"), step(BUILD, "actions/upload-pages-artifact")
    assert kept["if"] == "github.event_name == 'pull_request'"
    assert hosted["if"] == "github.ref == 'refs/heads/main'"
    assert kept["with"]["path"] == hosted["with"]["path"] == "site/"


def test_address_of_the_site_is_that_of_its_host():
    name = step(BUILD, "actions/configure-pages")["id"]
    assert step_that_builds()["env"] == {"SITE_URL": f"${{{{ steps.{name}.outputs.base_url }}}}"}


def test_what_was_computed_before_is_there_again():
    folders = {cache.FOLDER, cards.CACHE, reuse.FOLDER}
    assert {*step(BUILD, "actions/cache")["with"]["path"].split()} == {each.as_posix() for each in folders}


def test_torch_comes_without_cuda():
    for job in BUILD, VERSIONS:
        assert job["env"]["PIP_EXTRA_INDEX_URL"] == "https://download.pytorch.org/whl/cpu"
