<?php
// Publishing to pushcompat from PHP 7.4 or newer, with the extension curl. Copy this file into your application.
//
//     require 'pushcompat.php';
//     pushcompat_notify('chat');                        // after the response; a failure goes to the error log
//     pushcompat_publish('chat', ['text' => 'hello']);  // now; throws PushCompatError
//
// Server and key are $PUSHCOMPAT_URL, and $PUSHCOMPAT_PUBLISH_KEY or the file $PUSHCOMPAT_PUBLISH_KEY_FILE.

const PUSHCOMPAT_TIMEOUT_S = 2.0;  // for a publish, its retries included
const PUSHCOMPAT_CONNECT_S = 0.5;
const PUSHCOMPAT_BREAKER_S = 5;    // after a failure the next calls fail at once

final class PushCompatError extends RuntimeException {}

/**
 * Publishes to a channel, or to each of several. $data: null is the bare signal, a string is text, anything else JSON.
 * $options: key (only the latest message with it is kept), type, ttl (seconds).
 */
function pushcompat_publish($channels, $data = null, array $options = []): void
{
    pushcompat_publish_batch(pushcompat_messages($channels, $data, $options));
}

/** Publishes when the request has ended: after the response under PHP-FPM and LiteSpeed. All messages are one batch. */
function pushcompat_notify($channels, $data = null, array $options = []): void
{
    static $messages = null;
    if ($messages === null) {
        $messages = [];
        register_shutdown_function(static function () use (&$messages): void {
            foreach (['fastcgi_finish_request', 'litespeed_finish_request'] as $finish) {
                if (function_exists($finish)) {
                    $finish();
                }
            }
            try {
                pushcompat_publish_batch($messages);
            } catch (PushCompatError | JsonException $error) {
                error_log(count($messages) . ' messages were not published: ' . $error->getMessage());
            }
        });
    }
    foreach (pushcompat_messages($channels, $data, $options) as $message) {
        $isSignal = !isset($message['data']) || $message['data'] === '';
        if (isset($message['key']) || $isSignal) {  // it replaces the one before it
            $messages[json_encode([$message['channel'], $message['key'] ?? ''])] = $message;
        } else {
            $messages[] = $message;
        }
    }
}

/**
 * The cursor of the log: ask for it before you read what a page shows, and let the page subscribe from there, so that it
 * misses nothing in between. An empty string while the push server does not answer.
 */
function pushcompat_cursor(): string
{
    try {
        return (string) (json_decode(pushcompat_request('GET', '/cursor'), true)['cursor'] ?? '');
    } catch (PushCompatError $error) {
        error_log('a page subscribes without a cursor: ' . $error->getMessage());
        return '';
    }
}

function pushcompat_url(): string
{
    return rtrim(getenv('PUSHCOMPAT_URL') ?: 'http://127.0.0.1:8888', '/');
}

/** Publishes [['channel' => 'a', 'data' => 1], …], all or none. */
function pushcompat_publish_batch(array $messages): void
{
    if ($messages) {
        $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;
        pushcompat_request('POST', '/channels', json_encode(array_values($messages), $flags));
    }
}

function pushcompat_messages($channels, $data, array $options): array
{
    $messages = [];
    foreach ((array) $channels as $channel) {
        $messages[] = array_filter(
            ['channel' => $channel, 'data' => $data] + $options,
            static function ($value): bool { return $value !== null; }
        );
    }
    return $messages;
}

function pushcompat_key(): string
{
    $file = getenv('PUSHCOMPAT_PUBLISH_KEY_FILE');
    return getenv('PUSHCOMPAT_PUBLISH_KEY') ?: ($file ? trim((string) file_get_contents($file)) : '');
}

/**
 * The body of the response. All attempts have one Idempotency-Key: curl itself repeats a request, without saying so, if
 * the server closes a kept connection before it answers.
 */
function pushcompat_request(string $method, string $path, string $body = ''): string
{
    static $curl = null;
    $deadline = microtime(true) + PUSHCOMPAT_TIMEOUT_S;
    $away = sys_get_temp_dir() . '/pushcompat-away-' . md5(pushcompat_url() . get_current_user());
    clearstatcache();
    if (time() - (int) @filemtime($away) < PUSHCOMPAT_BREAKER_S) {
        throw new PushCompatError(pushcompat_url() . ' did not answer shortly before, and is not tried again yet');
    }
    $curl = $curl ?? curl_init();
    curl_reset($curl);  // it keeps its connections
    curl_setopt_array($curl, [
        CURLOPT_URL => pushcompat_url() . $path,
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_HTTPHEADER => [
            'Authorization: Bearer ' . pushcompat_key(),
            'Content-Type: application/json',
            'Idempotency-Key: ' . bin2hex(random_bytes(16)),
            'Expect:',
        ],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FOLLOWLOCATION => false,  // the key is for this server only
        CURLOPT_PROXY => '',
        CURLOPT_NOSIGNAL => true,
        CURLOPT_CONNECTTIMEOUT_MS => (int) (PUSHCOMPAT_CONNECT_S * 1000),
    ] + ($method === 'POST' ? [CURLOPT_POSTFIELDS => $body] : []));
    while (true) {
        $left = max(1, (int) (($deadline - microtime(true)) * 1000));
        curl_setopt($curl, CURLOPT_TIMEOUT_MS, $left);
        $response = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        if ($response !== false && $status === 200) {
            return $response;
        }
        if ($response !== false && $status < 500 && $status !== 429) {
            $problem = json_decode($response, true);
            throw new PushCompatError($problem['detail'] ?? "the push server answered $status");
        }
        if (microtime(true) + 0.2 > $deadline) {
            break;
        }
        usleep(random_int(50000, 200000));
    }
    if ($response === false) {
        @touch($away);
    }
    throw new PushCompatError(pushcompat_url() . ': ' . ($response === false ? curl_error($curl) : "status $status"));
}
