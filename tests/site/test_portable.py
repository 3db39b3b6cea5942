"""Snippets that fail, print other text or give other quoted values with other instructions are reported."""

import os
import platform
import subprocess
import sys

import portable
import pytest

# Simulate a setting whose instructions change what a snippet computes.
PRINTS = """\
# %% kept
import os

print("same")

# %% changed
print("first")
print(os.environ.get("ATEN_CPU_CAPABILITY"))
many = 1.25 if "ATEN_CPU_CAPABILITY" in os.environ else 1.2501
"""
FAILS = '# %% fine\nimport os\n\n# %% wrong tags=["hidden"]\nassert "ATEN_CPU_CAPABILITY" not in os.environ\n'
PAGE = (
    '# Trial { #trial }\n\n```python\n--8<-- "area/prints.py:changed"\n```\n\nIt is {{ many:.2f }}, `{{ none:.2f }}`.\n'
)


@pytest.fixture
def check(project, monkeypatch, capsys):
    """Return a function that checks articles with the machine's own instructions and with one other setting."""
    monkeypatch.setattr(portable, "settings", lambda: {"own": {}, "AVX": {"ATEN_CPU_CAPABILITY": "avx"}, "XYZ": None})
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "set by the caller")
    monkeypatch.chdir(project.root)

    def check_articles(*articles) -> tuple[int, str]:
        code = portable.main([*articles])
        return code, capsys.readouterr().out

    return check_articles


def test_each_snippet_is_reported(project, check):
    cached = sorted((project.root / ".cache").rglob("*.json"))
    project.write("snippets/area/fails.py", FAILS)
    project.write("snippets/area/prints.py", PRINTS)
    for language in "en", "zh":
        project.write(f"docs/{language}/area/prints.md", PAGE + "\nAnd {{ many:.4f }}.\n" * (language == "zh"))
    code, output = check("area/prints", "area/fails", "area/roots")
    assert code == 1
    assert output.splitlines() == [
        "running under own",
        "running under AVX ATEN_CPU_CAPABILITY='avx'",
        "not run under XYZ, which this processor lacks",
        "fails    snippets/area/fails.py",
        "    under AVX: snippets/area/fails.py:5, cell wrong: AssertionError",
        "differs  snippets/area/prints.py",
        "    under AVX: cell changed prints otherwise",
        "      -None",
        "      +avx",
        "    under AVX: docs/zh/area/prints.md:9 quotes {{ many:.4f }} as 1.2500, not 1.2501",
        "holds    snippets/area/roots.py",
    ]
    assert sorted((project.root / ".cache").rglob("*.json")) == cached


def test_unchanged_results_are_not_an_error(check):
    assert check("area/roots")[0] == 0


def test_unknown_article_is_an_error(project, check, capsys):
    assert portable.main(["area/nothing"]) == 1
    assert "there is no snippet of area/nothing" in capsys.readouterr().err


def test_long_difference_is_cut():
    numbers = "\n".join(map(str, range(100)))
    lines = portable._diff(numbers, numbers.replace("\n", "!\n")).splitlines()
    assert lines[0] == "-0"
    assert len(lines) == portable.MAX_DIFFERENCE + 1
    assert lines[-1].startswith("… and ")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are names of x86-64 instructions")
def test_numpy_uses_only_baseline_instructions_and_does_not_warn():
    show = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    variables = {**os.environ, **portable.lowest()}
    done = subprocess.run([sys.executable, "-W", "error", "-c", show], env=variables, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_settings_restrict_the_same_libraries(monkeypatch):
    monkeypatch.setattr(portable, "_dispatched", lambda: ["X86_V3", "X86_V4", "AVX512_SPR"])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    own, avx2, sse, compatible = portable.settings().values()
    assert own == {}
    assert avx2.keys() == sse.keys() == portable.lowest().keys()
    assert avx2["NPY_DISABLE_CPU_FEATURES"] == "X86_V4 AVX512_SPR"
    assert sse["NPY_DISABLE_CPU_FEATURES"] == "X86_V3 X86_V4 AVX512_SPR"
    assert compatible == {"MKL_CBWR": "COMPATIBLE"}


def test_settings_that_the_processor_lacks_are_skipped(monkeypatch):
    monkeypatch.setattr(portable, "_dispatched", list)
    assert portable.settings()["AVX2"] is None
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert [*portable.settings().values()] == [{}, None, None, None]
