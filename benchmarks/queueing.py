"""Loops as a closed queueing network: each computes on a device of its own and then visits what all of them share.

A discrete-event simulation. Every station serves in the order of arrival with so many servers; services take what they
take, only the computing in between varies. With one station of one server and N loops its limits are exact: a loop's
cycle is never shorter than compute + service, nor than N times the service.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CYCLES = 12  # of an undisturbed loop that are simulated, the first third of them to warm up
ALL_CYCLES = 2000  # at least, of all loops together
SPREAD = 0.3  # coefficient of variation of a computation


@dataclass(frozen=True)
class Station:
    """What loops share.

    Args:
        servers: How many loops it serves at once.
        standing: Share of it that is taken by what goes on all the time, in [0, 1).
    """

    servers: int
    standing: float = 0.0


@dataclass(frozen=True)
class Visit:
    """A step of a loop: `seconds` of service at a station; at none, a wait that disturbs nobody."""

    seconds: float
    station: str = ""
    varies: bool = False


@dataclass(frozen=True)
class Steady:
    """How things are once all loops run."""

    cycle: float  # seconds from one generation of a loop to its next, mean
    utilisation: Mapping[str, float]  # station -> share of its servers' time, standing load included


def undisturbed(cycle: Sequence[Visit]) -> float:
    """Seconds of a cycle of a loop that is alone."""
    return sum(visit.seconds for visit in cycle)


def simulate(num_loops: int, cycle: Sequence[Visit], stations: Mapping[str, Station], seed: int) -> Steady:
    """Run loops through their cycles until they have settled, and look at what follows.

    Args:
        cycle: The visits of one generation, in order; services at the same station may come several times.
        stations: A station that standing load alone fills serves nobody: the cycle is then infinite.
        seed: Of the times that computations take, and of where in its cycle each loop begins.
    """
    if any(station.standing >= 1 for station in stations.values()):
        return Steady(math.inf, {name: max(1.0, station.standing) for name, station in stations.items()})
    rng = np.random.default_rng(seed)
    sigma = math.sqrt(math.log1p(SPREAD**2))
    # Where all is full, a cycle is longer: long enough for it too.
    alone = undisturbed(cycle)
    fullest = max((offered(num_loops, cycle, name, station) for name, station in stations.items()), default=0.0)
    end = max(CYCLES, ALL_CYCLES / num_loops) * alone * max(1.0, fullest)
    begin = end / 3
    free = {name: [0.0] * station.servers for name, station in stations.items()}
    busy = dict.fromkeys(stations, 0.0)
    completed = 0
    # (time of arrival, loop, step)
    events = [(alone * float(rng.random()), loop, 0) for loop in range(num_loops)]
    heapq.heapify(events)
    while events[0][0] < end:
        now, loop, step = heapq.heappop(events)
        visit = cycle[step]
        start, seconds = now, visit.seconds
        if visit.varies:
            seconds *= math.exp(sigma * float(rng.standard_normal()) - sigma**2 / 2)
        if visit.station:
            seconds /= 1 - stations[visit.station].standing
            start = max(now, heapq.heappop(free[visit.station]))
            heapq.heappush(free[visit.station], start + seconds)
            busy[visit.station] += max(0.0, min(start + seconds, end) - max(start, begin))
        last = step + 1 == len(cycle)
        completed += last and begin <= start + seconds < end
        heapq.heappush(events, (start + seconds, loop, 0 if last else step + 1))
    utilisation = {
        name: station.standing + (1 - station.standing) * busy[name] / (station.servers * (end - begin))
        for name, station in stations.items()
    }
    return Steady(num_loops * (end - begin) / max(1, completed), utilisation)


def offered(num_loops: int, cycle: Sequence[Visit], name: str, station: Station) -> float:
    """Share of a station that loops would take if nothing slowed them down; over 1, it does."""
    service = sum(visit.seconds for visit in cycle if visit.station == name)
    return station.standing + num_loops * service / undisturbed(cycle) / station.servers
