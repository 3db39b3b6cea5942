"""Make css/math-font.css from STIX Two Math of the npm package @fontsource/stix-two-math.

    python theme/math_font.py package/files/stix-two-math-latin-400-normal.woff2

Cuts the font down to what articles use, and turns the primes into glyphs for superscripts: the package's font lacks
the feature `ssty` that would do so, and its primes stand too small and too high there. Needs fontTools and brotli.
"""

import base64
import io
import sys
import textwrap
from pathlib import Path

from fontTools.misc.transform import Transform
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter, parse_unicodes
from fontTools.ttLib import TTFont

UNICODES = """
    20-7E A0 AC B1 B7 D7 F7 131 237 2C6 2C7 2D8-2DC 300-30C 332 338 391-3A9 3B1-3F6 2010-2015 2018-201D 2020-2022 2026
    2032-2034 2044 2061-2064 20D7 2102 210B 210D 210E 2110 2112 2113 2115 2119-211D 2124 212C 2130 2131 2133 2190-2199
    21A6 21AA 21D0-21D5 2200-2209 220B 220C 220F-2213 2215-221E 2220-2230 2234 2235 223C 2243 2245 2248 224D 225C
    2260-2262 2264-226B 226E-2271 227A 227B 2282-228B 2293-229A 22A2-22A5 22C0-22C6 22EE-22F1 2308-230B 2322 2323
    239B-23B1 23DE-23E1 25A0 25A1 25B2 25B3 25BD 25CB 25CF 2605 27E6-27EB 27F5-27FA 2A00-2A02 2A7D 2A7E 2AAF 2AB0
    1D400-1D4CF 1D538-1D56B 1D6A4 1D6A5 1D6A8-1D755 1D7CE-1D7D7 FE00 FE01
"""
PRIMES = (0x2032, 0x2033, 0x2034)
TOP, HEIGHT = 0.54, 0.44  # of a prime, in em of the superscript

STYLESHEET = """\
/* Made by math_font.py from STIX Two Math 5.3.0 (npm: @fontsource/stix-two-math); its licence is STIX-OFL.txt.
   The font lies in the stylesheet itself, so that it is there before the first paint and no formula moves. */
@font-face {{
  font-family: "STIX Two Math";
  src: url("data:font/woff2;base64,{}") format("woff2");
}}
"""


def main(source: str) -> None:
    font = TTFont(source)
    options = Options(hinting=False, layout_features=[], name_IDs=[0, 1, 2, 13, 14])
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=parse_unicodes(textwrap.dedent(UNICODES).replace("\n", " ")))
    subsetter.subset(font)
    for prime in PRIMES:
        lower(font, font.getBestCmap()[prime])
    font.flavor = "woff2"
    buffer = io.BytesIO()
    font.save(buffer)
    stylesheet = Path(__file__).parent / "css" / "math-font.css"
    stylesheet.write_text(STYLESHEET.format(base64.b64encode(buffer.getvalue()).decode()))


def lower(font: TTFont, name: str) -> None:
    """Scale the glyph to HEIGHT and put its upper end at TOP."""
    glyphs, em = font.getGlyphSet(), font["head"].unitsPerEm
    outline = font["glyf"][name]
    scale = HEIGHT * em / (outline.yMax - outline.yMin)
    pen = TTGlyphPen(glyphs)
    glyphs[name].draw(TransformPen(pen, Transform(scale, 0, 0, scale, 0, TOP * em - outline.yMax * scale)))
    width = font["hmtx"][name][0]
    font["glyf"][name] = pen.glyph()
    font["hmtx"][name] = (round(width * scale), round(font["hmtx"][name][1] * scale))


if __name__ == "__main__":
    main(sys.argv[1])
