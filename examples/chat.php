<?php
// Comments in PHP: save, then publish to every open page. See README.md for how to run it.

require __DIR__ . '/pushcompat.php';

$comments = sys_get_temp_dir() . '/comments.txt';  // your database

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    file_put_contents($comments, json_encode($_POST['text']) . "\n", FILE_APPEND | LOCK_EX);
    pushcompat_notify('chat');
    header('Location: /', true, 303);
    exit;
}

$push = ['url' => pushcompat_url() . '/channels/chat', 'cursor' => pushcompat_cursor()];  // before the comments are read
?>
<!doctype html>
<title>Comments</title>
<form method="post"><input name="text" aria-label="Comment" required> <button>Send</button></form>
<ul><?php foreach (is_file($comments) ? file($comments) : [] as $line): ?>
<li><?= htmlspecialchars(json_decode($line)) ?></li>
<?php endforeach ?></ul>
<script src="<?= pushcompat_url() ?>/static/pushcompat.js"></script>
<script>
  var push = <?= json_encode($push, JSON_HEX_TAG | JSON_HEX_AMP) ?>;
  push.onMessage = push.onReset = function () { location.reload() }
  PushCompat.subscribe(push.url, push)
</script>
