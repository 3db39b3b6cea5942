"""Score our pages with Lighthouse: home, an area and an article, in both languages, emulating a phone.

    pip install -c constraints.txt -e '.[dev]' && nox -s docs
    python benchmarks/lighthouse.py [--repeat 5]

Needs Chromium, and npm to install Lighthouse. Print medians; assert nothing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from measure import machine
from pages import FLAGS, serving

VERSION = "13.5.0"
ROOT = Path(__file__).resolve().parents[1]
SITE, RESULTS = ROOT / "site", Path(__file__).parent / "results" / "lighthouse.json"
PAGES = [f"{language}/{page}" for page in ("", "activations/", "activations/gelu/") for language in ("en", "zh")]
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
WANTED = 100


def install(folder: Path) -> Path:
    """Install Lighthouse into this folder; return the path of its program."""
    subprocess.run(["npm", "install", "--silent", "--prefix", folder, f"lighthouse@{VERSION}"], check=True)
    return folder / "node_modules/.bin/lighthouse"


def visit(lighthouse: Path, url: str) -> dict:
    """Return the report on one visit, in a new browser."""
    flags = f"--chrome-flags=--headless=new {' '.join(FLAGS)}"
    command = [lighthouse, url, "--quiet", "--output=json", f"--only-categories={','.join(CATEGORIES)}", flags]
    environment = {**os.environ, "CHROME_PATH": shutil.which("chromium") or ""}
    return json.loads(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout)


def scores(report: dict) -> dict[str, float]:
    return {name: 100 * report["categories"][name]["score"] for name in CATEGORIES}


def errors(report: dict) -> set[str]:
    """Return the failed audits that lower a score, except those of performance, which are gradual."""
    return {
        f"{name}: {report['audits'][each['id']]['title']}"
        for name in CATEGORIES[1:]
        for each in report["categories"][name]["auditRefs"]
        if each["weight"] and report["audits"][each["id"]]["score"] not in (None, 1)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="visits of each page (%(default)s)")
    options = parser.parse_args()
    pages = {page: [] for page in PAGES}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving(SITE) as address:
        lighthouse = install(Path(folder))
        # The host in the canonical addresses of the pages.
        address = address.replace("127.0.0.1", "localhost")
        print(f"Lighthouse {VERSION}, phone. Load average {os.getloadavg()[0]:.1f}. Wanted: {WANTED} each.\n")
        print(f"{'':24}" + "".join(f"{name:>16}" for name in CATEGORIES), flush=True)
        for page, reports in pages.items():
            reports += [visit(lighthouse, address + page) for _ in range(options.repeat)]
            middle = [statistics.median(scores(report)[name] for report in reports) for name in CATEGORIES]
            print(f"{page:24}" + "".join(f"{each:16.0f}" for each in middle), flush=True)
            for error in sorted(set().union(*map(errors, reports))):
                print(f"  {error}", flush=True)
    samples = {
        page: {name: [scores(report)[name] for report in reports] for name in CATEGORIES}
        for page, reports in pages.items()
    }
    facts = {**machine(), "lighthouse": VERSION, "load": round(os.getloadavg()[0], 2)}
    RESULTS.write_text(json.dumps({"machine": facts, "pages": samples}, indent=1) + "\n")


if __name__ == "__main__":
    main()
