"""Errors that stop the build: exit code 1, a message with place and cause, and an unchanged site."""

import re
import textwrap

import psutil
import pytest

from zhixing_site import cli

# A cell's further option, its code and the cause.
EMPTY = "plt.figure(num='{}').add_subplot().set({})\n"
FRAMES = {
    "of which there is only one": ("", EMPTY.format(1, "ylim=(0, 1)"), "frames=… stands for at least two figures"),
    "of which there is none": ("", "1\n", "frames=… stands for at least two figures; the cell leaves 0"),
    "without labels": ("", "plt.figure()\nplt.figure()\n", "a frame has a label"),
    "of one label": (
        "",
        "plt.figure().set_label('1')\nplt.figure().set_label('1')\n",
        "two frames have the same label: ['1', '1']",
    ),
    "without the poster": (
        ' poster="3"',
        EMPTY.format(1, "") + EMPTY.format(2, ""),
        "no frame is labelled 3, the poster; the frames are ['1', '2']",
    ),
    "of different sizes": (
        "",
        "plt.figure(num='1')\nplt.figure(num='2', figsize=(2, 2))\n",
        "the picture would jump: the size is [",
    ),
    "with different axes": (
        "",
        EMPTY.format(1, "") + "plt.figure(num='2')\n",
        "jump: the number of axes is [1.0] in the frame 1",
    ),
    "of different ranges of y": (
        "",
        EMPTY.format(1, "ylim=(0, 1)") + EMPTY.format(2, "ylim=(0, 2)"),
        "the picture would jump: the y range of axes 1 is [0.0, 1.0] in the frame 1 and [0.0, 2.0] in 2",
    ),
    "of different ranges of x": (
        "",
        EMPTY.format(1, "xlim=(0, 1)") + EMPTY.format(2, "xlim=(0, 3)"),
        "the x range of axes 1 is [0.0, 1.0] in the frame 1 and [0.0, 3.0] in 2",
    ),
    "with a label without Chinese": (
        "",
        EMPTY.format(1, "") + EMPTY.format("two", ""),
        "no Chinese in {catalogue}, below [text] or [names], for 'two'",
    ),
}

# A snippet with the cell `wrong`, in which `# here` marks the line that the message must name; and the cause.
CELLS = {
    "raises": (
        "# %% fine\nx = 1\n\n# %% wrong\ny = 0\nx / y  # here\n",
        "ZeroDivisionError: division by zero",
    ),
    "raises in src": (
        "# %% wrong\nfrom things.power import square\n\nsquare(None)  # here\n",
        "TypeError: unsupported operand",
    ),
    "raises in its own function": (
        "# %% wrong\ndef fails():\n    raise KeyError('depth')  # here\n\n\nfails()\n",
        "KeyError: 'depth'",
    ),
    "raises in the function of an earlier cell": (
        "# %% fine\ndef call(f):\n    return f()\n\n# %% wrong\ncall(lambda: 1 / 0)  # here\n",
        "ZeroDivisionError",
    ),
    "fails an assertion while hidden": (
        "# %% fine\nx = 1\n\n# %% wrong tags=[\"hidden\"]\nassert x == 2, 'x is one'  # here\n",
        "AssertionError: x is one",
    ),
    "raises another exception": (
        '# %% wrong raises="KeyError"\nx = 1\nint("one")  # here\n',
        "should raise KeyError, but raises ValueError: invalid literal",
    ),
    "raises a subclass": (
        '# %% wrong raises="LookupError"\n{}["a"]  # here\n',
        "should raise LookupError, but raises KeyError",
    ),
    "does not raise": (
        '# %% wrong raises="KeyError"\nx = 1  # here\n',
        "should raise KeyError, but does not",
    ),
    "raises in a thread": (
        "# %% wrong\nimport threading\n\nthread = threading.Thread(target=lambda: 1 / 0)  # here\nthread.start()\n"
        "thread.join()\n",
        "ZeroDivisionError",
    ),
    "raises in a destructor": (
        "# %% wrong\nclass Fragile:\n    def __del__(self):\n        raise OSError('gone')  # here\n\n\n"
        "fragile = Fragile()\ndel fragile\n",
        "OSError: gone",
    ),
    "raises the expected exception, and another in a thread": (
        '# %% wrong raises="KeyError"\nimport threading\n\nthread = threading.Thread(target=lambda: 1 / 0)  # here\n'
        'thread.start()\nthread.join()\n{}["a"]\n',
        "ZeroDivisionError",
    ),
    "warns": (
        "# %% wrong\nimport warnings\n\nwarnings.warn('too hot')  # here\n",
        "warns UserWarning: too hot",
    ),
    "warns in another category": (
        '# %% wrong warns="FutureWarning"\nimport warnings\n\nwarnings.warn("too hot")\nwarnings.warn("later", '
        "FutureWarning)\n",
        "warns UserWarning: too hot",
    ),
    "does not warn": (
        '# %% wrong warns="UserWarning"\nx = 1  # here\n',
        "should warn UserWarning, but does not",
    ),
    "warns of its own deprecation": (
        "# %% wrong\nimport warnings\n\nwarnings.warn('old', DeprecationWarning)  # here\n",
        "warns DeprecationWarning: old",
    ),
    "calls a deprecated function": (
        "# %% wrong\nfrom elsewhere import old\n\nold.call(stacklevel=2)  # here\n",
        "warns DeprecationWarning: old.call",
    ),
    "leaves a file open": (
        "# %% wrong\ntext = open(__file__).read()  # here\n",
        "warns ResourceWarning: unclosed file",
    ),
    "contains an invalid escape": (
        "# %% wrong\nx = '\\d'  # here\n",
        "warns DeprecationWarning: invalid escape sequence",
    ),
    "is a syntax error": (
        "# %% fine\nx = 1\n\n# %% wrong\n\ny = 2\nz = = 3  # here\n",
        "SyntaxError: invalid syntax",
    ),
    "is indented wrongly": (
        "# %% wrong\nif True:\nx = 1  # here\n",
        "IndentationError",
    ),
    "uses a magic": (
        "# %% wrong\nx = 1\n%timeit x  # here\n",
        "SyntaxError",
    ),
    "quits": (
        "# %% wrong\nimport sys\n\nsys.exit()  # here\n",
        "quits the process: SystemExit",
    ),
    "quits with a code": (
        "# %% wrong\nimport sys\n\nsys.exit(3)  # here\n",
        "quits the process: SystemExit: 3",
    ),
    "exits immediately with code 0": (
        "# %% wrong\nimport os  # here\n\nos._exit(0)\n",
        "quits the process with exit code 0",
    ),
    "exits immediately with code 3": (
        "# %% wrong\nimport os  # here\n\nos._exit(3)\n",
        "quits the process with exit code 3",
    ),
    "crashes": (
        "# %% wrong\nimport ctypes\n\nctypes.string_at(0)  # here\n",
        "terminated by SIGSEGV",
    ),
    "crashes in a function": (
        "# %% fine\nimport ctypes\n\n\ndef read(address):\n    return ctypes.string_at(address)  # here\n\n\n"
        "# %% wrong\nread(0)\n",
        "terminated by SIGSEGV",
    ),
    "is killed": (
        "# %% wrong\nimport os  # here\n\nos.kill(os.getpid(), 9)\n",
        "terminated by SIGKILL",
    ),
    "draws two figures": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.plot([1, 2])\nplt.figure()\nplt.plot([1, 2])\n",
        "draws 2 figures",
    ),
    **{
        f"draws frames {what}": (
            f'# %% wrong frames="$n$"{poster}\nimport matplotlib.pyplot as plt  # here\n\n{code}',
            cause,
        )
        for what, (poster, code, cause) in FRAMES.items()
    },
    "draws a label without Chinese": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.plot([1, 2])\nplt.title('two steps')\n",
        "the figure cannot be drawn: no Chinese in {catalogue}, below [text] or [names], for 'two steps'",
    ),
    "draws two labels without Chinese": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.plot([1, 2], label='one')\nplt.title('two steps')\n"
        "plt.legend()\n",
        "for 'two steps', 'one'",
    ),
    "draws a tick without Chinese": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.bar(['left', 'right'], [1, 2])\n",
        "no Chinese in {catalogue}, below [text] or [names], for",
    ),
    "draws a glyph that no font has": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.plot([1, 2])\nplt.title('𓀀')\n",
        "Glyph",
    ),
    "draws a formula that does not parse": (
        "# %% wrong\nimport matplotlib.pyplot as plt  # here\n\nplt.plot([1, 2])\nplt.title(r'$\\frac{1}$')\n",
        "the figure cannot be drawn",
    ),
}

