"""Text files, plain or compressed (.gz), and what is wrong with them in one line."""

import gzip
import zlib
from pathlib import Path

from attelbo.data.moving import absent
from attelbo.errors import DataError, one_line


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, without a byte order mark, its lines ended as they are on Unix.

    Raises:
        DataError: it is missing, damaged, empty or in another encoding.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode(encoding)
    except UnicodeError as error:  # of a few encodings, such as idna, it does not say where
        at = isinstance(error, UnicodeDecodeError) and f"byte {error.start:,} is 0x{error.object[error.start]:02x}"
        raise DataError(f"{path.absolute()} is not {encoding.upper()}: {at or one_line(error)}") from error
    except (OSError, EOFError, zlib.error) as error:
        if not path.exists():
            raise absent(path, "file", "data.source") from error
        where = "data.source says which file, from paths.data_dir or absolutely"
        raise DataError(f"{path.absolute()} cannot be read ({one_line(error)}); {where}") from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{path.absolute()} is empty")
    return text


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """The lines of a file, ended by line feeds alone: other characters that Unicode counts as line ends may be
    part of a sentence, and would set aligned files apart.

    Raises:
        DataError: see :func:`read_text`.
    """
    return [line.strip() for line in read_text(path, encoding).removesuffix("\n").split("\n")]
