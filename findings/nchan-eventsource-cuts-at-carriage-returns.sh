#!/bin/sh
# Nchan 1.3.6 (Debian 12): of a message with a lone carriage return, EventSource subscribers get what is before it.
#
# Messages are divided into "data:" lines at LF and at CR LF, but a CR alone, which ends a line of an event stream too, is
# written as it is: what follows it is a field with an unknown name, which clients ignore. Output of builds and downloads
# is full of them: progress bars return to the start of their line. WebSocket and long-poll subscribers of the same
# channel get the whole message. Until it is mended: JSON, which escapes them, or LF in their place.
#
# Needs Debian 12, apt-get with its lists, curl and python3. Takes about 4 s. Exit code 0: as described; 1: the behaviour
# has changed.
set -eu
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq libnginx-mod-nchan=1:1.3.6+dfsg-2 nginx >apt.log 2>&1
for package in *.deb; do dpkg -x "$package" root; done
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')

cat >nginx.conf <<CONF
load_module $folder/root/usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
pid $folder/nginx.pid;
error_log $folder/error.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    server {
        listen 127.0.0.1:$port;
        location = /publish { nchan_publisher; nchan_channel_id \$arg_id; }
        location = /subscribe {
            nchan_subscriber;
            nchan_channel_id \$arg_id;
            nchan_subscriber_first_message oldest;
        }
    }
}
CONF
root/usr/sbin/nginx -p "$folder" -e error.log -c nginx.conf &
server=$!
curl --silent --retry 20 --retry-connrefused --retry-delay 1 --output published --data-binary "$(printf '10 %%\r100 %%\ndone')" \
    "http://127.0.0.1:$port/publish?id=build"

curl --silent "http://127.0.0.1:$port/subscribe?id=build" >longpoll
timeout 1 curl --silent --no-buffer --header 'Accept: text/event-stream' "http://127.0.0.1:$port/subscribe?id=build" >stream || true

cat >show.py <<'PY'
import re
from pathlib import Path

print("long-poll:", ascii(Path("longpoll").read_bytes().decode()))
stream = Path("stream").read_bytes().decode()
print("EventSource:", ascii(stream[stream.index("data:") :]))
lines = re.split("\r\n|\n|\r", stream)
print("data of its lines:", ascii("\n".join(line[len("data: ") :] for line in lines if line.startswith("data: "))))
PY
python3 show.py | tee seen
cat >expected <<'TXT'
long-poll: '10 %\r100 %\ndone'
EventSource: 'data: 10 %\r100 %\ndata: done\n\n'
data of its lines: '10 %\ndone'
TXT
diff expected seen
