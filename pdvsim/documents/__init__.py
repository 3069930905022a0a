"""What commands write and everything else reads: a type for every result.

`read` opens a file or a text. A module for each kind of result; `cells` holds what several share.
"""

from pdvsim.documents.base import Document, RunLength, Table, Verdict
from pdvsim.documents.reading import KINDS, read

__all__ = ["KINDS", "Document", "RunLength", "Table", "Verdict", "read"]
