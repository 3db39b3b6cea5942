"""Make css/math-letters.css, css/math-signs.css and fonts/math-rest.woff2 from STIX Two Math.

The font comes with the npm package @fontsource/stix-two-math:

    python theme/math_font.py package/files/stix-two-math-latin-400-normal.woff2

Splits the font into what articles use and what they may use later, and fixes what Chromium renders
badly: primes, too small and too high as superscripts since the package's font lacks the feature `ssty`; the
space right of a root, reserved for the widest root sign; the bar of an inline root, which touches what is below it.
Small Greek letters are slanted, as in TeX: a browser that shows α as 𝛼 needs both in the font.
Needs fontTools and brotli.

What articles use is in two stylesheets, since a server sends some 15 KB of each before it waits for a reply.
"""

import base64
import io
import sys
from copy import deepcopy
from pathlib import Path

from fontTools.misc.transform import Transform
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter, parse_unicodes
from fontTools.ttLib import TTFont

# Embedded in the stylesheets: what articles use. A test of the pages fails if a formula needs more: add it here.
# The space is among the signs: Chromium takes roots and stretchy signs from the face that has the space.
LETTERS = """
    41-5A 61-7A 393 394 398 39B 3A0 3A3 3A6 3A8 3A9 3B1-3C9 3D1 3D5 3F5 210E 2112 2113 211D FE00 1D434-1D467
    1D4A9 1D4AA 1D53C 1D6FC-1D717 1D719
"""
SIGNS = """
    20 21 28-2F 30-3F 5B 5D 5F 7B-7D A0 AF B1 B7 D7 2C6 2D9 2DC 2016 2026 2032 2033 2061 2063 23DF 2190 2192 21A6
    21D2 2200 2202 2205 2207 2208 220F 2211-2213 2217 2218 221A 221D 221E 2225 2229 222A 222B 223C 2248 2260 2261
    2264 2265 226A 226B 2282 2286 2295 2297 2299 22A4 22C5 22EE 22EF 2308-230B 27E8 27E9 27FA 1D7CF
"""
# Of these, all others are in a file that a browser loads where needed.
ALL = """
    20-7E A0 AC B1 B7 D7 F7 131 237 2C6 2C7 2D8-2DC 300-30C 332 338 391-3A9 3B1-3F6 2010-2015 2018-201D 2020-2022 2026
    2032-2034 2044 2061-2064 20D7 2102 210B 210D 210E 2110 2112 2113 2115 2119-211D 2124 212C 2130 2131 2133 2190-2199
    21A6 21AA 21D0-21D5 2200-2209 220B 220C 220F-2213 2215-221E 2220-2230 2234 2235 223C 2243 2245 2248 224D 225C
    2260-2262 2264-226B 226E-2271 227A 227B 2282-228B 2293-229A 22A2-22A5 22C0-22C6 22EE-22F1 2308-230B 2322 2323
    239B-23B1 23DE-23E1 25A0 25A1 25B2 25B3 25BD 25CB 25CF 2605 27E6-27EB 27F5-27FA 2A00-2A02 2A7D 2A7E 2AAF 2AB0
    1D400-1D4CF 1D538-1D56B 1D6A4 1D6A5 1D6A8-1D755 1D7CE-1D7D7 FE00 FE01
"""
ROOT = 0x221A
PRIMES = (0x2032, 0x2033, 0x2034)
GREEK, SLANTED = (*range(0x3B1, 0x3CA), 0x3F5, 0x3D1, 0x3D5), (*range(0x1D6FC, 0x1D715), 0x1D716, 0x1D717, 0x1D719)
TOP, HEIGHT = 0.54, 0.44  # of a prime, in em of the superscript

ABOUT = """\
/* Made by math_font.py from STIX Two Math 5.3.0 (npm: @fontsource/stix-two-math); its licence is STIX-OFL.txt.
   The stylesheet embeds the font, so that formulas have it from the first paint and do not move. */
"""
FACE = """\
@font-face {{
  font-family: "STIX Two Math";
  src: url("{source}") format("woff2");
  unicode-range: {codes};
}}
"""


