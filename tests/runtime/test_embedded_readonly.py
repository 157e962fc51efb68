"""That another process can read what a running server has written, and leaves no trace."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.host import PartitionStopped
from engine.runtime.store import Memory
from schemas.definitions import Definition
from schemas.records import NewRecord

ROOT = Path(__file__).parent.parent.parent
READ = """
import sys
from pathlib import Path
from engine.runtime.embedded.readonly import ReadOnlyLog

with ReadOnlyLog.open(Path(sys.argv[1])) as log:
    values = [int(record.value) for record in log.read("journal", b"t:ann") if record.key == b"t:ann"]
    assert values == list(range(len(values)))
    print(len(values), *[definition.key for definition in log.definitions.all()])
"""


def read_elsewhere(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def told(start: int, stop: int) -> Iterator[NewRecord]:
    return (NewRecord("journal", b"t:ann", b"%d" % number) for number in range(start, stop))


async def test_another_process_reads_journal_and_definitions_while_the_server_runs(tmp_path: Path) -> None:
    host = EmbeddedHost.open(tmp_path)
    definition = Definition("t", "journey", "welcome", 1, "ab" * 32, msgspec.Raw(b"{}"))
    await host.log.append([NewRecord("definitions", definition.key.encode(), msgspec.json.encode(definition))])
    await host.log.append(list(told(0, 10)))
    assert read_elsewhere(tmp_path) == "10 t/journey/welcome@1"
    await host.log.append(list(told(10, 30)))
    assert read_elsewhere(tmp_path) == "30 t/journey/welcome@1"
    await host.close()
    assert read_elsewhere(tmp_path) == "30 t/journey/welcome@1"
    host = EmbeddedHost.open(tmp_path)  # nothing of the readers stands in the way
    await host.close()


async def test_a_reader_copes_with_files_that_come_and_go_under_it(tmp_path: Path) -> None:
    host = EmbeddedHost.open(tmp_path, memory=Memory(1 << 20, 1 << 20))  # so small that it writes files all the time
    appended, value = 0, bytes(2000)
    for _ in range(40):
        host.log.stage([NewRecord("journal", b"t:ann", value) for _ in range(250)])
        host.log.write()
        appended += 250
        with ReadOnlyLog.open(tmp_path) as log:
            assert len(list(log.read("journal", b"t:ann"))) == appended
    await host.close()


def test_where_there_is_no_data_the_reader_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(PartitionStopped, match="holds no store"):
        ReadOnlyLog.open(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
