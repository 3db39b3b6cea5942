"""What other dialects of Markdown have and ours shows as typed, and what to write instead."""

import re

CELLS = "cells are in the snippet, and a fence includes them"
LABEL = "a heading ends with `{ #id }`, and a link to it is `[text](page.md#id)`"
BOX = 'a box is `!!! note "Title"` or `??? question "Title"`, then its text, indented by four spaces'
VALUE = "a value is `{{ name:.2f }}`"
LINK = "a link is `[text](page.md)`"
LIST = "a list has items `- text`"
FORMULA = "a formula is between `$`, or between two lines `$$`"

# {pattern, in verbose syntax, of what would be shown as typed: what to write instead}
DIALECTS = {
    r"\\(?:label|eqref|ref|cref|cite[pt]?)\b": LABEL,
    r"\\[A-Za-z]+": FORMULA,
    r"\\{1,2}\((?=(?:(?!\n[ ]*\n).)*?\\\))": FORMULA,
    r"\\{1,2}\[(?=(?:(?!\n[ ]*\n|\\\]).)*[\^_=+<>{}](?:(?!\n[ ]*\n).)*?\\\])": FORMULA,
    r"\$`[^`\n]+`\$": FORMULA,
    r"^[ >]*===[+!]*[ ]+[\"'][^\n]*": "there are no tabs; " + BOX,
    r"(?<![\w:]):(?:begin|end)_tab:": "there are no tabs; the pages have one framework",
    r"(?<![\w:]):[A-Za-z][\w+.-]*:(?![\w:])": f"{LABEL}; {FORMULA}",
    r"\{[A-Za-z][\w:.+-]*\}(?=`)": f"{VALUE}; {FORMULA}; {LABEL}",
    r"^[ >]*:{3,}(?![ ]+[\w.]+[ ]*$)[^\n]*": BOX,
    r"^[ >]*>[ ]*\[![A-Za-z]+\]": BOX,
    r"^[ >]*(?:!!!|\?\?\?\+?+)(?![ ]?[\w-]+(?:[ ]+[\w-]+)*(?:[ ]+\"[^\n]*\")?[ ]*$|[ ]\"[^\n]*\"[ ]*$)[^\n]*": BOX,
    r"^[ >]*\.\.[ ]+[\w:-]+::": BOX,
    r"^[ >]*(?:[-*+]|\d+\.)[ ]+\[[ xX]\](?=\s)": LIST,
    r"^[ ]{0,3}:[ ]+\S": LIST,
    r"^\+{3}[ \t]*$": CELLS,
    r"\{%": VALUE,
    r"^\([\w-]+\)=[ ]*$": LABEL,
    r"^%+[ ]": "a comment is `<!-- text -->`",
    r"\[\[[^\W\d][\w\ |#/.-]*\]\](?!\()": LINK,
    r"(?<!\w)@(?:fig|tbl|eq|sec|lst|thm)-\w[\w-]*|\[-?@[\w:.-]+[^\]\n]*\](?!\()": LINK,
    r"^\*\[[^\]\n]+\]:": "a term is explained in the glossary",
    r"(?<![=~+\w])(?P<around>==|~~|\+\+)(?=[^\s=~+])[^\n]+?(?<=\S)(?P=around)(?![=~+\w])": "emphasis is `*text*`",
    r"(?<=\w)(?P<script>[~^])[^\s~^]{1,4}(?P=script)": FORMULA,
}
PATTERN = "|".join(DIALECTS)


def instead(mark: re.Match) -> str:
    """What to write instead of a mark that matches PATTERN."""
    flags = re.VERBOSE | re.MULTILINE | re.DOTALL
    return next(hint for form, hint in DIALECTS.items() if re.compile(form, flags).match(mark.string, mark.start()))
