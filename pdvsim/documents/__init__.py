"""What commands write and everything else reads: a type for every result.

`read` opens a file or a text. The models stand in `cells`, `analyses` and `tables`.
"""

from pdvsim.documents.base import Document, RunLength, Table, Verdict
from pdvsim.documents.reading import KINDS, read

__all__ = ["KINDS", "Document", "RunLength", "Table", "Verdict", "read"]
