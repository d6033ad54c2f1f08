/*
 * Framing, incrementally: each parser takes whatever is whole off the front of the input and leaves the rest for the
 * next call, so segments may be cut or merged anywhere.
 *
 *     WebSocket    head, then frames (RFC 6455 section 5.2)
 *     EventSource  head, then blocks that end with an empty line; whole blocks in chunks, or none (RFC 9112 section 7.1)
 *     long-poll    an answer with Content-Length, after which the next poll goes out at once
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "load.h"

static size_t parse_frames(struct connection *, char *, size_t);
static size_t parse_blocks(struct connection *, char *, size_t);

/* --- HTTP ---------------------------------------------------------------------------------------------------- */

const char *header(const struct head *head, const char *name, size_t *size)
{
	size_t name_size = strlen(name);
	const char *line = memchr(head->text, '\n', head->size), *end = head->text + head->size;

	for (; line && ++line < end; line = memchr(line, '\n', end - line)) {
		if ((size_t)(end - line) <= name_size || line[name_size] != ':' || strncasecmp(line, name, name_size))
			continue;
		const char *value = line + name_size + 1;
		while (*value == ' ')
			value++;
		*size = (const char *)memchr(value, '\r', end - value) - value;
		return value;
	}
	return NULL;
}

struct head read_head(const char *input, size_t size)
{
	struct head head = {.text = input};
	const char *end = memmem(input, size, "\r\n\r\n", 4);
	size_t ignored;

	if (!end)
		return head;
	head.size = end + 4 - input;
	head.status = head.size > 12 ? atoi(input + 9) : 0;
	const char *body = header(&head, "Content-Length", &ignored);
	head.body = body ? strtoul(body, NULL, 10) : 0;
	return head;
}

/* Takes the head that begins a stream, and goes on with `next`. */
static size_t begin_stream(struct connection *c, char *input, size_t size, int status, parser next)
{
	struct head head = read_head(input, size);

	if (!head.size)
		return 0;
	if (head.status != status) {
		lost(c, input);
		return size;
	}
	c->parse = next;
	return head.size + next(c, input + head.size, size - head.size);
}

/* --- WebSocket ----------------------------------------------------------------------------------------------- */

enum { FINAL_TEXT = 0x81, CLOSE = 0x88, PING = 0x89 };

static size_t parse_upgrade(struct connection *c, char *input, size_t size)
{
	size_t used = begin_stream(c, input, size, 101, parse_frames);

	if (c->parse == parse_frames && !options.dialect->greets)
		opened(c);
	return used;
}

/* RFC 6455 section 5.5.3; the mask is zero, which masks nothing. */
static void pong(struct connection *c, const unsigned char *data, size_t size)
{
	char frame[6 + 125] = {(char)0x8a, (char)(0x80 | size)};

	memcpy(frame + 6, data, size);
	transmit(c, frame, 6 + size);
	tally.pings++;
}

static void take_frame(struct connection *c, unsigned char kind, unsigned char *data, size_t size)
{
	if (kind == FINAL_TEXT)
		options.dialect->message(c, (char *)data, size);
	else if (kind == PING && size <= 125)
		pong(c, data, size);
	else if (kind == CLOSE)
		lost(c, "the server closed a WebSocket");
	else
		tally.corrupt++; /* fragments and binary: neither server sends them */
}

static size_t parse_frames(struct connection *c, char *input, size_t size)
{
	unsigned char *bytes = (unsigned char *)input;
	size_t used = 0;

	while (size - used >= 2 && c->fd >= 0) {
		unsigned char *frame = bytes + used;
		size_t left = size - used, length = frame[1] & 127, start = 2;

		if (length >= 126) {
			start += length == 126 ? 2 : 8;
			if (left < start)
				break;
			length = 0;
			for (size_t i = 2; i < start; i++)
				length = length << 8 | frame[i];
		}
		if (left - start < length || left < start)
			break;
		take_frame(c, frame[0], frame + start, length);
		used += start + length;
	}
	return used;
}

static size_t websocket_request(const struct connection *c, char *out)
{
	char name[NAME_SIZE];

	channel_name(c, name);
	return options.dialect->websocket(name, out);
}

/* --- EventSource --------------------------------------------------------------------------------------------- */

static size_t parse_stream_head(struct connection *c, char *input, size_t size)
{
	return begin_stream(c, input, size, 200, parse_blocks);
}

/* A chunk's size and its end stand between blocks, and are skipped like every line that is not data. */
static void take_block(struct connection *c, const char *block, const char *end)
{
	const char *data = NULL;
	size_t data_size = 0;

	for (const char *line = block, *stop; line < end; line = stop + 1) {
		stop = memchr(line, '\n', end - line);
		stop = stop ? stop : end;
		if (stop - line > 6 && !memcmp(line, "data: ", 6)) {
			data = line + 6;
			data_size = stop - data;
		}
	}
	if (!c->opened)
		opened(c);
	if (data)
		options.dialect->message(c, data, data_size);
}

static size_t parse_blocks(struct connection *c, char *input, size_t size)
{
	char *block = input, *end;

	while ((end = memmem(block, input + size - block, "\n\n", 2)) && c->fd >= 0) {
		take_block(c, block, end);
		block = end + 2;
	}
	return block - input;
}

static size_t eventsource_request(const struct connection *c, char *out)
{
	char name[NAME_SIZE];

	channel_name(c, name);
	return options.dialect->eventsource(name, out);
}

/* --- long-poll ----------------------------------------------------------------------------------------------- */

static size_t longpoll_request(const struct connection *c, char *out)
{
	char name[NAME_SIZE];

	channel_name(c, name);
	return options.dialect->longpoll(name, c, out);
}

static size_t parse_poll(struct connection *c, char *input, size_t size)
{
	struct head head = read_head(input, size);
	char request[REQUEST_SIZE];

	if (!head.size || size - head.size < head.body)
		return 0;
	if (head.status != 200) {
		lost(c, input);
		return size;
	}
	options.dialect->answer(c, &head, input + head.size);
	if (c->fd < 0)
		return size;
	transmit(c, request, subscribe_request(c, request));
	if (!c->opened)
		opened(c);
	return head.size + head.body;
}

static const struct transport transports[] = {
	{"websocket", parse_upgrade, websocket_request},
	{"eventsource", parse_stream_head, eventsource_request},
	{"longpoll", parse_poll, longpoll_request},
};

const struct transport *find_transport(const char *name)
{
	for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
		if (!strcmp(transports[i].name, name))
			return &transports[i];
	die("no transport %s: websocket, eventsource or longpoll", name);
}
