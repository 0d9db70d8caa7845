"""Processes seen from outside: which belong together, what they used, what they hold."""
import os

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """The process and all below it."""
    found = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    found += tree(int(child))
    except OSError:
        pass  # it ended meanwhile
    return found


def memory(pid):
    """Bytes of the whole tree, shared pages counted once (PSS)."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            pass
    return total * 1024


def cpu_seconds(pid):
    """Processor time that the tree has used."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / _TICK


def busy_seconds():
    """Processor time that everything on this machine has used."""
    with open("/proc/stat") as file:
        times = [int(field) for field in file.readline().split()[1:9]]
    return (sum(times) - times[3] - times[4]) / _TICK


def describe():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else os.uname().machine}"
