#!/bin/sh
# gin-contrib/sse 1.1.2 (Go): Decode takes the number of a "retry:" line for the id of its event, and leaves the CR of CR LF in
# the data.
#
# Servers send "retry:" in their first event. A program that resumes from the id it has seen asks for 3000, which is a time
# in milliseconds; Retry stays 0. Until it is
# mended: tmaxmax/go-sse to read event streams.
#
# Needs Go 1.24 or newer. Takes about 10 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
export GOPATH="$folder/go" GOFLAGS=-mod=mod
go mod init show >log 2>&1
go get github.com/gin-contrib/sse@v1.1.2 >>log 2>&1

cat >main.go <<'GO'
package main

import (
	"fmt"
	"strings"

	"github.com/gin-contrib/sse"
)

func main() {
	for _, stream := range []string{
		"id: 7\ndata: one\n\n",
		"retry: 3000\ndata: one\n\n",
		"id: 7\r\ndata: one\r\ndata: two\r\n\r\n",
	} {
		events, err := sse.Decode(strings.NewReader(stream))
		if err != nil {
			panic(err)
		}
		for _, event := range events {
			fmt.Printf("%q is read as id %q, retry %d, data %q\n", stream, event.Id, event.Retry, event.Data)
		}
	}
}
GO
timeout 120 go run . | tee seen
cat >expected <<'TXT'
"id: 7\ndata: one\n\n" is read as id "7", retry 0, data "one"
"retry: 3000\ndata: one\n\n" is read as id "3000", retry 0, data "one"
"id: 7\r\ndata: one\r\ndata: two\r\n\r\n" is read as id "7\r", retry 0, data "one\r\ntwo\r"
TXT
diff expected seen