# Malformed snippets, with the line and the cause in the message.
HEADERS = {
    "unquoted value": ("# %% first\n1\n\n# %% wrong raises=KeyError\n2\n", 4, "raises=KeyError"),
    "unquoted tag": ("# %% wrong tags=[hidden]\n1\n", 1, "tags=[hidden]"),
    "bare tag": ("# %% wrong hidden\n1\n", 1, "wrong hidden"),
    "single quotes": ("# %% wrong raises='KeyError'\n1\n", 1, "raises='KeyError'"),
    "another tag": ('# %% wrong tags=["skip"]\n1\n', 1, 'tags=["skip"]'),
    "another key": ('# %% wrong timeout="3"\n1\n', 1, 'timeout="3"'),
    "a name with a hyphen": ("# %% first\n1\n\n# %% not-a-name\n2\n", 4, "not-a-name"),
    "a name with a space": ("# %% two words\n1\n", 1, "two words"),
    "a name that starts with a digit": ("# %% 2nd\n1\n", 1, "2nd"),
    "a name in Chinese": ("# %% 平方\n1\n", 1, "平方"),
    "no name": ("# %% first\n1\n\n# %%\n2\n", 4, "# %% name"),
    "a Markdown cell": ("# %% [markdown]\n# Text\n", 1, "[markdown]"),
    "no space": ("#%% first\n1\n", 1, "#%% first"),
    "white space after it": ("# %% first \n1\n", 1, "# %% name"),
    "code before the first cell": ("import os\n\n# %% first\n1\n", 1, "a snippet starts with a cell"),
    "no cell": ("x = 1\n", 1, "a snippet starts with a cell"),
    "nothing": ("", 1, "a snippet starts with a cell"),
    "a poster without frames": ('# %% wrong poster="1"\n1\n', 1, "which is missing"),
    "empty frames": ('# %% wrong frames=""\n1\n', 1, 'frames=""'),
    "the same name twice": ("# %% first\n1\n\n# %% other\n2\n\n# %% first\n3\n", 7, "a second cell with this name"),
}

