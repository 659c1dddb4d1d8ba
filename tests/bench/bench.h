/*
 * bench: what the micro-benchmarks share. A program has named operations; for each it prints a line
 *
 *     name<TAB>value<TAB>unit
 *
 * with the best of some rounds, in ns an operation. `--only NAME` takes one of them, `--list` names them, and
 * `--operations N` does exactly N without measuring, for tools that count instructions (tests/bench/run).
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BENCH_ROUNDS = 7, BENCH_ROUND_MS = 60 };

struct bench {
    const char *only;    /* NULL: all */
    uint64_t operations; /* 0: measure */
    bool list;
};

static inline uint64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline void bench_report(const char *name, double value, const char *unit)
{
    printf("%s\t%.*f\t%s\n", name, value < 100 ? 2 : 0, value, unit);
    fflush(stdout);
}

/* Keeps the compiler from leaving out what makes the value. */
static inline void bench_use(const void *value)
{
    __asm__ volatile("" : : "r"(value) : "memory");
}

static inline struct bench bench_begin(int argc, char **argv)
{
    struct bench bench = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            bench.list = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--only") == 0) {
            bench.only = argv[++i];
        } else if (i + 1 < argc && strcmp(argv[i], "--operations") == 0) {
            bench.operations = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: %s [--list] [--only NAME] [--operations N]\n", argv[0]);
            exit(2);
        }
    }
    return bench;
}

/* `run` does `count` operations. */
typedef void (*bench_run_cb)(void *arg, uint64_t count);

static inline void bench_run(const struct bench *bench, const char *name, bench_run_cb run, void *arg)
{
    if (bench->only && strcmp(bench->only, name) != 0)
        return;
    if (bench->list) {
        puts(name);
        return;
    }
    if (bench->operations > 0) {
        run(arg, bench->operations);
        return;
    }
    double best = 0;
    uint64_t count = 1;
    for (int round = -1; round < BENCH_ROUNDS;) {
        uint64_t begun = bench_now_ns();
        run(arg, count);
        uint64_t took = bench_now_ns() - begun;
        if (round < 0 && took < BENCH_ROUND_MS * UINT64_C(1000000)) {
            count *= 2; /* until a round is long enough, which also warms up */
            continue;
        }
        double each = (double)took / (double)count;
        best = round <= 0 || each < best ? each : best;
        round++;
    }
    bench_report(name, best, "ns");
}

#endif
