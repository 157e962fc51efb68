"""Starts a one-node Kafka broker from Maven's jars, in the foreground, for development and for the tests.

    python deploy/kafka/broker.py                        # 127.0.0.1:9092, data in build/kafka/data
    python deploy/kafka/broker.py --port 0 --data DIR    # any free port; the address is printed

It needs Java 17 and, the first time, Maven. This process becomes the broker (exec), so that its pid is the broker's and
Ctrl-C ends it. Needs nothing but the standard library, so that it runs before anything is installed.
"""

import argparse
import base64
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "kafka"
POM = HERE / "pom.xml"

# One node, so every factor is 1. Few internal partitions, small indexes and a small cleaner buffer: some 300 MB.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.dedupe.buffer.size=8388608
log.index.size.max.bytes=1048576
"""


class CannotStart(Exception):  # noqa: N818 - says what is the case
    """There can be no broker on this machine; the message says what is missing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a one-node Kafka broker on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=9092, help="0: any free one")
    parser.add_argument("--data", type=Path, default=BUILD / "data")
    parser.add_argument("--heap", default="512m", help="Java's -Xmx")
    parser.add_argument(
        "--end-with-parent", action="store_true", help="end when the process that started this one ends"
    )
    parser.add_argument("--fetch-only", action="store_true", help="only have the jars ready")
    options = parser.parse_args()
    try:
        libraries = fetch(BUILD)
        if options.fetch_only:
            return
        ports = (options.port, options.port + 1) if options.port else free_ports()
        command = prepare(libraries, options.data.resolve(), ports, options.heap)
    except CannotStart as error:
        sys.exit(f"no Kafka broker: {error}")
    if options.end_with_parent:
        end_with_parent()
    print(f"Kafka starts; it listens on 127.0.0.1:{ports[0]}, data in {options.data}; Ctrl-C ends it", flush=True)
    os.execv(command[0], command)


def fetch(build: Path) -> Path:
    """Have Maven copy the jars into `build`, once for each content of pom.xml; return their folder.

    Several processes may ask at once: one fetches, the others wait for it.
    """
    build.mkdir(parents=True, exist_ok=True)
    libraries, wanted = build / "libs", POM.read_bytes()
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = libraries / "pom.xml"
        if stamp.exists() and stamp.read_bytes() == wanted:
            return libraries
        maven = shutil.which("mvn")
        if maven is None:
            raise CannotStart("Maven (mvn) is not installed, and it is what fetches the jars")
        print("fetching Kafka's jars with Maven (54 MB, once) ...", file=sys.stderr, flush=True)
        shutil.rmtree(libraries, ignore_errors=True)
        goal = [f"-DoutputDirectory={libraries}", "-DincludeScope=runtime", "dependency:copy-dependencies"]
        done = subprocess.run([maven, "-B", "-q", "-f", str(POM), *goal], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStart(f"Maven could not fetch the jars:\n{done.stdout}{done.stderr}")
        stamp.write_bytes(wanted)
    return libraries


def prepare(libraries: Path, data: Path, ports: tuple[int, int], heap: str) -> list[str]:
    """Write server.properties, format the data folder if it is new, and return the command that runs the broker."""
    java = shutil.which("java")
    if java is None:
        raise CannotStart("Java is not installed (17 or later)")
    data.mkdir(parents=True, exist_ok=True)
    properties = data / "server.properties"
    properties.write_text(PROPERTIES.format(port=ports[0], controller_port=ports[1], data=data / "log"))
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    base = [java, "-XX:+UseSerialGC", logging, "-cp", f"{libraries}/*"]
    if not (data / "log" / "meta.properties").exists():
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        format_it = [*base, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        done = subprocess.run(format_it, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStart(f"the data folder {data} could not be formatted:\n{done.stdout}{done.stderr}")
    return [base[0], f"-Xmx{heap}", *base[1:], "kafka.Kafka", str(properties)]


def free_ports() -> tuple[int, int]:
    """Two ports nobody listens on: one for clients, one for the controller."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when our parent dies (PR_SET_PDEATHSIG, 1), so that no killed test run leaves a broker."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    main()
