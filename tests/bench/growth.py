"""What a request costs with many connections beside few, for the gateway, other proxies, and two floors.

With many connections, what the kernel and the programs keep of each no longer fits into the processor's caches. Two
programs show how much of that no proxy can avoid: hitch, if it is installed, has both sockets and TLS and nothing else,
the server without a proxy half the sockets.
"""
import statistics

from peers import Hitch, NoProxy
from proxies import CASES, DISTURBED, Progress, choose_targets, opened, rounded

FEW, MANY = CASES["h1-small"], CASES["h1-hosts"]


def measure_rounds(bench, targets, rounds, progress):
    """A row for each target: in each round both figures, one right after the other."""
    rows = [{"program": "growth", "target": target.name, "figure": FEW.figure, "few": [], "many": [], "others": []}
            for target in targets]
    places = list(zip(targets, rows))
    for number in range(rounds):
        for target, row in places[number % len(places):] + places[:number % len(places)]:
            progress(f"growth: round {number + 1} of {rounds}, {target.name}")
            for name, case in [("few", FEW), ("many", MANY)][::1 if number % 2 else -1]:
                value, _rate, others = bench.sample(case, target)
                row[name].append(value)
                row["others"].append(others)
    for row in rows:
        factors = sorted(many / few for few, many in zip(row["few"], row["many"]))
        row |= {"factor": statistics.median(factors), "factor_low": factors[0], "factor_high": factors[-1],
                "more": statistics.median(many - few for few, many in zip(row["few"], row["many"]))}
    return rows


def print_rows(rows):
    print(f"\ngrowth: {FEW.about}, and 512; {FEW.figure}")
    print(f"  {'':<11} {'64':>9} {'512':>9} {'times':>9} {'range':>12} {'more':>9}")
    for row in rows:
        few, many = (rounded(statistics.median(row[name])) for name in ("few", "many"))
        between = f"{row['factor_low']:.2f}-{row['factor_high']:.2f}"
        print(f"  {row['target']:<11} {few:>9} {many:>9} {row['factor']:>9.2f} {between:>12} {rounded(row['more']):>9}")
    if (most := max(share for row in rows for share in row["others"])) > DISTURBED:
        print(f"  Other programs used up to {most:.0%} of the CPU meanwhile, which makes figures higher.")


def measure(tools, gateway, options):
    """Measures and prints, as the options of tests/bench/run say; returns the rows."""
    targets = [target for target in choose_targets(tools, gateway, options.targets) if "h1" in target.features]
    targets += [floor for floor in [Hitch(), NoProxy(tools)] if floor.path()]
    progress = Progress()
    with opened(tools, targets, options) as bench:
        rows = measure_rounds(bench, targets, options.rounds, progress)
        progress()
        print_rows(rows)
    return rows