def main(source: str) -> None:
    font = TTFont(source)
    fix_glyphs(font)
    font.flavor = "woff2"
    letters, signs, rest = parse(LETTERS), parse(SIGNS), parse(ALL) - parse(LETTERS) - parse(SIGNS)
    theme = Path(__file__).parent
    (theme / "fonts" / "math-rest.woff2").write_bytes(cut(font, rest))
    linked = FACE.format(source="../fonts/math-rest.woff2", codes=ranges(rest))
    (theme / "css" / "math-letters.css").write_text(ABOUT + embedded(font, letters))
    (theme / "css" / "math-signs.css").write_text(ABOUT + embedded(font, signs) + linked)


def embedded(font: TTFont, codes: set[int]) -> str:
    """Return a font face with its file embedded."""
    file = base64.b64encode(cut(font, codes)).decode()
    return FACE.format(source=f"data:font/woff2;base64,{file}", codes=ranges(codes))


def parse(ranges: str) -> set[int]:
    return set(parse_unicodes(" ".join(ranges.split())))


def ranges(codes: set[int]) -> str:
    """Return the ranges in CSS syntax."""
    first = sorted(code for code in codes if code - 1 not in codes)
    last = sorted(code for code in codes if code + 1 not in codes)
    return ", ".join(f"U+{a:X}-{b:X}" if a < b else f"U+{a:X}" for a, b in zip(first, last, strict=True))


def cut(font: TTFont, codes: set[int]) -> bytes:
    """Return a font of these characters, in all sizes."""
    part = deepcopy(font)
    subsetter = Subsetter(Options(hinting=False, layout_features=[], name_IDs=[0, 1, 2, 13, 14]))
    subsetter.populate(unicodes=codes)
    subsetter.subset(part)
    buffer = io.BytesIO()
    part.save(buffer)
    return buffer.getvalue()


def fix_glyphs(font: TTFont) -> None:
    glyphs = font.getBestCmap()
    for prime in PRIMES:
        outline, em = font["glyf"][glyphs[prime]], font["head"].unitsPerEm
        scale = HEIGHT * em / (outline.yMax - outline.yMin)
        redraw(font, glyphs[prime], Transform(scale, 0, 0, scale, 0, TOP * em - outline.yMax * scale))
    slanted = {code: glyphs[slant] for code, slant in zip(GREEK, SLANTED, strict=True)}
    for table in font["cmap"].tables:
        table.cmap |= slanted
    width = font["hmtx"][glyphs[ROOT]][0]
    constants = font["MATH"].table.MathConstants
    constants.RadicalVerticalGap.Value = constants.RadicalDisplayStyleVerticalGap.Value
    for taller in variants(font, glyphs[ROOT]):
        redraw(font, taller, Transform(width / font["hmtx"][taller][0], 0, 0, 1, 0, 0))


def variants(font: TTFont, name: str) -> set[str]:
    """Return the taller variants of `name` and their parts."""
    table = font["MATH"].table.MathVariants
    construction = table.VertGlyphConstruction[table.VertGlyphCoverage.glyphs.index(name)]
    sizes = {record.VariantGlyph for record in construction.MathGlyphVariantRecord}
    parts = {part.glyph for part in construction.GlyphAssembly.PartRecords}
    return (sizes | parts) - {name}


def redraw(font: TTFont, name: str, transform: Transform) -> None:
    glyphs = font.getGlyphSet()
    pen = TTGlyphPen(glyphs)
    glyphs[name].draw(TransformPen(pen, transform))
    width, bearing = font["hmtx"][name]
    font["glyf"][name] = pen.glyph()
    font["hmtx"][name] = (round(width * transform.xx), round(bearing * transform.xx))


if __name__ == "__main__":
    main(sys.argv[1])
