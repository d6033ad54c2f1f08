/*
 * A load generator for push servers: one thread, one epoll loop, no dependency but libc.
 *
 * One run has six phases, each bounded in time, each skipped by a zero:
 *
 *     prime    one message to every channel, so that it exists and a long-poll has a place to start from
 *     open     all subscribers, a bounded number of handshakes in flight
 *     hold     nothing happens; memory and idle CPU are read here
 *     publish  paced, or as fast as the publishers get their answers
 *     drain    until every subscriber has everything, then a grace period to detect duplicates
 *     report   one JSON object on stdout
 *
 *   main.c        options and phases          connection.c  sockets, the epoll loop, unfinished input
 *   transports.c  what a transport frames     dialects.c    what a server's URLs and messages look like
 *   publisher.c   who publishes, and when     tally.c       what arrived, how late; CPU, memory, the report
 *
 * Every payload is 32 bytes: a number (15 hex digits), a dash, and the CLOCK_MONOTONIC nanosecond at which it was sent
 * (16 hex digits). Number 0 is a primer and never counted.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	PAYLOAD_SIZE = 32,
	NAME_SIZE = 64,
	CURSOR_SIZE = 48,
	REQUEST_SIZE = 1024,
	SERVER_PIDS = 16,
};

struct connection;

/* Takes whole units (a head, a frame, an event, an answer) off `input`; returns how many bytes those were. */
typedef size_t (*parser)(struct connection *, char *input, size_t size);

struct connection {
	int fd;
	bool opened;
	parser parse;
	uint32_t channel;
	uint32_t rest_size; /* of a unit that has not arrived whole yet */
	char *rest;
	char cursor[CURSOR_SIZE]; /* long-poll: where to go on */
	char tag[CURSOR_SIZE];    /* long-poll, Nchan: the second half of that place */

	/* a subscriber: what it got */
	uint64_t count, sum, last;

	/* a publisher: what it sent and waits for */
	bool busy;
	uint64_t number, sent_ns;
};

struct transport {
	const char *name;
	parser first; /* of a connection that has just sent its first request */
	/* Builds the request that subscribes; the next poll too, once the connection has a cursor. */
	size_t (*request)(const struct connection *, char *out);
};

struct head {
	int status;
	size_t size; /* with its blank line; 0: not whole yet */
	size_t body;
	const char *text;
};

struct dialect {
	const char *name;
	bool greets; /* a WebSocket begins with a frame of the server's */
	size_t (*publish)(const char *channel, const char *payload, char *out);
	size_t (*websocket)(const char *channel, char *out);
	size_t (*eventsource)(const char *channel, char *out);
	size_t (*longpoll)(const char *channel, const struct connection *, char *out);
	void (*message)(struct connection *, const char *text, size_t size); /* a text frame, or the data of an event */
	void (*answer)(struct connection *, const struct head *, const char *body); /* of a long-poll */
};

struct options {
	const char *key, *channel;
	char **parameters; /* of the URL, "a=b&c=d", for each subscriber, or as many as there are; NULL: none */
	unsigned parameter_count;
	int port, publish_port;
	const struct dialect *dialect;
	const struct transport *transport;
	unsigned subscribers, channels, bystanders, others, publishers, in_flight, rate;
	bool held;       /* long-poll: the first poll is held already, instead of answered with a place in the channel */
	bool random;     /* publish to random channels instead of round-robin */
	bool fresh_keys; /* an Idempotency-Key of its own with each publish */
	double seconds, hold, drain;
	uint64_t count; /* most messages to publish; 0: no limit but the time */
	pid_t pids[SERVER_PIDS];
	unsigned pid_count;
};

extern struct options options;

/* main.c */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
void channel_name(const struct connection *, char *out);

/* dialects.c, transports.c */
const struct dialect *find_dialect(const char *name);
const struct transport *find_transport(const char *name);
struct head read_head(const char *input, size_t size);
const char *header(const struct head *, const char *name, size_t *size);

/* connection.c */
uint64_t now_ns(void);
extern uint64_t arrived_ns; /* when the kernel had what is being parsed; CLOCK_MONOTONIC */
void setup_loop(void);
void watch(struct connection *, bool publisher);
void dial(struct connection *, int port);
size_t subscribe_request(const struct connection *, char *out);
void transmit(struct connection *, const char *bytes, size_t size);
void opened(struct connection *);
void lost(struct connection *, const char *why);
bool serve(double limit_s, bool (*done)(void));
bool all_opened(void);
bool never(void);
extern struct connection *subscribers;
extern unsigned subscriber_count;

/* publisher.c */
void setup_publishers(void);
void prime(void);
void probe(void); /* one publish to a channel without subscribers */
bool answered(void);
void publish(void);
uint64_t publish_due(void); /* publishes what is due; returns when it wants to be called again (ns), or 0 */
bool publishing_done(void);
bool all_delivered(void);

/* tally.c */
struct tally {
	uint64_t published, acked, refused, late;
	uint64_t expected, delivered, disordered, corrupt, resets, controls, pings;
	unsigned opened, failed, lost;
	uint64_t last_ns; /* of the last delivery or answer */
};
struct usage {
	uint64_t wall_ns;
	double server_s, load_s;
};
extern struct tally tally;
void arrived(struct connection *, const char *payload, size_t size);
void acknowledged(uint64_t took_ns);
void owe(uint32_t channel, uint64_t number, int sign);
void setup_tally(void);
struct usage usage(void);
long server_memory_kib(void);
struct measured {
	struct usage start, primed, opened, held, published, drained;
	long memory_before_kib, memory_open_kib;
	bool complete;
};
void report(const struct measured *);

#endif
