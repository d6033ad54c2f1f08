/*
 * What arrived, how late, and what it cost.
 *
 * Exactly once: a subscriber has got everything once when the number of its messages and the sum of their numbers'
 * hashes are those of its channel. The order is not part of that (publishers race each other) and is counted apart.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "load.h"

enum { FINE_BITS = 6, FINE = 1 << FINE_BITS, BUCKETS = 60 * FINE }; /* at most 1.6 % off */

struct histogram {
	uint64_t buckets[BUCKETS], count, max;
};

struct channel {
	uint64_t count, sum;
	unsigned subscribers;
};

struct tally tally;
static struct channel *channels;
static struct histogram latency, answer_time;
static signed char digits[256];

void setup_tally(void)
{
	channels = calloc(options.channels, sizeof *channels);
	for (unsigned i = 0; i < options.subscribers; i++)
		channels[i % options.channels].subscribers++;
	memset(digits, -1, sizeof digits);
	for (int i = 0; i < 16; i++)
		digits[(int)"0123456789abcdef"[i]] = i;
}

/* --- histograms ---------------------------------------------------------------------------------------------- */

static void note(struct histogram *h, uint64_t ns)
{
	unsigned bucket = ns;

	if (ns >= FINE) {
		unsigned shift = 63 - __builtin_clzll(ns) - FINE_BITS;
		bucket = (shift + 1) * FINE + ((ns >> shift) & (FINE - 1));
	}
	h->buckets[bucket]++;
	h->count++;
	if (ns > h->max)
		h->max = ns;
}

static double bucket_end_ms(unsigned bucket)
{
	unsigned shift = bucket < FINE ? 0 : bucket / FINE - 1;
	uint64_t mantissa = bucket < FINE ? bucket : FINE + bucket % FINE;

	return (double)((mantissa + 1) << shift) / 1e6;
}

static double percentile_ms(const struct histogram *h, double share)
{
	uint64_t left = (uint64_t)(share * h->count);

	for (unsigned i = 0; i < BUCKETS; i++) {
		if (h->buckets[i] > left)
			return bucket_end_ms(i);
		left -= h->buckets[i];
	}
	return h->max / 1e6;
}

/* --- messages ------------------------------------------------------------------------------------------------ */

