"""What honest clients get while others attack: single events over 64 connections with and without attackers, as a JSON line.

    python benchmarks/attack_bench.py [ATTACK…] [--seconds 5] [--rounds 3]

With and without take turns, round by round, and the middle of the ratios counts. The attackers' own CPU time comes from the
same cores and counts against us: it stands beside the ratio, as does how often each was cut off, and the same ratio by the
worker's CPU time, which other programs on the machine do not move. The figure is printed after every answer to the honest was a
202, and the lake was seen to hold as many events as were accepted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from attackers import ATTACKS
from ingest_bench import HERE, Ours, Wrk, event, ours, report, run_wrk


class Attack:
    """One attack: how many cores its process took, and how often it was cut off in a second."""

    cores = 0.0
    cut_off_per_s: dict[str, float]


@contextmanager
def under_attack(names: list[str], port: int) -> Iterator[Attack]:
    """Attack meanwhile."""
    command = [sys.executable, "-I", "-S", str(HERE / "attackers.py"), str(port), *names]
    start, attack = time.monotonic(), Attack()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        time.sleep(0.5)  # until it has begun
        yield attack
        took_s, used = time.monotonic() - start, psutil.Process(running.pid).cpu_times()
        counts = json.loads(running.communicate()[0])
    attack.cores = (used.user + used.system) / took_s
    attack.cut_off_per_s = {name: round(count / took_s, 1) for name, count in counts.items()}


def honest(service: Ours, seconds: float) -> tuple[Wrk, float]:
    """One turn of the honest, and the seconds of the worker's CPU that each of their events took."""
    body, before = json.dumps(event(1)).encode(), service.worker.cpu_times()
    run, after = run_wrk(service.url, body, seconds), service.worker.cpu_times()
    return run, (after.user + after.system - before.user - before.system) / run.requests


def ingest_under_attack(names: list[str], seconds: float, rounds: int) -> None:
    """The honest rate beside these attackers, and without."""
    pairs, tails, cores, costs = [], [], [], []
    with ours() as service:
        honest(service, 2)  # the first seconds of a worker are its slowest
        for _ in range(rounds):
            with under_attack(names, service.port) as attack:
                under, cost_under = honest(service, seconds)
            time.sleep(1)  # what they left is closed
            without, cost = honest(service, seconds)
            pairs.append((under.rate, without.rate))
            tails.append(under.p99_ms / without.p99_ms)
            costs.append(cost / cost_under)
            cores.append(attack.cores)
    value, baseline = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    more = {"attacks": "+".join(names), "cpu_ratio": round(statistics.median(costs), 3)}
    more |= {"p99_ratio": round(statistics.median(tails), 2), "cut_off_per_s": attack.cut_off_per_s}
    more |= {"attackers_cores": round(statistics.median(cores), 2)}
    report("ingest_under_attack", value, "events/s", "without attackers", baseline, value / baseline, **more)


def main() -> None:
    """All attacks at once, or those that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ATTACK", help="which attacks, at once; default all")
    parser.add_argument("--seconds", type=float, default=5, help="of load with and without, each round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    ingest_under_attack(arguments.names or list(ATTACKS), arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
