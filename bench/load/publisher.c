/*
 * Publishers: kept-alive connections with one request outstanding each.
 *
 * Without a rate, each publishes again as soon as it has its answer. With a rate, messages are scheduled at fixed
 * intervals and the first free publisher sends the next; if no publisher is free, it is sent late and counted.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

enum { ANSWER_S = 10 };

static struct connection *publishers;
static unsigned busy;
static uint64_t next_number = 1, next_channel;
static uint64_t interval_ns, due_ns, end_ns;      /* of the publish phase */
static unsigned primed, to_prime;                 /* of the prime phase */

static size_t parse_publish_answer(struct connection *, char *, size_t);

void setup_publishers(void)
{
	publishers = calloc(options.publishers + 1, sizeof *publishers);
	for (unsigned i = 0; i < options.publishers; i++) {
		struct connection *p = &publishers[i];
		p->parse = parse_publish_answer;
		p->opened = true;
		dial(p, options.publish_port ? options.publish_port : options.port);
		watch(p, true);
	}
}

static void post(struct connection *p, const char *channel, uint64_t number)
{
	char payload[PAYLOAD_SIZE + 1], request[REQUEST_SIZE];

	p->number = number;
	p->busy = true;
	busy++;
	p->sent_ns = now_ns();
	snprintf(payload, sizeof payload, "%015llx-%016llx", (unsigned long long)number,
		 (unsigned long long)p->sent_ns);
	transmit(p, request, options.dialect->publish(channel, payload, request));
}

static void post_next(struct connection *p)
{
	char channel[NAME_SIZE];

	p->channel = (options.random ? (unsigned long)random() : next_channel++) % options.channels;
	channel_name(p, channel);
	owe(p->channel, next_number, +1);
	tally.published++;
	post(p, channel, next_number++);
}

static void prime_next(struct connection *p)
{
	char channel[NAME_SIZE];

	if (primed < options.channels)
		snprintf(channel, sizeof channel, "%s%u", options.channel, primed);
	else
		snprintf(channel, sizeof channel, "other%u", primed - options.channels);
	primed++;
	post(p, channel, 0);
}

static bool may_publish(void)
{
	return now_ns() < end_ns && (!options.count || tally.published < options.count);
}

static void go_on(struct connection *p)
{
	if (primed < to_prime)
		prime_next(p);
	else if (!interval_ns && may_publish())
		post_next(p);
}

static size_t parse_publish_answer(struct connection *p, char *input, size_t size)
{
	struct head head = read_head(input, size);

	if (!head.size || size - head.size < head.body)
		return 0;
	p->busy = false;
	busy--;
	if (p->number && head.status / 100 == 2) {
		acknowledged(now_ns() - p->sent_ns);
	} else if (head.status / 100 != 2) {
		if (!tally.refused++)
			fprintf(stderr, "load: a publish was refused: %.*s\n", (int)strcspn(input, "\r\n"), input);
		if (p->number)
			owe(p->channel, p->number, -1);
	}
	go_on(p);
	return head.size + head.body;
}

static struct connection *free_publisher(void)
{
	for (unsigned i = 0; i < options.publishers; i++)
		if (!publishers[i].busy && publishers[i].fd >= 0)
			return &publishers[i];
	return NULL;
}

uint64_t publish_due(void)
{
	static uint64_t counted_late;
	struct connection *p;

	if (!interval_ns)
		return 0;
	while (due_ns <= now_ns() && may_publish()) {
		if (!(p = free_publisher())) {
			tally.late += counted_late != due_ns;
			counted_late = due_ns;
			return 0; /* an answer wakes the loop */
		}
		post_next(p);
		due_ns += interval_ns;
	}
	return !may_publish() ? 0 : due_ns < end_ns ? due_ns : end_ns;
}

bool answered(void)
{
	return !busy;
}

void probe(void)
{
	post(&publishers[0], "probe", 0);
}

void prime(void)
{
	to_prime = options.channels + options.others;
	for (unsigned i = 0; i < options.publishers; i++)
		go_on(&publishers[i]);
	if (!serve(ANSWER_S + to_prime / 1000.0, answered))
		die("the channels' first messages were not answered in time");
}

bool publishing_done(void)
{
	return !may_publish() && !busy;
}

void publish(void)
{
	end_ns = now_ns() + (uint64_t)(options.seconds * 1e9);
	if (options.rate) {
		interval_ns = 1000000000 / options.rate;
		due_ns = now_ns();
	} else {
		for (unsigned i = 0; i < options.publishers; i++)
			go_on(&publishers[i]);
	}
	if (!serve(options.seconds + ANSWER_S, publishing_done))
		fprintf(stderr, "load: %u publishes were never answered\n", busy);
}

bool all_delivered(void)
{
	return tally.delivered >= tally.expected && !busy;
}