# The body of a page from its third line on, with the line and the cause in the message.
TRIAL = """\
# %% one
print(1)

# %% values tags=["hidden"]
word, number, unbounded = "small", 1.5, float("inf")
"""
MARKS = {
    "missing snippet": (
        '```python\n--8<-- "area/nothing.py:one"\n```',
        4,
        "there is no snippet snippets/area/nothing.py",
    ),
    "missing cell": (
        '```python\n--8<-- "area/roots.py:root"\n--8<-- "area/roots.py:cube"\n```',
        5,
        "there is no cell cube in snippets/area/roots.py",
    ),
    "missing source file": (
        '```python\n--8<-- "src/things/nothing.py:f"\n```',
        4,
        "there is no file src/things/nothing.py",
    ),
    "missing whole file": (
        '```python\n--8<-- "src/things/nothing.py"\n```',
        4,
        "there is no file src/things/nothing.py",
    ),
    "missing definition": (
        '```python\n--8<-- "src/things/power.py:cube"\n```',
        4,
        "there is no definition cube in src/things/power.py",
    ),
    "missing method": (
        '```python\n--8<-- "src/things/power.py:square.forward"\n```',
        4,
        "there is no definition square.forward in src/things/power.py",
    ),
    "missing figure": ("![A curve.](area/roots.py:nothing)", 3, "there is no cell nothing in snippets/area/roots.py"),
    "missing figure's snippet": ("![A curve.](area/no.py:curve)", 3, "there is no snippet snippets/area/no.py"),
    "figure of a cell that draws none": ("![A curve.](area/roots.py:root)", 3, "draws no"),
    "missing value": ("Text.\n\nIt is {{ nothing }}.", 5, "`nothing`"),
    "missing value in a formula": ("It is $x = {{ nothing }}$.", 3, "`nothing`"),
    "missing value in a caption": ("![At {{ nothing }}.](area/squares.py:curve)", 3, "`nothing`"),
    "infinite value": ("It is {{ unbounded }}.", 3, "`unbounded`"),
    "bad format": ("It is {{ number:.2q }}.", 3, "format"),
    "number's format for a text": ("It is {{ word:.2f }}.", 3, "format"),
    "value without spaces": ("It is {{number}}.", 3, "{{"),
    "value that is an expression": ("It is {{ number * 2 }}.", 3, "{{"),
    "formula that does not parse": ("So\n$\\frac{1}{$.", 4, "the formula does not parse"),
    "block formula that does not parse": ("So\n\n$$\n\\nosuchcommand{x}\n$$", 5, "the formula does not parse"),
    "formula in a caption that does not parse": ("![At $x^$.](area/squares.py:curve)", 3, "the formula does not parse"),
    "stray dollar": ("It costs 5 $ today.", 3, "stray `$`"),
    "fence that is not closed": ("~~~text\n--8<--\n", 4, "stray"),
    "two prices": ("Between $5 and $6.", 3, "stray `$`"),
    "formula over a blank line": ("So $x\n\ny$.", 3, "stray `$`"),
    "include outside a fence": ('--8<-- "area/roots.py:root"', 3, "stray `--8<--`"),
    "formula in a quotation": ("> $$\n> x\n> $$", 3, "stray"),
    "include in a quotation": ('> ```python\n> --8<-- "src/things/power.py:square"\n> ```', 4, "stray"),
    "include in a list's first line": ('- ```python\n  --8<-- "src/things/power.py:square"\n  ```', 4, "stray"),
    "typed Python": ("```python\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python by its short name": ("```py\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python by its full name": ("```python3\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python by a class": ("``` { .python }\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python with options": ('```python title="x"\nx = 1\n```', 3, "Python typed into the page"),
    "typed transcript": ("```pycon\n>>> 1\n1\n```", 3, "Python typed into the page"),
    "typed Python between tildes": ("~~~python\nx = 1\n~~~", 3, "Python typed into the page"),
    "typed Python in capitals": ("```PYTHON\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python by an alias": ("```py3\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python for Sage": ("~~~ sage\nx = 1\n~~~", 3, "Python typed into the page"),
    "typed Python for IPython": ("````ipython3 hl_lines='1'\nx = 1\n````", 3, "Python typed into the page"),
    "typed Python by a class in capitals": ("``` { #a .Python }\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python as a second class": ("``` { .text .py }\nx = 1\n```", 3, "Python typed into the page"),
    "typed Python of another kernel": ("```{code-cell} ipython3\nx = 1\n```", 3, "Python typed into the page"),
    "typed cell of MyST": ("```{code-cell}\nx = 1\n```", 3, "`code-cell` is no language"),
    "typed cell of Sphinx": ("```{jupyter-execute}\nx = 1\n```", 3, "`jupyter-execute` is no language"),
    "typed Python without a language": ("```\nimport math\n```", 3, "Python typed into the page"),
    "typed session without a language": ("~~~\n>>> 1 + 1\n3\n~~~", 3, "Python typed into the page"),
    "typed Python in a quotation": ("> ```python\n> x = 1\n> ```", 3, "Python typed into the page"),
    "typed Python in a quotation in a list": (
        "1. a\n\n    > ```Py\n    > x = 1\n    > ```",
        5,
        "Python typed into the page",
    ),
    "typed Python behind a tab": ("!!! note\n\n\t```python\n\tx = 1\n\t```", 5, "Python typed into the page"),
    "typed Python that is not closed": ("```python\nimport nothing", 3, "a stray ````"),
    "typed Python in HTML": ("<pre>\nx = 1\n</pre>", 3, "a stray `<pre`"),
    "typed Python in code of HTML": ("<p><CODE>x = 1</CODE></p>", 3, "a stray `<CODE`"),
    "figure without brackets in pairs": ("![On [0, 1).](area/squares.py:curve)", 3, "a figure is `![caption]"),
    "figure of a file with a hyphen": ("![On it.](area/my-page.py:curve)", 3, "a figure is `![caption]"),
    "link to a cell": ("[On it](area/squares.py:curve)", 3, "a figure is `![caption]"),
    "formula between parentheses": (r"So \(x^2\).", 3, "a formula is between `$`"),
    "formula between brackets": ("So\n\n\\[\nx^2\n\\]", 5, "a formula is between `$`"),
    "formula between escaped brackets": (r"So \\[a = b\\].", 3, "a formula is between `$`"),
    "formula of GitHub": ("So $`x`$.", 3, "a formula is between `$`"),
    "environment outside a formula": ("\\begin{equation}x\n\\end{equation}", 4, "a formula is between `$`"),
    "command outside a formula": (r"So \alpha.", 3, "a formula is between `$`"),
    "index outside a formula": ("H~2~O", 3, "a formula is between `$`"),
    "label of D2L": ("Text\n:label:`sec_x`", 4, "`:label:` would be shown as it is typed; a heading ends with"),
    "reference of D2L": ("See :numref:`sec_x`.", 3, "a link to it is `[text](page.md#id)`"),
    "tab of D2L": (":begin_tab:`pytorch`\nx", 3, "there are no tabs"),
    "tab of Material": ('=== "Tab"\n\n    x', 3, "there are no tabs"),
    "task": ("- a\n- [x] b", 4, "a list has items `- text`"),
    "break of MyST": ("+++", 3, "cells are in the snippet"),
    "value of MyST": ("It is {eval}`x`.", 3, "a value is `{{ name:.2f }}`"),
    "label of MyST": ("(label)=", 3, "a heading ends with"),
    "box of MyST": (":::{note}\nx", 3, "a box is `!!! note"),
    "box of GitHub": ("> [!NOTE]\n> x", 3, "a box is `!!! note"),
    "box of Sphinx": (".. note:: x", 3, "a box is `!!! note"),
    "malformed box": ('!!! note: "A"\n\n    x', 3, "a box is `!!! note"),
    "icon": ("So :smile:", 3, "would be shown as it is typed"),
    "link of a wiki": ("See [[Roots]].", 3, "a link is `[text](page.md)`"),
    "citation of Pandoc": ("See [@adams2020, p. 3].", 3, "a link is `[text](page.md)`"),
    "strikethrough": ("Not ~~this~~.", 3, "emphasis is `*text*`"),
    "tag of Jinja": ("{% raw %}", 3, "a value is `{{ name:.2f }}`"),
    "footnote without a text": ("Text[^1].", 3, "the footnote [^1]: no line starts with"),
    "footnote without a reference": ("Text.\n\n[^a]: Text.", 5, "the footnote [^a]: nothing refers to it"),
    "address that is none": ("[x](http://[)", 3, "Invalid IPv6 URL"),
    "end tag of nothing": ("Text.\n\n</article>", 5, "</article> that ends no <article>"),
    "style sheet": ("<style>p { color: red }</style>", 3, "<style>, which belongs to the theme"),
    "script": ("<script>\nalert()\n</script>", 3, "<script>, which belongs to the theme"),
    "heading in a heading": ("## A { #a }# B { #b }", 3, "a heading has one `{ #id }`"),
    "tag that is not closed": ("Text <b> and.", 3, "<b> without </b>"),
    "tags that overlap": ("<i>x</b></i>", 3, "</b> that ends no <b>"),
    "start of a program": ("<?php", 3, "would hide the rest of the page"),
    "comment that is not closed": ("Text.\n<!-- text", 4, "would hide the rest of the page"),
    "API of nothing": ("::: things.nothing", 3, "there is no module things.nothing"),
    "typed Python in a box": ("!!! note\n\n    ```python\n    x = 1\n    ```", 5, "Python typed into the page"),
    "formula in a heading": ("## The $x$ axis { #axis }", 3, "a heading must not contain a formula or value"),
    "value in a heading": ("## At {{ number }} { #at }", 3, "a heading must not contain a formula or value"),
}

# The same for errors that are found before the sites are built.
STRUCTURE = {
    "include without a name": ('```python\n--8<-- "area/roots.py"\n```', 4, "a fence with includes may contain only"),
    "include next to typed code": (
        '```python\nx = 1\n--8<-- "area/roots.py:root"\n```',
        4,
        "a fence with includes may contain only",
    ),
    "include of a file with a hyphen": (
        '```python\n--8<-- "area/my-page.py:one"\n```',
        4,
        "a file or name to include has letters, digits and `_`, and no `-`",
    ),
    "include of a name with a space": (
        '```python\n--8<-- "area/roots.py:the root"\n```',
        4,
        "a file or name to include has letters, digits and `_`, and no ` `",
    ),
    "second of two headings without id": ("## One\n\n## Two\n", 5, "a heading without an id"),
    "second of two headings without id or with another's": ("## One\n\n## Two { #trial }\n", 5, "#trial"),
    "heading without id": ("Text.\n\n## Next\n", 5, "a heading without an id"),
    "heading without id or space": ("Text.\n\n##Next\n", 5, "a heading without an id"),
    "underlined heading without id": ("Text.\n\nNext\n----\n", 5, "a heading without an id"),
    "the same id twice": ("## Next { #next }\n\n## Again { #next }", 5, "next"),
}

# The different bodies of the English and the Chinese page, and parts of the message.
DIFFERENCES = {
    "another id": ("## B { #c }", "## B { #b }", ["#b", "no counterpart"]),
    "an added heading": ("## B { #b }\n\n## C { #c }", "## B { #b }", ["docs/en/{page}.md:5", "#c", "no counterpart"]),
    "a missing heading": ("", "## B { #b }", ["docs/zh/{page}.md:3", "#b", "no counterpart"]),
    "headings in another order": ("## B { #b }\n\n## C { #c }", "## C { #c }\n\n## B { #b }", ["no counterpart"]),
    "another cell": (
        '```python\n--8<-- "area/roots.py:root"\n```',
        '```python\n--8<-- "area/squares.py:table"\n```',
        ["a fence of section #trial differs", "area/roots.py:root", "area/squares.py:table"],
    ),
    "an added fence": ("```text\nx\n```", "", ["a fence of section #trial differs", "nothing"]),
    "fences in another order": (
        "```text\nx\n```\n\n```text\ny\n```",
        "```text\ny\n```\n\n```text\nx\n```",
        ["a fence of section #trial differs"],
    ),
    "another language of a fence": ("```text\nx\n```", "```toml\nx\n```", ["a fence of section #trial differs"]),
    "another formula": ("It is $x^2$.", "它是 $x^3$。", ["section #trial differs", "x^2", "x^3"]),
    "a missing formula": ("It is $x^2$.", "它是平方。", ["section #trial differs", "x^2"]),
    "another block formula": ("$$\nx^2\n$$", "$$\nx^3\n$$", ["section #trial differs", "x^2", "x^3"]),
    "block formulas in another order": ("$$a$$\n\n$$b$$", "$$b$$\n\n$$a$$", ["a block of section #trial differs"]),
    "another link": (
        "[r](roots.md)",
        "[r](squares.md)",
        ["a link of section #trial differs", "roots.md", "squares.md"],
    ),
    "a missing link": ("[r](roots.md)", "r", ["a link of section #trial differs", "roots.md"]),
    "another value": ("{{ one }}", "{{ two }}", ["a value of section #trial differs", "one", "two"]),
    "another figure": ("![A.](a/b.py:c)", "![B.](a/b.py:d)", ["a figure of section #trial differs", "a/b.py:d"]),
    "a formula in another section": (
        "$x$\n\n## B { #b }",
        "## B { #b }\n\n$x$",
        ["section #trial differs", "section #b differs"],
    ),
}


def failed_build(project, *options: str) -> str:
    """Build; check that the build fails and leaves the site unchanged; return the messages."""
    before = project.site()
    code, messages = project.build(*options)
    assert code == 1
    assert project.site() == before
    assert not list(project.root.glob(".cache/*/site"))
    assert "Traceback" not in messages
    return messages


def assert_error(messages: str, *, where: str, cause: str, pages: list[str]):
    """Check that one error has this place, cause and pages."""
    errors = re.split(r"\n(?=\S)", messages)
    (error,) = [error for error in errors if error.startswith(f"{where}: ")]
    assert cause in error
    for page in pages:
        assert f"shown on {page}" in error


ELSEWHERE = """\
import warnings


def call(stacklevel=1, category=DeprecationWarning):
    warnings.warn("old.call", category, stacklevel=stacklevel)
"""
# Code with which a snippet can import it: a module outside the cell and the project.
PATH = 'import sys\nfrom pathlib import Path\n\nsys.path.append(str(Path(__file__).parents[3] / "elsewhere"))\n'

# Modules of the project that warn, and the category of the warning.
SOURCES = {
    "deprecation": (
        "import warnings\n\n\ndef call():\n    warnings.warn('old', DeprecationWarning)  # here\n",
        "Deprecation",
    ),
    "open file": ("def call():\n    open(__file__).read()  # here\n", "Resource"),
    "deprecated call": (
        "from elsewhere import old\n\n\ndef call():\n    old.call(stacklevel=2)  # here\n",
        "Deprecation",
    ),
}
CATEGORIES = ["UserWarning", "FutureWarning", "RuntimeWarning", "DeprecationWarning"]


def index_of(cases: dict, case: str) -> int:
    return list(cases).index(case)


def error_of(messages: str, path: str) -> str:
    """Return the only error at this path."""
    (error,) = [error for error in re.split(r"\n(?=\S)", messages) if error.startswith(f"{path}:")]
    return error


@pytest.fixture(scope="module")
def wrong(pristine, tmp_path_factory):
    """Build a project with a snippet for each error; return the project and the messages."""
    project = pristine.copy(tmp_path_factory.mktemp("wrong") / "project")
    project.write("../elsewhere/elsewhere/__init__.py", "")
    project.write("../elsewhere/elsewhere/old.py", ELSEWHERE)
    snippets = {f"cells/no{number}": snippet for number, (snippet, _) in enumerate(CELLS.values())}
    for number, (module, _) in enumerate(SOURCES.values()):
        project.write(f"src/things/passing{number}.py", module)
        snippets[f"sources/no{number}"] = f"# %% wrong\nfrom things.passing{number} import call\n\ncall()\n"
    snippets = {name: f'# %% path tags=["hidden"]\n{PATH}\n{snippet}' for name, snippet in snippets.items()}
    headers = {f"headers/no{number}": snippet for number, (snippet, *_) in enumerate(HEADERS.values())}
    project.articles(snippets | headers)
    return project, failed_build(project)


@pytest.mark.parametrize("case", CELLS)
def test_cell_stops_the_build(wrong, case):
    (project, messages), (snippet, cause) = wrong, CELLS[case]
    name = f"cells/no{index_of(CELLS, case)}"
    line = project.line(f"snippets/{name}.py", "# here" if "# here" in snippet else cause.split(": ")[1])
    shown = [] if 'wrong tags=["hidden"]' in snippet else [project.line(f"docs/en/{name}.md", ":wrong")]
    pages = [f"docs/{language}/{name}.md:{number}" for language in ("en", "zh") for number in shown]
    cause = cause.replace("{catalogue}", f"snippets/{name}.toml")
    assert_error(messages, where=f"snippets/{name}.py:{line}, cell wrong", cause=cause, pages=pages)


def test_hidden_cell_names_the_pages_of_its_snippet(project):
    project.article("area/trial", '# %% one\n1\n\n# %% wrong tags=["hidden"]\nassert False\n')
    messages = failed_build(project)
    pages = ["docs/en/area/trial.md:4", "docs/zh/area/trial.md:4"]
    assert_error(messages, where="snippets/area/trial.py:5, cell wrong", cause="AssertionError", pages=pages)


def test_cell_after_a_failing_one_does_not_run(project):
    project.article(
        "area/trial", "# %% wrong\n1 / 0\n\n# %% later\nopen('../../reached', 'w').close()\nassert 1 == 2\n"
    )
    assert "AssertionError" not in failed_build(project)


def test_warning_inside_another_distribution_does_not_stop_a_run(project):
    project.write("../elsewhere/elsewhere/__init__.py", "")
    project.write("../elsewhere/elsewhere/old.py", ELSEWHERE)
    for category in CATEGORIES:
        call = f"from elsewhere import old\n\nold.call(category={category})\n"
        project.write(f"snippets/silent/{category}.py", f"# %% path\n{PATH}\n# %% right\n{call}")
        project.write(
            f"snippets/expected/{category}.py", f'# %% path\n{PATH}\n# %% expected warns="{category}"\n{call}'
        )
    assert project.run("snippets/silent", "snippets/expected") == (0, "")
    for category in CATEGORIES:
        assert project.printed(f"expected/{category}", "expected") == f"{category}: old.call\n"


@pytest.mark.parametrize("case", SOURCES)
def test_warning_in_src_stops_the_build(wrong, case):
    (project, messages), number = wrong, index_of(SOURCES, case)
    error, path = error_of(messages, f"snippets/sources/no{number}.py"), f"src/things/passing{number}.py"
    assert "cell wrong" in error
    assert f"warns {SOURCES[case][1]}Warning" in error
    assert f"{path}:{project.line(path, '# here')}" in error


def test_time_limit_ends_every_process_of_the_run(project):
    snippet = """\
# %% wrong
import subprocess
import sys
import time
from pathlib import Path

sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
detached = subprocess.Popen(sleep, start_new_session=True)
nested = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
subprocess.run([sys.executable, "-c", nested, *sleep])
Path(__file__).parents[3].joinpath("started").write_text(str(detached.pid))
time.sleep(1000)  # here
"""
    project.article("area/trial", snippet)
    before = {process.pid for process in psutil.process_iter()}
    messages = failed_build(project, "--seconds", "0.7")  # of processor time, which sleeping does not use
    pages = [f"docs/{language}/area/trial.md:4" for language in ("en", "zh")]
    line = project.line("snippets/area/trial.py", "# here")
    assert_error(
        messages, where=f"snippets/area/trial.py:{line}, cell wrong", cause="lasts longer than 7 s", pages=pages
    )
    assert project.read("../started")
    new = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
    assert not [process for process in new if "time.sleep(1000)" in " ".join(process.info["cmdline"] or [])]
    with pytest.raises(psutil.NoSuchProcess):
        psutil.Process(int(project.read("../started")))


BUSY = "import time\nwhile time.process_time() < {}: pass"
# Runs that each take more than a second of processor time, in the named processes.
HARD = {
    "the run itself": "while True: pass  # here\n",
    "two simultaneous processes": f"""\
both = [subprocess.Popen([sys.executable, "-c", {BUSY.format(0.8)!r}]) for _ in range(2)]
assert [process.wait() for process in both] == [0, 0]  # here
time.sleep(1000)  # here
""",
    "consecutive processes": f"""\
while True:  # here
    subprocess.run([sys.executable, "-c", {BUSY.format(0.4)!r}])  # here
""",
    "a process that is not waited for": f"""\
subprocess.Popen([sys.executable, "-c", {BUSY.format(3)!r}], start_new_session=True)
time.sleep(1000)  # here
""",
}


@pytest.mark.parametrize("body", HARD.values(), ids=HARD)
def test_processor_time_of_all_processes_is_limited(project, body):
    path = "snippets/area/trial.py"
    project.write(path, f"# %% wrong\nimport subprocess\nimport sys\nimport time\n\n{body}")
    code, messages = project.run("--seconds", "1", path)
    assert code == 1
    assert re.match(rf"{path}:\d+, cell wrong: takes more than 1 s of processor time\n", messages)
    assert "# here" in project.read(path).splitlines()[int(messages.split(":")[1].partition(",")[0]) - 1]


def test_processes_left_by_a_successful_run_are_ended(project):
    snippet = """\
# %% leaves
import subprocess
import sys

process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
pid = process.pid
process.returncode = 0  # so that it does not warn
"""
    project.article("area/trial", snippet)
    assert project.build() == (0, "")
    assert not psutil.pid_exists(project.notebook("area/trial")["metadata"]["zhixing"]["values"]["pid"])


MEMORY_USERS = {
    "the run itself": "blocks = []\nwhile True:\n    blocks.append(b'x' * (32 << 20))\n    time.sleep(0.02)\n",
    "another process": """\
allocate = "import time; block = b'x' * (900 << 20); time.sleep(1000)"
subprocess.run([sys.executable, "-c", allocate], start_new_session=True)
""",
}


@pytest.mark.parametrize("body", MEMORY_USERS.values(), ids=MEMORY_USERS)
def test_memory_limit_ends_the_run(project, body):
    project.article("area/trial", f"# %% wrong\nimport subprocess\nimport sys\nimport time\n\n{body}")
    messages = failed_build(project, "--gigabytes", "0.8")
    assert re.search(r"snippets/area/trial\.py:\d+, cell wrong: uses more than 0\.8 GB of memory", messages)
    assert "shown on docs/en/area/trial.md:4" in messages


@pytest.mark.parametrize("case", HEADERS)
def test_malformed_snippet_stops_the_build(wrong, case):
    _, line, cause = HEADERS[case]
    error = error_of(wrong[1], f"snippets/headers/no{index_of(HEADERS, case)}.py")
    assert re.match(rf"snippets/headers/no\d+\.py:{line}\b", error)
    assert cause in error


# The language whose page has no caption, and the text in its place.
CAPTIONS = [("en", ""), ("en", " "), ("zh", ""), ("zh", " ")]


@pytest.fixture(scope="module")
def mark_messages(pristine, tmp_path_factory) -> str:
    """Build a page for each invalid mark; return the messages."""
    project = pristine.copy(tmp_path_factory.mktemp("marks") / "project")
    pages = {"en": {}, "zh": {}}
    for number, (body, *_) in enumerate(MARKS.values()):
        name = f"area/trial{number}"
        text = f"# Trial {{ #trial }}\n\n{body}\n"
        if "{{" in body:  # values are those of the page's own snippet
            project.write(f"snippets/{name}.py", TRIAL)
            text += f'\n```python\n--8<-- "{name}.py:one"\n```\n'
        pages["en"][name] = pages["zh"][name] = text
    for number, (without, caption) in enumerate(CAPTIONS):
        for language, texts in pages.items():
            shown = caption if language == without else "A curve."
            texts[f"area/caption{number}"] = f"# Trial {{ #trial }}\n\n![{shown}](area/squares.py:curve)\n"
    project.pages(pages["en"], pages["zh"])
    return failed_build(project)


@pytest.mark.parametrize("mark", MARKS)
def test_mark_stops_the_build(mark_messages, mark):
    _, line, cause = MARKS[mark]
    where = rf"docs/en/area/trial{list(MARKS).index(mark)}\.md:{line}\b"
    (error,) = [error for error in mark_messages.splitlines() if re.search(where, error)]
    assert cause in error


@pytest.mark.parametrize(("body", "line", "cause"), STRUCTURE.values(), ids=STRUCTURE)
def test_structure_of_a_page_stops_the_build(project, body, line, cause):
    project.page("area/trial", "# Trial { #trial }\n\n" + body + "\n")
    messages = failed_build(project)
    assert re.search(rf"docs/(en|zh)/area/trial\.md:{line}\b", messages)
    assert cause in messages


# What Markdown shows as a block of code, or does not, other than a fence of the source; and the line.
BLOCKS = {
    "indented by spaces": ("Text.\n\n    import math\n", 5, "a block of code that is no fence"),
    "indented by a tab": ("\timport math\n", 3, "a block of code that is no fence"),
    "with a formula": ("    cost = $x$\n", 3, "a block of code that is no fence"),
    "with a value": ("Text.\n\n    nine = {{ nine }}\n", 5, "a block of code that is no fence"),
    "in a list": ("- a\n\n        import math\n", 5, "a block of code that is no fence"),
    "in a quotation": (">     import math\n", 3, "a block of code that is no fence"),
    "a fence in it": (
        '    ```python\n    --8<-- "area/squares.py:table"\n    ```\n',
        3,
        "a block of code that is no fence",
    ),
    "a fence with other words": ("```text and more\nx y\n```\n", 4, "a fence that is not shown as one"),
    "a fence that is not all indented": (
        "!!! note\n\n    ```text\nx y\n    ```\n",
        6,
        "a fence that is not shown as one",
    ),
}


@pytest.fixture(scope="module")
def block_errors(pristine, tmp_path_factory) -> list[str]:
    """Build a page for each such block, and one with fences in all places; return the errors."""
    project = pristine.copy(tmp_path_factory.mktemp("blocks") / "project")
    pages = {f"area/no{number}": f"# Trial {{ #trial }}\n\n{body}" for number, (body, *_) in enumerate(BLOCKS.values())}
    for name, text in pages.items():
        if "{{ nine }}" in text:
            project.write(f"snippets/{name}.py", '# %% values tags=["hidden"]\nnine = 9\n')
    text = "```text\n$x$ <b> &amp; `a`\n```\n"
    code = '```python\n--8<-- "area/squares.py:table"\n```\n'
    places = [textwrap.indent(block, "    ") for block in (text, code)]
    quoted = "".join(f"> {line}\n" for line in text.splitlines())
    pages["area/right"] = "# Right { #right }\n\n" + "\n".join(
        [
            text,
            code,
            "!!! note\n",
            *places,
            "- a\n",
            *places,
            quoted,
            "<div markdown>\n",
            text,
            "</div>\n",
            "<!--\n",
            code,
            "-->",
        ]
    )
    project.pages(pages)
    return failed_build(project).splitlines()


@pytest.mark.parametrize("case", BLOCKS)
def test_block_that_is_no_fence_stops_the_build(block_errors, case):
    page, (_, line, cause) = f"area/no{index_of(BLOCKS, case)}.md", BLOCKS[case]
    errors = [error for error in block_errors if f"docs/en/{page}:" in error]
    assert f"docs/en/{page}:{line}: {cause}" in "\n".join(errors)


def test_fences_in_all_places_are_blocks(block_errors):
    assert not [error for error in block_errors if "area/right" in error]


DOCSTRING = '''\
"""A module."""


def square(x):
    """The square of `x**2`, and of "n".

    Example:
        >>> print("$x^2$ :a: {x}")
        $x^2$ :a: {x}
    """
    return x * x


def _hidden():
    """It is $x^2$."""
'''
DOCSTRINGS = {
    "formula": ("It is $x^2$.", "the formula `$x^2$` would be shown as it is typed"),
    "block formula": ("$$x$$", "the formula `$$x$$` would be shown"),
    "command": (r"It is \\alpha.", "the formula"),
    "role of Sphinx": ("See :func:`cube`.", "`:func:` would be shown as it is typed"),
    "fence of Python": ("```python\n    cube(1)\n    ```", "Python typed into the page"),
}


@pytest.mark.parametrize("case", DOCSTRINGS)
def test_docstring_of_a_documented_module_is_checked(project, case):
    part, cause = DOCSTRINGS[case]
    text = DOCSTRING.replace(
        "return x * x\n", f'return x * x\n\n\ndef cube(x):\n    """The cube.\n\n    {part}\n    """\n'
    )
    project.write("src/things/power.py", text)
    project.page("area/trial", "# Trial { #trial }\n\n::: things.power\n")
    errors = failed_build(project).splitlines()
    assert errors[0].startswith(
        f"src/things/power.py:{project.line('src/things/power.py', 'The cube') + 2}: in a docstring: "
    )
    assert cause in errors[0]
    assert len(errors) == 1


def test_dead_link_in_a_docstring_names_its_file(project):
    project.write(
        "src/things/power.py", 'def square(x):\n    """The square; see [roots](#nowhere)."""\n    return x * x\n'
    )
    page = '# Trial { #trial }\n\n::: things.power\n\n<a href="#nowhere">x</a>\n'
    project.page("area/trial", page)
    assert "en/area/trial/index.html: dead link #nowhere" in failed_build(project)  # the page's own
    project.page("area/other", page.partition("<a")[0] + '<a href="#&#110;owhere">x</a>\n')
    error = "src/things/power.py:2: dead link #nowhere: the page has no #nowhere\n  shown on en/area/other/index.html"
    assert error in failed_build(project)


@pytest.mark.parametrize("line", ["def broken(:", '  """Lengths."""', "x = = 1"])
def test_module_that_is_no_python_stops_the_build(project, line):
    project.write("src/zhixing/area/__init__.py", "")
    project.write("src/zhixing/area/ruler.py", f"x = 1\n{line}\n")
    assert "src/zhixing/area/ruler.py:2: " in failed_build(project)


def test_imported_name_is_not_a_definition(project):
    project.write("src/things/borrowed.py", "from math import sqrt\n")
    project.page("area/trial", '# Trial { #trial }\n\n```python\n--8<-- "src/things/borrowed.py:sqrt"\n```\n')
    messages = failed_build(project)
    assert "docs/en/area/trial.md:4: there is no definition sqrt in src/things/borrowed.py" in messages


def test_error_of_both_pages_names_both(project):
    project.page("area/trial", '# Trial { #trial }\n\n```python\n--8<-- "area/nothing.py:one"\n```\n')
    messages = failed_build(project)
    assert "docs/en/area/trial.md:4" in messages
    assert "docs/zh/area/trial.md:4" in messages


def test_lines_count_from_the_top_of_a_page_with_front_matter(project):
    project.page("area/trial", "---\ntitle: Trial\n---\n\n# Trial { #trial }\n\nIt is {{ nothing }}.\n")
    assert "docs/en/area/trial.md:7" in failed_build(project)


def test_all_errors_of_a_step_are_reported_together(project):
    for name in ("one", "two"):
        project.article(f"area/{name}", f"# %% {name}_cell\nint('{name}')\n")
    messages = failed_build(project)
    assert "snippets/area/one.py:2, cell one_cell" in messages
    assert "snippets/area/two.py:2, cell two_cell" in messages
    for name in ("one", "two"):
        project.article(f"area/{name}", "# %% cell\n1\n", "# Trial { #trial }\n\nA $ here.\n\n## Next\n")
        project.article(
            f"area/{name}",
            "# %% cell\n1\n",
            f'# T {{ #t }}\n\nA $ here.\n\n```python\n--8<-- "area/{name}.py:cell"\n```\n',
        )
    messages = failed_build(project)
    assert "docs/en/area/one.md:3" in messages
    assert "docs/en/area/two.md:3" in messages


def test_cell_that_no_page_shows_stops_the_build(project):
    page = '# Trial { #trial }\n\n```python\n--8<-- "area/trial.py:one"\n```\n'
    project.article("area/trial", "# %% one\n1\n\n# %% forgotten\n2\n", page)
    messages = failed_build(project)
    assert "snippets/area/trial.py:5, cell forgotten: no page shows this cell" in messages
    project.replace("snippets/area/trial.py", "forgotten", 'forgotten tags=["hidden"]')
    assert project.build() == (0, "")


def test_figure_shown_only_as_code_stops_the_build(project):
    project.article("area/trial", "# %% curve\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\n")
    messages = failed_build(project)
    for language in ("en", "zh"):
        assert (
            f"docs/{language}/area/trial.md:4, cell curve: the cell draws a figure, which the page must caption"
            in messages
        )


@pytest.mark.parametrize(("language", "caption"), CAPTIONS, ids=["en", "en space", "zh", "zh space"])
def test_empty_caption_stops_the_build(mark_messages, language, caption):
    page = f"area/caption{CAPTIONS.index((language, caption))}.md"
    (error,) = [error for error in mark_messages.splitlines() if page in error]
    assert error.startswith(f"docs/{language}/{page}:3: a figure without a caption")


@pytest.fixture(scope="module")
def translation_errors(pristine, tmp_path_factory) -> list[str]:
    """Build two pages for each difference, and a page without a translation in each language; return the errors."""
    project = pristine.copy(tmp_path_factory.mktemp("translations") / "project")
    for number, (*bodies, _) in enumerate(DIFFERENCES.values()):
        for language, body in zip(("en", "zh"), bodies, strict=True):
            project.write(f"docs/{language}/area/no{number}.md", f"# Trial {{ #trial }}\n\n{body}\n")
    for language in ("en", "zh"):
        project.write(f"docs/{language}/area/only_{language}.md", "# Trial { #trial }\n")
    return re.split(r"\n(?=\S)", failed_build(project))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_without_a_translation_stops_the_build(translation_errors, language):
    path = f"docs/{language}/area/only_{language}.md"
    (error,) = [error for error in translation_errors if path in error]
    assert error.startswith(f"{path}: the page has no counterpart")


@pytest.mark.parametrize("case", DIFFERENCES)
def test_difference_between_translations_stops_the_build(translation_errors, case):
    page = f"area/no{index_of(DIFFERENCES, case)}"
    messages = "\n".join(error for error in translation_errors if f"/{page}.md" in error)
    assert re.match(rf"docs/(en|zh)/{page}\.md:\d+", messages)
    for part in DIFFERENCES[case][2]:
        assert part.replace("{page}", page) in messages


@pytest.mark.parametrize("language", ["en", "zh"])
def test_section_changed_since_its_review_stops_the_build(project, language):
    path = f"docs/{language}/area/squares.md"
    project.replace(path, "{ #table }\n", "{ #table }\n\n1, 2, 3.\n")
    messages = failed_build(project)
    assert re.search(rf"docs/(en|zh)/area/squares\.md:{project.line(path, '{ #table }')}: ", messages)
    assert f"area/squares#table changed in {path} since it was reviewed" in messages
    assert "#squares" not in messages
    (command,) = re.findall(r"python -m zhixing_site (accept .*)", messages)
    assert project.command(*command.split()) == (0, "")
    assert project.build() == (0, "")


def test_section_changed_in_both_languages_names_both_pages(project):
    for language in ("en", "zh"):
        project.replace(f"docs/{language}/area/roots.md", "{ #roots }", "{ #roots }\n\n1, 2, 3.")
    assert "area/roots#roots changed in docs/en/area/roots.md and docs/zh/area/roots.md" in failed_build(project)


def test_page_that_was_never_reviewed_stops_the_build(project):
    for language in ("en", "zh"):
        project.write(f"docs/{language}/area/trial.md", "# Trial { #trial }\n")
    assert "area/trial#trial changed in docs/en/area/trial.md and docs/zh/area/trial.md" in failed_build(project)


# MkDocs does not treat a dead anchor as an error, and does not check links in HTML.
LINKS = {
    "anchor": ("[x](#nowhere)", "dead link #nowhere"),
    "another page's anchor": ("[x](roots.md#nowhere)", "dead link ../roots/#nowhere"),
    "image": ('<img src="nothing.png">', "dead link nothing.png"),
    "HTML link": ('<a href="../nothing/">x</a>', "dead link ../nothing/"),
    "file outside the site": ('<a href="../../../../../snippets/area/roots.py">x</a>', "there is no such file"),
    "server's root": ('<a href="/area/roots/">x</a>', "dead link /area/roots/"),
}


@pytest.fixture(scope="module")
def link_errors(pristine, tmp_path_factory) -> list[str]:
    """Build a page for each dead link, one in each language only, and one at the root; return the errors."""
    project = pristine.copy(tmp_path_factory.mktemp("links") / "project")
    title = "# Trial { #trial }\n\n"
    pages = {f"area/no{number}": f"{title}{link}\n" for number, (link, _) in enumerate(LINKS.values())}
    dead, valid = title + '<a href="#nowhere">x</a>\n', title + '<a href="#trial">x</a>\n'
    pages |= {"area/only_en": dead, "area/only_zh": valid}
    project.replace("docs/index.html", 'href="zh/"', 'href="fr/"')
    project.pages(pages, {"area/only_en": valid, "area/only_zh": dead})
    return failed_build(project).splitlines()


@pytest.mark.parametrize("case", LINKS)
def test_dead_link_stops_the_build(link_errors, case):
    page = f"area/no{index_of(LINKS, case)}/index.html: "
    errors = [error for error in link_errors if page in error]
    assert sorted(error[:3] for error in errors) == ["en/", "zh/"]
    assert all(LINKS[case][1] in error for error in errors)


def test_dead_markdown_link_stops_the_build(project):
    project.page("area/trial", "# Trial { #trial }\n\n[x](roots.md)\n[x](nothing.md)\n")
    messages = failed_build(project)
    for language in ("en", "zh"):
        assert f"docs/{language}/area/trial.md:4: contains a link 'nothing.md'" in messages


@pytest.mark.parametrize("link", ["[x](http://[bad)", "[x]\n\n[x]: //[", '<a href="http://[bad">x</a>'])
def test_address_that_cannot_be_read_stops_the_build(project, link):
    project.page("area/trial", f"# Trial {{ #trial }}\n\n{link}\n")
    code, messages = project.build()
    assert code == 1
    assert re.search("area/trial.*: Invalid IPv6 URL", messages)
    assert "Traceback" not in messages


@pytest.mark.parametrize("language", ["en", "zh"])
def test_dead_anchor_in_one_language_stops_the_build(link_errors, language):
    errors = [error for error in link_errors if f"only_{language}" in error]
    assert [
        error.startswith(f"{language}/area/only_{language}/index.html: dead link #nowhere") for error in errors
    ] == [True]


def test_dead_link_of_the_root_page_stops_the_build(link_errors):
    assert [error for error in link_errors if error.startswith("index.html: dead link fr/")]


def test_warning_of_mkdocs_stops_the_build(project):
    navigation = "nav: [index.md, area/squares.md]\nvalidation: {nav: {omitted_files: warn}}\n"
    project.write("mkdocs.yml", project.read("mkdocs.yml") + navigation)
    code, messages = project.build()
    assert code == 1
    assert messages.count("mkdocs.yml: The following pages exist in the docs directory, but are not included") == 1
    assert messages.count("area/roots.md") == 2  # in each language


def test_links_between_the_sites_are_checked(project):
    link = (
        '# Trial { #trial }\n\n<a href="../../../zh/area/squares/#table">x</a> <a href="https://example.org/#y">y</a>\n'
    )
    project.page("area/trial", link)
    assert project.build() == (0, "")
    project.page("area/trial", link.replace("#table", "#nowhere"))
    assert "dead link ../../../zh/area/squares/#nowhere" in failed_build(project)


def test_path_that_is_not_a_snippet_is_an_error(project):
    assert project.run("docs/en/index.md")[0] == 1
    for path in "snippets/nothing.py", "snippets/area/squares.toml":
        assert "not a snippet or a folder below snippets/" in project.run(path)[1]


def test_command_line_needs_a_command():
    with pytest.raises(SystemExit, match="2"):
        cli.main([])


def test_complete_message(project):
    """Show a message in full, as an author sees it."""
    project.article("area/trial", "# %% fine\nx = 1\n\n# %% wrong\nx / 0\n")
    assert failed_build(project) == textwrap.dedent("""\
        snippets/area/trial.py:5, cell wrong: ZeroDivisionError: division by zero
          shown on docs/en/area/trial.md:8
          shown on docs/zh/area/trial.md:8
        """)
