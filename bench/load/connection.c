/*
 * Sockets and the epoll loop: opening within bounds, reading, and keeping what is not whole yet.
 *
 * Arrival time is the kernel's receive timestamp (SO_TIMESTAMPNS). The time that a message then spends in the socket,
 * until this single thread with its thousands of clients reads it, is not the server's latency: it would grow with the
 * number of clients that are readable at once, so the server that reaches most of them would look slow.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum {
	INPUT_SIZE = 1 << 20, /* more than any unit: answers are at most 256 KiB */
	BATCH = 64,           /* sockets read before the publishers get their turn again */
	CONNECT_S = 10,
};

struct connection *subscribers;
unsigned subscriber_count;

uint64_t arrived_ns;

static char input[INPUT_SIZE + 1];
static uint64_t wall_offset_ns; /* CLOCK_REALTIME, which the kernel stamps with, less CLOCK_MONOTONIC */
static int everyone, publishers_only; /* the second is watched by the first, so that a publisher never queues behind
                                         thousands of readable subscribers */
static unsigned next_to_open, opening;

static uint64_t ns(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return ns(t);
}

static void add(int epoll, int fd, void *tag)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

void setup_loop(void)
{
	everyone = epoll_create1(0);
	publishers_only = epoll_create1(0);
	add(everyone, publishers_only, NULL);
	subscriber_count = options.subscribers + options.bystanders;
	subscribers = calloc(subscriber_count + 1, sizeof *subscribers);
	for (unsigned i = 0; i < subscriber_count; i++)
		subscribers[i].channel = i < options.subscribers ? i % options.channels : options.channels;
}

void watch(struct connection *c, bool publisher)
{
	add(publisher ? publishers_only : everyone, c->fd, c);
}

/* The transport's request, with the subscriber's own parameters at the end of its URL, as pages send them. */
size_t subscribe_request(const struct connection *c, char *out)
{
	size_t size = options.transport->request(c, out);
	if (!options.parameter_count)
		return size;
	const char *own = options.parameters[(c - subscribers) % options.parameter_count];
	char *end = strstr(out, " HTTP/1.1");
	char first = memchr(out, '?', end - out) ? '&' : '?';
	size_t added = 1 + strlen(own);

	memmove(end + added, end, out + size - end + 1);
	*end = first;
	memcpy(end + 1, own, strlen(own));
	return size + added;
}

/* Connects and waits for it: on the loopback that is the time of the handshake in the kernel, no round trip. */
void dial(struct connection *c, int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval limit = {.tv_sec = CONNECT_S};
	struct linger abort_on_close = {.l_onoff = 1}; /* no TIME_WAIT: a run of ten thousand leaves no ports behind */
	int yes = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket: %s (raise `ulimit -n`)", strerror(errno));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &abort_on_close, sizeof abort_on_close);
	setsockopt(c->fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
	if (connect(c->fd, (struct sockaddr *)&to, sizeof to))
		die("connect to port %d: %s", port, strerror(errno));
}

/* Requests are far smaller than a socket's buffer, and there is one at a time, so they always fit at once. */
void transmit(struct connection *c, const char *bytes, size_t size)
{
	if (send(c->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
		lost(c, strerror(errno));
}

void lost(struct connection *c, const char *why)
{
	static unsigned told;

	if (c->fd < 0)
		return;
	if (told++ < 5)
		fprintf(stderr, "load: lost a connection: %.*s\n", (int)strcspn(why, "\r\n"), why);
	close(c->fd);
	c->fd = -1;
	if (!c->opened) {
		tally.failed++;
		opening--;
	}
	tally.lost++;
}

/* --- opening ------------------------------------------------------------------------------------------------- */

void opened(struct connection *c)
{
	if (c->opened)
		return;
	c->opened = true;
	tally.opened++;
	opening--;
}

static void open_more(void)
{
	char request[REQUEST_SIZE];

	for (; next_to_open < subscriber_count && opening < options.in_flight; next_to_open++) {
		struct connection *c = &subscribers[next_to_open];
		dial(c, options.port);
		opening++;
		c->parse = options.transport->first;
		watch(c, false);
		transmit(c, request, subscribe_request(c, request));
	}
}

/* A held poll has no answer that ends the handshake. A publish that is sent after the polls, and answered, takes its
 * place. It bounds how many are in flight; that none is missing is shown by what is published later. */
static void open_held(void)
{
	static bool probing;
	static unsigned polls_open;

	if (probing && !answered())
		return;
	for (; polls_open < next_to_open; polls_open++)
		opened(&subscribers[polls_open]);
	open_more();
	probing = opening;
	if (probing)
		probe();
}

bool all_opened(void)
{
	if (options.held)
		open_held();
	else
		open_more();
	return !opening && next_to_open == subscriber_count;
}

bool never(void)
{
	return false;
}

/* --- reading ------------------------------------------------------------------------------------------------- */

static void keep_rest(struct connection *c, const char *from, size_t size)
{
	c->rest = realloc(c->rest, size + 1);
	memcpy(c->rest, from, size);
	c->rest_size = size;
}

/* As recv() does, and sets `arrived_ns` to when the last of these bytes came. */
static ssize_t receive_stamped(int fd, char *buffer, size_t size)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct timespec))];
	} control;
	struct iovec data = {.iov_base = buffer, .iov_len = size};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
	struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	struct timespec stamp;

	if (header && header->cmsg_type == SCM_TIMESTAMPNS) {
		memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
		arrived_ns = ns(stamp) - wall_offset_ns;
	} else {
		arrived_ns = now_ns();
	}
	return got;
}

static void receive(struct connection *c)
{
	if (c->rest_size)
		memcpy(input, c->rest, c->rest_size);
	ssize_t got = receive_stamped(c->fd, input + c->rest_size, INPUT_SIZE - c->rest_size);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		lost(c, got ? strerror(errno) : "the server ended it");
		return;
	}
	size_t size = c->rest_size + got, used;
	input[size] = 0;
	used = c->parse(c, input, size);
	if (size - used == INPUT_SIZE)
		die("a unit of more than %d bytes", INPUT_SIZE);
	if (c->fd >= 0 && (c->rest_size || used < size))
		keep_rest(c, input + used, size - used);
}

static void receive_from(int epoll, int timeout_ms)
{
	struct epoll_event ready[BATCH];
	int count = epoll_wait(epoll, ready, BATCH, timeout_ms);
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	wall_offset_ns = ns(wall) - now_ns();

	for (int i = 0; i < count; i++) {
		struct connection *c = ready[i].data.ptr;
		if (c && c->fd >= 0)
			receive(c);
	}
}

/* Runs the loop until `done` says so (true) or the limit is over (false). */
bool serve(double limit_s, bool (*done)(void))
{
	uint64_t end = now_ns() + (uint64_t)(limit_s * 1e9);

	for (;;) {
		uint64_t due = publish_due(); /* before `done`, which may depend on the time that has passed here */
		if (done())
			return true;
		uint64_t now = now_ns();
		if (now >= end)
			return false;
		uint64_t wake = due && due < end ? due : end;
		receive_from(everyone, wake <= now ? 0 : (int)((wake - now) / 1000000));
		receive_from(publishers_only, 0);
	}
}
