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

/** Its code is the status of the response, 0 if there was none. */
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
            pushcompat_publish_or_log($messages);
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

/** If a batch is refused, that may mean one of its messages only: each is tried. */
function pushcompat_publish_or_log(array $messages): void
{
    try {
        pushcompat_publish_batch($messages);
    } catch (PushCompatError | JsonException $error) {
        $concernsOne = $error instanceof JsonException || in_array($error->getCode(), [400, 403, 413, 422], true);
        if (count($messages) > 1 && $concernsOne) {
            foreach ($messages as $message) {
                pushcompat_publish_or_log([$message]);
            }
        } else {
            error_log(count($messages) . ' messages were not published: ' . $error->getMessage());
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
        throw new PushCompatError(pushcompat_url() . ' has failed shortly before, and is not tried again yet');
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
    for ($longest = 100; true; $longest = min(1000, 2 * $longest)) {
        $left = max(1, (int) (($deadline - microtime(true)) * 1000));
        curl_setopt($curl, CURLOPT_TIMEOUT_MS, $left);
        $response = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        if ($response !== false && $status === 200) {
            return $response;
        }
        $problem = $response === false ? null : json_decode($response, true);
        $reason = $response === false ? curl_error($curl) : ($problem['detail'] ?? "it answered $status");
        $setting = $status === 401 ? 'PUSHCOMPAT_PUBLISH_KEY' : 'PUSHCOMPAT_URL';
        $error = new PushCompatError(pushcompat_url() . ": $reason (look at $setting)", $response === false ? 0 : $status);
        if ($response !== false && $status < 500 && !in_array($status, [408, 425, 426, 429], true)) {
            throw $error;
        }
        $asked = $response !== false && defined('CURLINFO_RETRY_AFTER') ? curl_getinfo($curl, CURLINFO_RETRY_AFTER) : 0;
        $pause = $asked + random_int(50, $longest) / 1000;
        if (microtime(true) + $pause > $deadline) {
            @touch($away);
            throw $error;
        }
        usleep((int) ($pause * 1e6));
    }
}
