"""The page: its parts from assets/, its data as JSON, and plotly and the rollouts packed beside it. One file that asks nobody for anything.

What would surprise: the page forbids itself, by a content security policy, every request and every script but its own two, which are named
by their hashes. Should a text of a rollout ever be taken for HTML, it still could not run or load anything.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from fastgrpo.errors import SetupError
from fastgrpo.report.curves import charts
from fastgrpo.report.experiment import experiment_part, experiments_of
from fastgrpo.report.ledger import memory_ledger
from fastgrpo.report.overview import checkpoints, facts
from fastgrpo.report.sample import BYTES, RESPONSES, Sampled, sample_run
from fastgrpo.report.settings import differences
from fastgrpo.report.spent import time_spent
from fastgrpo.report.subject import RunRecord, find_runs, read_run
from fastgrpo.templates import TEMPLATES

SCRIPTS = ("dom.js", "charts.js", "cards.js", "overview.js", "sources.js", "response.js", "rollouts.js", "main.js")


def write_report(given: Sequence[str], out: Path | None) -> tuple[Path, str]:
    """Writes the page of runs and experiments; returns where, and a line on what it holds. RUN/report.html of the first by default."""
    require_packages()
    runs = [read_run(path) for path in find_runs(given)]
    out = out or Path(given[0]) / "report.html"
    share = max(1, len(runs))
    samples = [sample_run(run.path, model_of(run), RESPONSES // share, BYTES // share) for run in runs]
    write(out, render(page_data(runs, experiments_of(given), samples), samples))
    held = f"{sum(s.shown for s in samples):,} of {sum(s.total for s in samples):,} responses"
    return out, f"{len(runs)} run{'s' if len(runs) != 1 else ''}, {held}, {out.stat().st_size / 1e6:.1f} MB"


def write_experiment(results: dict, out: Path) -> None:
    """The page of an experiment's results alone, without its runs."""
    write(out, render(page_data([], [experiment_part(results)], []), []))


def require_packages() -> None:
    """Raises SetupError where one is missing."""
    missing = [name for name in ("plotly", "pyarrow") if find_spec(name) is None]
    if missing:
        raise SetupError(f'a report needs {" and ".join(missing)}: pip install "fastgrpo[report]"')


def page_data(runs: Sequence[RunRecord], experiments: Sequence[dict], samples: Sequence[Sampled], live: bool = False) -> dict:
    """All that a page shows but the rollouts themselves, in types of JSON."""
    names = distinct([run.name for run in runs], [str(run.path) for run in runs])
    title = ", ".join(names[:3]) + (f" and {len(names) - 3} more runs" if len(names) > 3 else "") if names else experiments[0]["title"]
    return {
        "title": title,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "live": live,
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                "state": run.state,
                "said": run.said,
                "notes": list(run.notes),
                "facts": facts(run),
                "settings": [{"key": each.key, "text": each.text, "origin": each.origin} for each in run.settings],
                "spent": time_spent(run),
                "memory": memory_ledger(run),
                "checkpoints": checkpoints(run.path),
                "template": around_question(run),
                "log": run.log,
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "differences": differences([run.settings for run in runs]),
        "charts": charts(runs),
        "experiments": list(experiments),
    } | ({"rollouts": [held(sample) for sample in samples]} if samples else {})


def held(sample: Sampled) -> dict:
    return {"shown": sample.shown, "total": sample.total, "steps": sample.steps, "notes": list(sample.notes)}


def distinct(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Names of directories, or their paths where two have one name."""
    return [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]


def model_of(run: RunRecord) -> str:
    return text_of(run, "model")


def text_of(run: RunRecord, key: str) -> str:
    """A setting that is a name; "" where the run has none."""
    return next((setting.text.strip("'\"") for setting in run.settings if setting.key == key), "")


def around_question(run: RunRecord) -> list[str]:
    """What the run's template puts before a question and after it."""
    template = TEMPLATES.get(text_of(run, "template"))
    return template.text.split("{question}") if template else ["", ""]


def render(data: dict, samples: Sequence[Sampled]) -> str:
    """The whole HTML."""
    (plotly, plotly_hash), script = packed_plotly(), own_script()
    policy = {
        "default-src": "'none'",
        "script-src": f"{hashed(script)} {plotly_hash}",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "connect-src": "'self'" if data["live"] else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    packed = [f'<script type="text/plain" id="plotly">{plotly}</script>']
    packed += [
        f'<script type="text/plain" data-run="{run}">{chunk}</script>' for run, sample in enumerate(samples) for chunk in sample.chunks
    ]
    return Template(asset("page.html")).substitute(
        policy="; ".join(f"{name} {allowed}" for name, allowed in policy.items()),
        title=escape(f"{data['title']} - fastgrpo"),
        style=asset("page.css"),
        data=embedded(data),
        packed="\n".join(packed),
        script=script,
    )


def embedded(data: object) -> str:
    """JSON that may stand in a script element: without < no element can end or begin there."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def own_script() -> str:
    """The page's own code, its files one after the other in a scope of their own."""
    return '(() => {\n"use strict";\n' + "\n".join(map(asset, SCRIPTS)) + "\n})();"


@cache
def packed_plotly() -> tuple[str, str]:
    """plotly's browser library, a file of the Python package, which itself is not needed and slow to import: packed, and its hash."""
    library = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    return base64.b64encode(gzip.compress(library.encode(), 6, mtime=0)).decode(), hashed(library)


def hashed(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    return resources.files("fastgrpo.report").joinpath("assets", name).read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", errors="replace")  # a directory's name may be no UTF-8
        os.replace(unfinished, path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; name another place with --out") from error