/* splitmix64: a message lost and another one doubled do not cancel out. */
static uint64_t hash(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static bool parse_hex(const char *text, int size, uint64_t *out)
{
	uint64_t value = 0;
	int bad = 0;

	for (int i = 0; i < size; i++) {
		int digit = digits[(unsigned char)text[i]];
		bad |= digit;
		value = value << 4 | (digit & 15);
	}
	*out = value;
	return bad >= 0;
}

void arrived(struct connection *c, const char *payload, size_t size)
{
	uint64_t number, sent;

	if (size != PAYLOAD_SIZE || payload[15] != '-' || !parse_hex(payload, 15, &number) ||
	    !parse_hex(payload + 16, 16, &sent)) {
		tally.corrupt++;
		return;
	}
	if (!number)
		return;
	tally.last_ns = now_ns();
	note(&latency, arrived_ns - sent);
	c->count++;
	c->sum += hash(number);
	tally.disordered += number <= c->last;
	c->last = number;
	tally.delivered++;
}

void acknowledged(uint64_t took_ns)
{
	tally.acked++;
	tally.last_ns = now_ns();
	note(&answer_time, took_ns);
}

/* A message was sent off (+1), or was refused after all (-1). */
void owe(uint32_t channel, uint64_t number, int sign)
{
	struct channel *c = &channels[channel];

	c->count += sign;
	c->sum += sign * hash(number);
	tally.expected += sign * (int64_t)c->subscribers;
}

struct verdict {
	uint64_t missing, repeated;
	unsigned wrong; /* subscribers that did not get everything exactly once */
};

static struct verdict judge(void)
{
	struct verdict v = {0};

	for (unsigned i = 0; i < options.subscribers; i++) {
		const struct connection *c = &subscribers[i];
		const struct channel *owed = &channels[c->channel];
		v.wrong += c->count != owed->count || c->sum != owed->sum;
		if (c->count < owed->count)
			v.missing += owed->count - c->count;
		else
			v.repeated += c->count - owed->count;
	}
	for (unsigned i = options.subscribers; i < subscriber_count; i++)
		v.wrong += subscribers[i].count != 0;
	return v;
}

/* --- what it cost -------------------------------------------------------------------------------------------- */

static double seconds(struct timespec t)
{
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* The processes' own CPU clocks: user and system time of all threads, in nanoseconds where /proc has ticks of 10 ms. */
struct usage usage(void)
{
	struct usage u = {.wall_ns = now_ns()};
	struct timespec t;
	clockid_t id;

	for (unsigned i = 0; i < options.pid_count; i++) {
		if (clock_getcpuclockid(options.pids[i], &id) || clock_gettime(id, &t))
			die("no CPU clock of process %d: has the server ended?", options.pids[i]);
		u.server_s += seconds(t);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	u.load_s = seconds(t);
	return u;
}

/* Proportional set size, so that pages shared between processes count once. */
long server_memory_kib(void)
{
	long total = 0, kib;
	char path[64], line[256];

	for (unsigned i = 0; i < options.pid_count; i++) {
		snprintf(path, sizeof path, "/proc/%d/smaps_rollup", options.pids[i]);
		FILE *file = fopen(path, "r");
		while (file && fgets(line, sizeof line, file))
			if (sscanf(line, "Pss: %ld", &kib) == 1)
				total += kib;
		if (file)
			fclose(file);
	}
	return total;
}

/* --- the report ---------------------------------------------------------------------------------------------- */

static void print_phase(const char *name, struct usage from, struct usage to)
{
	printf("\"%s\":{\"wall_s\":%.6f,\"server_cpu_s\":%.6f,\"load_cpu_s\":%.6f},", name,
	       (to.wall_ns - from.wall_ns) / 1e9, to.server_s - from.server_s, to.load_s - from.load_s);
}

static void print_histogram(const char *name, const struct histogram *h)
{
	printf("\"%s\":{\"count\":%llu,\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"max\":%.3f},", name,
	       (unsigned long long)h->count, percentile_ms(h, 0.50), percentile_ms(h, 0.95), percentile_ms(h, 0.99),
	       h->max / 1e6);
}

static void print_count(const char *name, uint64_t value)
{
	printf("\"%s\":%llu,", name, (unsigned long long)value);
}

void report(const struct measured *m)
{
	struct verdict v = judge();
	struct usage last = m->drained;
	bool exact = m->complete && !v.wrong && !tally.corrupt && !tally.resets && !tally.lost && !tally.refused;

	/* The time of a run ends with the last delivery; the CPU it cost, after the grace that follows. */
	last.wall_ns = tally.last_ns > m->held.wall_ns ? tally.last_ns : m->held.wall_ns;
	printf("{");
	print_phase("prime", m->start, m->primed);
	print_phase("open", m->primed, m->opened);
	print_phase("hold", m->opened, m->held);
	print_phase("run", m->held, last);
	print_count("memory_before_kib", m->memory_before_kib);
	print_count("memory_open_kib", m->memory_open_kib);
	print_count("opened", tally.opened);
	print_count("failed", tally.failed);
	print_count("lost", tally.lost);
	print_count("published", tally.published);
	print_count("acked", tally.acked);
	print_count("refused", tally.refused);
	print_count("late", tally.late);
	print_count("expected", tally.expected);
	print_count("delivered", tally.delivered);
	print_count("missing", v.missing);
	print_count("repeated", v.repeated);
	print_count("wrong_subscribers", v.wrong);
	print_count("disordered", tally.disordered);
	print_count("corrupt", tally.corrupt);
	print_count("resets", tally.resets);
	print_count("controls", tally.controls);
	print_count("pings", tally.pings);
	print_histogram("latency_ms", &latency);
	print_histogram("answer_ms", &answer_time);
	printf("\"exact\":%s}\n", exact ? "true" : "false");
}
