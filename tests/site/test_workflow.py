"""The workflow that builds, tests and publishes the site: its permissions, and the commands of the README."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from zhixing_site.execution import cache
from zhixing_site.site import cards, reuse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github/workflows/site.yml").read_text()
WORKFLOW = yaml.load(TEXT, yaml.BaseLoader)  # which does not read `on` as a Boolean
BUILD, VERSIONS, DEPLOY = (WORKFLOW["jobs"][name] for name in ("build", "versions", "deploy"))


def step(job: dict, action: str) -> dict:
    """Return the only step of the job that uses the action."""
    (found,) = [each for each in job["steps"] if each.get("uses", "").startswith(f"{action}@")]
    return found


def test_every_push_and_pull_request_is_built():
    assert WORKFLOW["on"] == {"push": "", "pull_request": ""}
    assert "if" not in BUILD
    assert "if" not in VERSIONS


def test_oldest_versions_and_other_processors_are_tested():
    assert VERSIONS["strategy"]["matrix"] == {"session": ["oldest", "portable"]}
    *_, install, session = VERSIONS["steps"]
    assert install["run"] in step_that_builds()["run"]
    assert session["run"] == '.venv/bin/nox -s "$SESSION"'
    assert session["env"] == {"SESSION": "${{ matrix.session }}"}


def step_that_builds() -> dict:
    (build,) = [each for each in BUILD["steps"] if "nox -s docs" in each.get("run", "")]
    return build


def test_commands_of_the_readme_run_in_order():
    commands = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1].splitlines()
    lines = [line for each in BUILD["steps"] for line in each.get("run", "").splitlines()]
    assert [line for line in lines if line in commands] == commands
    assert ".venv/bin/nox -s lint" in lines
    assert ".venv/bin/nox -s browser" in lines


@pytest.mark.parametrize("line", re.findall(r"^.*\buses:.*$", TEXT, re.MULTILINE), ids=str.strip)
def test_action_is_pinned_to_a_commit_with_its_version_in_a_comment(line):
    assert re.fullmatch(r"[ -]+uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_each_job_has_only_the_permissions_it_needs():
    assert WORKFLOW["permissions"] == {}
    assert BUILD["permissions"] == {"contents": "read", "pages": "read"}
    assert DEPLOY["permissions"] == {"pages": "write", "id-token": "write"}
    assert VERSIONS["permissions"] == {"contents": "read"}
    for job in BUILD, VERSIONS:
        assert step(job, "actions/checkout")["with"]["persist-credentials"] == "false"
    assert "secrets." not in TEXT


def test_no_untrusted_text_is_run():
    assert not [each for each in BUILD["steps"] + VERSIONS["steps"] + DEPLOY["steps"] if "${{" in each.get("run", "")]
    assert not re.search(r"github\.(event\.|head_ref)", TEXT)


def test_only_pushes_to_main_are_deployed_after_their_build():
    assert DEPLOY["needs"] == ["build", "versions"]
    assert DEPLOY["if"] == "github.ref == 'refs/heads/main' && github.event_name == 'push'"
    assert DEPLOY["environment"]["name"] == "github-pages"
    step(DEPLOY, "actions/deploy-pages")


def test_site_is_uploaded_for_pull_requests_and_for_hosting():
    kept, hosted = step(BUILD, "actions/upload-artifact"), step(BUILD, "actions/upload-pages-artifact")
    assert kept["if"] == "github.event_name == 'pull_request'"
    assert hosted["if"] == "github.ref == 'refs/heads/main'"
    assert kept["with"]["path"] == hosted["with"]["path"] == "site/"


def test_address_of_the_site_is_that_of_github_pages():
    name = step(BUILD, "actions/configure-pages")["id"]
    assert step_that_builds()["env"] == {"SITE_URL": f"${{{{ steps.{name}.outputs.base_url }}}}"}


def test_caches_are_restored():
    folders = {cache.FOLDER, cards.CACHE, reuse.FOLDER}
    assert {*step(BUILD, "actions/cache")["with"]["path"].split()} == {each.as_posix() for each in folders}


def test_torch_is_installed_without_cuda():
    for job in BUILD, VERSIONS:
        assert job["env"]["PIP_EXTRA_INDEX_URL"] == "https://download.pytorch.org/whl/cpu"


def test_citation_names_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == package["version"]
    assert package["license"] in citation["license"]
