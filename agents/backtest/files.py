"""Which files a recording consists of, and how their records come one by one, in the order of time.

NDJSON (`.ndjson`, `.jsonl`, `.json`), CSV (`.csv`, `.tsv`, `.txt`) and Parquet; the first two also as `.gz`. Of several
files the records are merged by their times, so it makes no difference whether a file holds a day or a kind of event. A file
whose own records are not in order of time is fine as long as those of each user are.
"""

import csv
import gzip
import io
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import IO, Any, Literal, cast

from agents.backtest import lines
from agents.backtest.columns import Columns
from agents.backtest.recording import Recorded, Rejects
from engine.errors import InvalidInput

Format = Literal["ndjson", "csv", "parquet"]
FORMATS: dict[str, Format] = {
    ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".tsv": "csv", ".txt": "csv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
MOST_FILES = 512  # all are open at once: half of what many systems allow a process
REPORT_EVERY = 1000  # records
ROWS_AT_ONCE = 8192


AS_USUAL = Columns()


@dataclass(frozen=True, slots=True)
class Files:
    """A recording in files. `format` and `separator` where their names don't tell."""

    paths: Sequence[Path]
    tenant: str
    columns: Columns = AS_USUAL
    format: Format | None = None
    separator: str | None = None

    @property
    def size(self) -> int:
        """What `read` reports in all: bytes, as they are on the disk."""
        return sum(path.stat().st_size for path in self.paths)

    def read(self, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        """Yield the records, and report now and then how many more bytes were read. What is no record goes to `rejects`.

        Raises InvalidInput if a file as a whole can't be read.
        """
        with ExitStack() as opened:
            readers = [opened.enter_context(closing(self._read(path, rejects, progress))) for path in self.paths]
            yield from readers[0] if len(readers) == 1 else merge(*readers, key=_at)

    def _read(self, path: Path, rejects: Rejects, progress: Callable[[int], None]) -> Generator[Recorded, None, None]:
        readers = {"ndjson": self._read_lines, "csv": self._read_csv, "parquet": self._read_parquet}
        try:
            yield from readers[self.format or format_of(path)](path, rejects, progress)
        except EOFError:
            raise InvalidInput(f"{path} is cut off: it was not packed to its end") from None

    def _read_lines(self, path: Path, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        read: lines.Read | None = None
        with path.open("rb") as raw, _unpacked(raw, path) as unpacked:
            for number, line in enumerate(_measured(unpacked, raw, progress), 1):
                if line.isspace():
                    continue
                if read is None:
                    try:
                        read = lines.reader(line.removeprefix(b"\xef\xbb\xbf"), self.tenant)
                    except InvalidInput as error:
                        raise InvalidInput(f"{path}: {error}") from None
                place = f"{path.name}:{number}"
                try:
                    recorded = read(line, place)
                except InvalidInput as error:
                    rejects.add(place, str(error))
                    continue
                if recorded is not None:
                    yield recorded

    def _read_csv(self, path: Path, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        separator = self.separator or ("\t" if ".tsv" in path.suffixes else ",")
        with path.open("rb") as raw, _unpacked(raw, path) as unpacked:
            text = io.TextIOWrapper(unpacked, "utf-8-sig", newline="")
            table = csv.reader(text, delimiter=separator, skipinitialspace=True)
            try:
                names = [name.strip() for name in next(table, [])]
                read = self.columns.reader(names, path.name)
                for number, row in enumerate(_measured(table, raw, progress), 2):
                    if not row:
                        continue
                    try:
                        user, event = read(row, number)
                    except InvalidInput as error:
                        rejects.add(f"{path.name}:{number}", str(error))
                        continue
                    yield Recorded(user, event.occurred_at, event)
            except (csv.Error, UnicodeDecodeError) as error:
                raise InvalidInput(f"{path} is not CSV in UTF-8: {error}") from None
            finally:
                text.detach()

    def _read_parquet(self, path: Path, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        table = _open_parquet(path)
        with table:
            names = table.schema_arrow.names
            read = self.columns.reader(names, path.name)
            size, rows = path.stat().st_size, table.metadata.num_rows or 1
            number = reported = 0
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    try:
                        user, event = read(row, number)
                    except InvalidInput as error:
                        rejects.add(f"{path.name}, row {number}", str(error))
                        continue
                    yield Recorded(user, event.occurred_at, event)
                progress(size * number // rows - reported)
                reported = size * number // rows


def find_files(place: Path) -> list[Path]:
    """Return the files of a recording, in the order of their names. Raises InvalidInput where there are none, or too many."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InvalidInput(f"there is nothing at {place}; name a file of events, a folder of them, or a data folder")
    found = sorted(path for path in place.iterdir() if path.is_file() and _suffix(path) in FORMATS)
    if not found:
        raise InvalidInput(
            f"{place} holds no events: no file there ends in {', '.join(FORMATS)}, and no store is in it"
        )
    if len(found) > MOST_FILES:
        raise InvalidInput(f"{place} holds {len(found)} files; {MOST_FILES} is the limit, so put several days into one")
    return found


def format_of(path: Path) -> Format:
    """Return the format that a file's name tells. Raises InvalidInput if it tells none."""
    format = FORMATS.get(_suffix(path))
    if format is None:
        raise InvalidInput(f"the name of {path} doesn't say what it holds; say it with --format ndjson, csv or parquet")
    return format


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(raw)) if path.suffix == ".gz" else raw


def _measured(records: Iterator[Any], raw: IO[bytes], progress: Callable[[int], None]) -> Iterator[Any]:
    """Yield the records, and report the bytes that were read for them."""
    reported = 0
    for number, record in enumerate(records):
        if number % REPORT_EVERY == 0:
            progress(raw.tell() - reported)
            reported = raw.tell()
        yield record
    progress(raw.tell() - reported)


def _at(recorded: Recorded) -> int:
    return recorded.at


def _open_parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InvalidInput("Parquet needs pyarrow: pip install 'equeengage[backtest]'") from None
    try:
        return ParquetFile(path)
    except ArrowException as error:
        raise InvalidInput(f"{path} is not Parquet: {error}") from None
