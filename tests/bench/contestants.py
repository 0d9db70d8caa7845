"""What is measured: our program, the floor, and the peers, each with start(), window() and close().

window() gives {"pairs", "seconds", "memory" (bytes), "cpu" (seconds used)}. Everything runs on the first `cores` processors.
"""
import json
import os
import resource
import select
import signal
import subprocess
import time
from pathlib import Path

import machine

PEERS = Path(__file__).parent / "peers"
START_LIMIT, WINDOW_LIMIT = 240, 180  # seconds


class Unavailable(Exception):
    """Why a row is left out."""


def _pin(cores):
    processors = set(sorted(os.sched_getaffinity(0))[:cores])
    return lambda: os.sched_setaffinity(0, processors)


def _last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


class Contestant:
    def __init__(self, name, options, cores):
        self.name, self.options, self.cores, self.note = name, options, cores, ""

    def start(self):
        pass

    def close(self):
        pass


class Ours(Contestant):
    """A process for each window: it starts in no time, and warms up before it measures."""

    def __init__(self, name, options, cores, store, note):
        super().__init__(name, options, cores)
        self.store, self.note = store, note

    def _bench(self, *arguments):
        common = ["--recipe", self.options.recipe, "--layout", "chw", "--normalise", "--workers", str(self.cores), "--json"]
        command = [self.options.byol, "bench", "loader", str(self.store), *common, *arguments]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_pin(self.cores), check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise Unavailable(_last_line(done.stderr))
        result = json.loads(done.stdout)
        result["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return result

    def window(self):
        result = self._bench("--seconds", str(self.options.window), "--windows", "1", "--warm-up", "1", "--no-floor")
        return {
            "pairs": result["pairs"],
            "seconds": result["seconds"],
            "memory": result["peak_memory_bytes"],
            "cpu": result["cpu"],
            "shares": result["shares"],
        }


class Floor(Ours):
    """libjpeg-turbo decoding the same images, whole, and nothing else: images per second."""

    def start(self):
        rate = self._decode(500)["rate"]
        self.images = max(500, int(rate * self.options.window))

    def _decode(self, images):
        result = self._bench("--size", "8", "--batch", "1", "--stop-after", "1", "--floor", str(images))
        if not result["floor"]:
            raise Unavailable("the images are no JPEG files")
        return {"rate": result["floor"]["images_per_second"], "cpu": result["cpu"]}

    def window(self):
        result = self._decode(self.images)
        return {"pairs": self.images, "seconds": self.images / result["rate"], "memory": 0, "cpu": result["cpu"]}


class Peer(Contestant):
    """A process that stays alive, stopped while others are measured (peers/protocol.py)."""

    def __init__(self, name, options, cores, environment, script, *arguments):
        super().__init__(name, options, cores)
        self.python = Path(options.venvs) / environment / "bin" / "python"
        self.script, self.arguments, self.process = script, arguments, None

    def start(self):
        if not self.python.exists():
            raise Unavailable(f"not installed: no {self.python}")
        options = self.options
        command = [str(self.python), str(PEERS / self.script), "--images", str(options.images), "--work", str(options.work)]
        command += ["--cores", str(self.cores), "--recipe", options.recipe, *self.arguments]
        self.log = open(options.work / "peer.log", "w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            preexec_fn=_pin(self.cores),
            start_new_session=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(options.work / "numba")},
        )
        self.note = self._answer(START_LIMIT)["note"]

    def _signal(self, number):
        os.killpg(self.process.pid, number)

    def _answer(self, limit):
        """The peer's next line; stops the peer the moment it has come."""
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.log.seek(0)
            reason = f"no answer in {limit} s" if not ready else _last_line(self.log.read())
            raise Unavailable(f"failed: {reason}")
        self._signal(signal.SIGSTOP)
        return json.loads(line)

    def window(self):
        before = machine.cpu_seconds(self.process.pid)
        try:
            self._signal(signal.SIGCONT)
            self.process.stdin.write(f"go {self.options.window}\n")
        except OSError as error:
            raise Unavailable(f"died: {error}") from error
        result = self._answer(WINDOW_LIMIT)
        result["cpu"] = machine.cpu_seconds(self.process.pid) - before
        result["memory"] = machine.memory(self.process.pid)
        return result

    def close(self):
        if self.process:
            try:
                self._signal(signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.log.close()
            self.process = None


def measure(contestant):
    """A window, with the share of the machine that other work took meanwhile."""
    busy, own, start = machine.busy_seconds(), time.process_time(), time.monotonic()
    result = contestant.window()
    elapsed = time.monotonic() - start
    foreign = machine.busy_seconds() - busy - (time.process_time() - own) - result.pop("cpu")
    result["foreign"] = round(max(0.0, foreign) / elapsed / os.cpu_count(), 4)
    result["rate"] = result["pairs"] / result["seconds"]
    return result
