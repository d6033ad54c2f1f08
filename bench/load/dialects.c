/* How each server is asked, and how its messages look: the only file that knows one server from another. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "load.h"

#define UPGRADE                                                                                                        \
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"                                   \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define STREAM "Accept: text/event-stream\r\n"
#define GET(target, headers) "GET " target " HTTP/1.1\r\nHost: 127.0.0.1\r\n" headers "\r\n"
#define POST(target, headers)                                                                                          \
	"POST " target " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"                                  \
	"Content-Length: 32\r\n" headers "\r\n%s"
#define BUILD(...) ((size_t)snprintf(out, REQUEST_SIZE, __VA_ARGS__))

/* --- pushcompat: JSON envelopes, one URL for everything ------------------------------------------------------- */

static size_t pushcompat_publish(const char *channel, const char *payload, char *out)
{
	if (options.fresh_keys)
		return BUILD(POST("/channels/%s", "Authorization: Bearer %s\r\nIdempotency-Key: %s\r\n"), channel,
			     options.key, payload, payload);
	return BUILD(POST("/channels/%s", "Authorization: Bearer %s\r\n"), channel, options.key, payload);
}

static size_t pushcompat_websocket(const char *channel, char *out)
{
	return BUILD(GET("/channels/%s?format=json", UPGRADE), channel);
}

static size_t pushcompat_eventsource(const char *channel, char *out)
{
	return BUILD(GET("/channels/%s?format=json", STREAM), channel);
}

static size_t pushcompat_longpoll(const char *channel, const struct connection *c, char *out)
{
	if (!c->cursor[0])
		return BUILD(GET("/channels/%s%s", ""), channel, options.held ? "?wait=25" : "");
	return BUILD(GET("/channels/%s?cursor=%s&wait=25", ""), channel, c->cursor);
}

/* Takes the payload of the first envelope in `text` and returns where it ends, or NULL where there is none. Envelopes
 * are alike, so it looks first where the last one had its data. */
static const char *take_envelope(struct connection *c, const char *text, const char *end)
{
	static const char mark[] = "\"data\":\"";
	static const size_t mark_size = sizeof mark - 1;
	static size_t hint;
	const char *data = text + hint;

	if ((size_t)(end - text) < hint + mark_size || memcmp(data, mark, mark_size)) {
		data = memmem(text, end - text, mark, mark_size);
		if (!data)
			return NULL;
		hint = data - text;
	}
	data += mark_size;
	const char *quote = memchr(data, '"', end - data);
	if (quote)
		arrived(c, data, quote - data);
	return quote;
}

static bool begins(const char *text, size_t size, const char *prefix)
{
	return size >= strlen(prefix) && !memcmp(text, prefix, strlen(prefix));
}

static void pushcompat_message(struct connection *c, const char *text, size_t size)
{
	if (!begins(text, size, "{\"control\":")) {
		if (!take_envelope(c, text, text + size))
			tally.corrupt++;
		return;
	}
	tally.controls++;
	if (begins(text, size, "{\"control\":\"reset\""))
		tally.resets++;
	else if (begins(text, size, "{\"control\":\"open\""))
		opened(c);
}

static void pushcompat_answer(struct connection *c, const struct head *head, const char *body)
{
	static const char mark[] = "\"cursor\":\"";
	const char *end = body + head->body, *next = body;
	const char *cursor = memmem(body, head->body, mark, sizeof mark - 1);
	const char *quote = cursor ? memchr(cursor + sizeof mark - 1, '"', end - cursor - (sizeof mark - 1)) : NULL;

	if (!quote || quote - (cursor += sizeof mark - 1) >= CURSOR_SIZE) {
		lost(c, "an answer without a cursor");
		return;
	}
	memcpy(c->cursor, cursor, quote - cursor);
	c->cursor[quote - cursor] = 0;
	tally.resets += memmem(body, head->body, "\"reset\":", 8) != NULL;
	if ((next = memmem(body, head->body, "\"messages\":[", 12)))
		for (next += 12; next;)
			next = take_envelope(c, next, end);
}

/* --- Nchan: bare payloads, a place in the channel is a Last-Modified and an Etag --------------------------------- */

static size_t nchan_publish(const char *channel, const char *payload, char *out)
{
	return BUILD(POST("/publish?id=%s", ""), channel, payload);
}

static size_t nchan_websocket(const char *channel, char *out)
{
	return BUILD(GET("/subscribe?id=%s", UPGRADE), channel);
}

static size_t nchan_eventsource(const char *channel, char *out)
{
	return BUILD(GET("/subscribe?id=%s", STREAM), channel);
}

static size_t nchan_longpoll(const char *channel, const struct connection *c, char *out)
{
	if (!c->cursor[0])
		return BUILD(GET("/%s?id=%s", ""), options.held ? "subscribe" : "poll", channel);
	return BUILD(GET("/poll?id=%s", "If-Modified-Since: %s\r\nIf-None-Match: %s\r\n"), channel, c->cursor, c->tag);
}

static void nchan_message(struct connection *c, const char *text, size_t size)
{
	arrived(c, text, size);
}

static bool keep(char *out, const struct head *head, const char *name)
{
	size_t size;
	const char *value = header(head, name, &size);

	if (!value || size >= CURSOR_SIZE)
		return false;
	memcpy(out, value, size);
	out[size] = 0;
	return true;
}

static void nchan_answer(struct connection *c, const struct head *head, const char *body)
{
	if (keep(c->cursor, head, "Last-Modified") && keep(c->tag, head, "Etag"))
		arrived(c, body, head->body);
	else
		lost(c, "an answer without Last-Modified or Etag");
}

/* --- Centrifugo: unidirectional transports, the channel is in the connect command ---------------------------------- */

#define CONNECT "cf_connect=%%7B%%22subs%%22:%%7B%%22%s%%22:%%7B%%7D%%7D%%7D" /* {"subs":{"…":{}}} */

static size_t centrifugo_publish(const char *channel, const char *payload, char *out)
{
	char body[NAME_SIZE + PAYLOAD_SIZE + 32];
	int size = snprintf(body, sizeof body, "{\"channel\":\"%s\",\"data\":\"%s\"}", channel, payload);

	return BUILD("POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
		     "X-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s", options.key, size, body);
}

static size_t centrifugo_websocket(const char *channel, char *out)
{
	return BUILD(GET("/connection/uni_websocket?" CONNECT, UPGRADE), channel);
}

static size_t centrifugo_eventsource(const char *channel, char *out)
{
	return BUILD(GET("/connection/uni_sse?" CONNECT, STREAM), channel);
}

static void centrifugo_message(struct connection *c, const char *text, size_t size)
{
	if (begins(text, size, "{\"connect\":"))
		opened(c);
	else if (size == 2)
		tally.pings++;
	else if (!take_envelope(c, text, text + size))
		tally.corrupt++;
}

static const struct dialect dialects[] = {
	{"pushcompat", true, pushcompat_publish, pushcompat_websocket, pushcompat_eventsource, pushcompat_longpoll,
	 pushcompat_message, pushcompat_answer},
	{"nchan", false, nchan_publish, nchan_websocket, nchan_eventsource, nchan_longpoll,
	 nchan_message, nchan_answer},
	{"centrifugo", true, centrifugo_publish, centrifugo_websocket, centrifugo_eventsource, NULL,
	 centrifugo_message, NULL},
};

const struct dialect *find_dialect(const char *name)
{
	for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
		if (!strcmp(dialects[i].name, name))
			return &dialects[i];
	die("no dialect %s: pushcompat, nchan or centrifugo", name);
}
