/* Options, and the phases in their order (load.h says what they are for). */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

enum { OPEN_S = 30 };
static const double GRACE_S = 0.25; /* in which a message delivered twice would still arrive */

struct options options = {.key = "", .channel = "chat", .channels = 1, .publishers = 1, .in_flight = 128, .drain = 15};

static const char usage_text[] =
	"load --port P --dialect pushcompat|nchan|centrifugo [options]      a load generator for push servers on 127.0.0.1\n"
	"  --transport NAME     websocket (default), eventsource or longpoll\n"
	"  --subscribers N      spread over the channels round-robin       --channels N      default 1\n"
	"  --bystanders N       subscribers of a quiet channel             --others N        channels with one message\n"
	"  --channel NAME       what channels' names begin with            --key KEY         to publish with\n"
	"  --in-flight N        handshakes at a time, default 128          --hold S          wait once all are open\n"
	"  --publishers N       kept-alive connections, default 1          --rate R          a second; 0: all they can\n"
	"  --seconds S          how long to publish; 0: not at all         --count N         and at most so many\n"
	"  --random 1           publish to random channels                 --fresh-keys 1    an Idempotency-Key per publish\n"
	"  --held 1             long-poll: the server holds the first poll  --parameters FILE of each subscriber's URL\n"
	"  --publish-port P     of another process of the server; default: --port\n"
	"  --drain S            the longest wait for the last message, default 15\n"
	"  --server-pid PID     whose CPU and memory to read; repeatable\n";

void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

void channel_name(const struct connection *c, char *out)
{
	if (c->channel < options.channels)
		snprintf(out, NAME_SIZE, "%s%u", options.channel, c->channel);
	else
		snprintf(out, NAME_SIZE, "%s-elsewhere", options.channel);
}

static const struct option names[] = {
	{"port", 1, 0, 'p'},        {"dialect", 1, 0, 'd'},    {"transport", 1, 0, 't'}, {"subscribers", 1, 0, 'n'},
	{"channels", 1, 0, 'c'},    {"bystanders", 1, 0, 'b'}, {"others", 1, 0, 'o'},    {"channel", 1, 0, 'm'},
	{"key", 1, 0, 'k'},         {"in-flight", 1, 0, 'f'},  {"hold", 1, 0, 'h'},      {"publishers", 1, 0, 'w'},
	{"rate", 1, 0, 'r'},        {"seconds", 1, 0, 's'},    {"count", 1, 0, 'u'},     {"server-pid", 1, 0, 'i'},
	{"drain", 1, 0, 'a'},       {"held", 1, 0, 'l'},       {"random", 1, 0, 'x'},    {"fresh-keys", 1, 0, 'y'},
	{"publish-port", 1, 0, 'q'}, {"parameters", 1, 0, 'T'}, {0},
};

static void read_parameters(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[REQUEST_SIZE / 2];

	if (!file)
		die("cannot read %s", path);
	while (fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		options.parameters = realloc(options.parameters, (options.parameter_count + 1) * sizeof *options.parameters);
		options.parameters[options.parameter_count++] = strdup(line);
	}
	fclose(file);
}

static void take_option(int name, const char *value)
{
	switch (name) {
	case 'p': options.port = atoi(value); break;
	case 'd': options.dialect = find_dialect(value); break;
	case 't': options.transport = find_transport(value); break;
	case 'n': options.subscribers = atoi(value); break;
	case 'c': options.channels = atoi(value); break;
	case 'b': options.bystanders = atoi(value); break;
	case 'o': options.others = atoi(value); break;
	case 'm': options.channel = value; break;
	case 'k': options.key = value; break;
	case 'f': options.in_flight = atoi(value); break;
	case 'h': options.hold = atof(value); break;
	case 'w': options.publishers = atoi(value); break;
	case 'r': options.rate = atoi(value); break;
	case 's': options.seconds = atof(value); break;
	case 'u': options.count = strtoull(value, NULL, 10); break;
	case 'a': options.drain = atof(value); break;
	case 'l': options.held = atoi(value); break;
	case 'x': options.random = atoi(value); break;
	case 'y': options.fresh_keys = atoi(value); break;
	case 'T': read_parameters(value); break;
	case 'q': options.publish_port = atoi(value); break;
	case 'i': options.pids[options.pid_count++ % SERVER_PIDS] = atoi(value); break;
	default: fputs(usage_text, stderr); exit(2);
	}
}

static void take_options(int count, char **arguments)
{
	int name;

	options.transport = find_transport("websocket");
	while ((name = getopt_long(count, arguments, "", names, NULL)) != -1)
		take_option(name, optarg);
	if (!options.port || !options.dialect || !options.channels || !options.in_flight ||
	    options.pid_count > SERVER_PIDS || (options.held && !options.publishers) || strlen(options.channel) > 20 || strlen(options.key) > 200)
		take_option(0, NULL);
	if (!options.dialect->longpoll && !strcmp(options.transport->name, "longpoll"))
		die("%s has no long-poll", options.dialect->name);
}

int main(int count, char **arguments)
{
	struct measured m = {0};

	take_options(count, arguments);
	setup_tally();
	setup_loop();
	setup_publishers();
	m.start = usage();
	prime();
	m.memory_before_kib = server_memory_kib();
	m.primed = usage();
	if (!serve(OPEN_S, all_opened))
		die("%u of %u connections opened in %d s", tally.opened, subscriber_count, OPEN_S);
	m.opened = usage();
	serve(options.hold, never);
	m.memory_open_kib = server_memory_kib();
	m.held = usage();
	publish();
	m.complete = serve(options.drain, all_delivered);
	m.published = usage();
	serve(GRACE_S, never);
	m.drained = usage();
	report(&m);
	return 0;
}
