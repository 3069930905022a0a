"""The JavaScript that draws a page's charts: Vega, Vega-Lite and vega-embed in one script.

To put it together takes a second and always gives the same text, so it ships; its licences are
beside it. After an update of altair or vl-convert write it anew:

    python -m reports.script
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import altair as alt

SHIPPED = Path(__file__).parent / "data"
WRITTEN_BY = "1.9.0"  # vl-convert
CALL = "window.vegaEmbed = vegaEmbed;"


def version() -> str:
    """Of Vega-Lite, that altair writes for: `6.4`."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@cache
def script() -> str:
    """The one that ships, or one put together where altair writes for another version."""
    shipped = _file()
    if not shipped.is_file():
        return made()
    return gzip.decompress(shipped.read_bytes()).decode()


def made() -> str:
    """Put together by vl-convert, which holds the libraries."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(CALL, version())
    return bundle.replace("</script", "<\\/script")


def _file() -> Path:
    return SHIPPED / f"vega_lite_{version()}.js.gz"


if __name__ == "__main__":
    # Without a name or a time in it, the same script gives the same bytes.
    _file().write_bytes(gzip.compress(made().encode(), mtime=0))
