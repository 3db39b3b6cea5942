"""Snippets that fail, print or are quoted otherwise with other instructions are told of, and others hold."""

import os
import platform
import subprocess
import sys

import portable
import pytest

# As if the instructions of a setting changed what a snippet computes.
PRINTS = """\
# %% kept
import os

print("same")

# %% told
print("first")
print(os.environ.get("ATEN_CPU_CAPABILITY"))
many = 1.25 if "ATEN_CPU_CAPABILITY" in os.environ else 1.2501
"""
FAILS = '# %% fine\nimport os\n\n# %% wrong tags=["hidden"]\nassert "ATEN_CPU_CAPABILITY" not in os.environ\n'
PAGE = '# Trial { #trial }\n\n```python\n--8<-- "area/prints.py:told"\n```\n\nIt is {{ many:.2f }}, `{{ none:.2f }}`.\n'


@pytest.fixture
def told(project, monkeypatch, capsys):
    """What is said of snippets under this machine's own instructions and one setting, and the exit code."""
    monkeypatch.setattr(portable, "settings", lambda: {"own": {}, "AVX": {"ATEN_CPU_CAPABILITY": "avx"}, "XYZ": None})
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "kept from those who call")
    monkeypatch.chdir(project.root)

    def tell(*articles) -> tuple[int, str]:
        code = portable.main([*articles])
        return code, capsys.readouterr().out

    return tell


def test_each_snippet_has_its_line(project, told):
    cached = sorted((project.root / ".cache").rglob("*.json"))
    project.write("snippets/area/fails.py", FAILS)
    project.write("snippets/area/prints.py", PRINTS)
    for language in "en", "zh":
        project.write(f"docs/{language}/area/prints.md", PAGE + "\nAnd {{ many:.4f }}.\n" * (language == "zh"))
    code, said = told("area/prints", "area/fails", "area/roots")
    assert code == 1
    assert said.splitlines() == [
        "running under own",
        "running under AVX ATEN_CPU_CAPABILITY='avx'",
        "not run under XYZ, which this processor lacks",
        "fails    snippets/area/fails.py",
        "    under AVX: snippets/area/fails.py:5, cell wrong: AssertionError",
        "differs  snippets/area/prints.py",
        "    under AVX: cell told prints otherwise",
        "      -None",
        "      +avx",
        "    under AVX: docs/zh/area/prints.md:9 quotes {{ many:.4f }} as 1.2500, not 1.2501",
        "holds    snippets/area/roots.py",
    ]
    assert sorted((project.root / ".cache").rglob("*.json")) == cached


def test_what_holds_is_no_error(told):
    assert told("area/roots")[0] == 0


def test_article_that_is_not_there(project, told, capsys):
    assert portable.main(["area/nothing"]) == 1
    assert "there is no snippet of area/nothing" in capsys.readouterr().err


def test_long_difference_is_cut():
    numbers = "\n".join(map(str, range(100)))
    lines = portable._diff(numbers, numbers.replace("\n", "!\n")).splitlines()
    assert lines[0] == "-0"
    assert len(lines) == portable.MAX_DIFFERENCE + 1
    assert lines[-1].startswith("… and ")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names for what they can do")
def test_numpy_keeps_to_the_lowest_without_a_word():
    show = "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    variables = {**os.environ, **portable.lowest()}
    done = subprocess.run([sys.executable, "-W", "error", "-c", show], env=variables, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_all_settings_choose_for_the_same_libraries(monkeypatch):
    monkeypatch.setattr(portable, "_dispatched", lambda: ["X86_V3", "X86_V4", "AVX512_SPR"])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    own, avx2, sse, compatible = portable.settings().values()
    assert own == {}
    assert avx2.keys() == sse.keys() == portable.lowest().keys()
    assert avx2["NPY_DISABLE_CPU_FEATURES"] == "X86_V4 AVX512_SPR"
    assert sse["NPY_DISABLE_CPU_FEATURES"] == "X86_V3 X86_V4 AVX512_SPR"
    assert compatible == {"MKL_CBWR": "COMPATIBLE"}


def test_what_the_processor_lacks_is_not_run(monkeypatch):
    monkeypatch.setattr(portable, "_dispatched", list)
    assert portable.settings()["AVX2"] is None
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert [*portable.settings().values()] == [{}, None, None, None]
