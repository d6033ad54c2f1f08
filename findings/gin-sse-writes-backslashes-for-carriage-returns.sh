#!/bin/sh
# gin-contrib/sse 1.1.2 (Go; Gin's SSEvent): a carriage return in a text arrives as a backslash and an "r", and a blank at
# its start is lost.
#
# Line feeds divide the text into "data:" lines, as the format asks. Carriage returns, which cannot be sent, are not taken
# for line ends but written as two characters, so that each line of a text that ends with CR LF (from a form's textarea, or
# a file of Windows) ends with a visible "\r". "data:" has no blank after it, so clients take the text's first one. Until it
# is mended: JSON by passing a struct or a map, or strings.ReplaceAll(text, "\r\n", "\n") and a blank before it.
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
	"bytes"
	"fmt"

	"github.com/gin-contrib/sse"
)

func main() {
	for _, text := range []string{"one\ntwo", "one\r\ntwo", "10 %\r20 %", " indented"} {
		var stream bytes.Buffer
		if err := sse.Encode(&stream, sse.Event{Data: text}); err != nil {
			panic(err)
		}
		fmt.Printf("%q is sent as %q\n", text, stream.String())
	}
}
GO
timeout 120 go run . | tee seen
cat >expected <<'TXT'
"one\ntwo" is sent as "data:one\ndata:two\n\n"
"one\r\ntwo" is sent as "data:one\\r\ndata:two\n\n"
"10 %\r20 %" is sent as "data:10 %\\r20 %\n\n"
" indented" is sent as "data: indented\n\n"
TXT
diff expected seen
