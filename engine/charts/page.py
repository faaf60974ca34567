"""One HTML page of explanations: it fetches nothing, runs nothing, and says so in its content security policy."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from penstock.engine.charts.chart import Chart

_style: Final = (
    "body{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;color:#212529;max-width:760px;"
    "margin:2rem auto;padding:0 1rem;line-height:1.5}h1{font-size:1.5rem;margin-bottom:.25rem}"
    "h2{font-size:1.15rem;margin:2.25rem 0 .5rem;border-top:1px solid #dee2e6;padding-top:1.25rem}"
    "figure{margin:0}p.facts{color:#6c757d;font-size:.85rem;overflow-wrap:anywhere}svg{max-width:100%;height:auto}"
    "@media print{h2{break-after:avoid}svg{break-inside:avoid}}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading, sentences, and pictures."""

    title: str
    sentences: Sequence[str]
    charts: Sequence[Chart]


def html_page(*, title: str, facts: str, sections: Sequence[Section]) -> str:
    """The whole page. It stands alone: the one style sheet is inside, and allowed by its hash."""
    digest = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    body = "".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=True)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_style}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="facts">{escape(facts)}</p>{body}</body></html>\n'
    )


def _section(section: Section) -> str:
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
    charts = "".join(f"<figure>{chart.to_svg()}</figure>" for chart in section.charts)
    return f"<section><h2>{escape(section.title)}</h2>{sentences}{charts}</section>"
