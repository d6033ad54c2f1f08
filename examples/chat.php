<?php
// Comments in PHP: save, then publish to every open page. See README.md for how to run it.

$push = getenv('PUSHCOMPAT_URL') ?: 'http://127.0.0.1:8888';
$comments = sys_get_temp_dir() . '/comments.txt';  // your database

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    file_put_contents($comments, json_encode($_POST['text']) . "\n", FILE_APPEND | LOCK_EX);
    $published = @file_get_contents("$push/channels/chat", false, stream_context_create(['http' => [
        'method' => 'POST',
        'header' => 'Authorization: Bearer ' . getenv('PUSHCOMPAT_PUBLISH_KEY'),
        'timeout' => 5,
    ]]));
    if ($published === false) error_log('comment saved, but publishing failed');
    header('Location: /', true, 303);
    exit;
}
?>
<!doctype html>
<title>Comments</title>
<form method="post"><input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul><?php foreach (is_file($comments) ? file($comments) : [] as $line): ?>
<li><?= htmlspecialchars(json_decode($line)) ?></li>
<?php endforeach ?></ul>
<script src="<?= $push ?>/static/pushcompat.js"></script>
<script>
  function again() { location.reload() }
  PushCompat.subscribe("<?= $push ?>/channels/chat", {onMessage: again, onReset: again})
</script>
